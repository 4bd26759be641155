"""The world outside the device: the server, and in front of it a proxy that brings TLS, as in production."""

import json
import os
import socket
import ssl
import subprocess
import threading
import urllib.request
from pathlib import Path

from machine import OUTSIDE_ADDRESS, wait_for

URL = f"https://{OUTSIDE_ADDRESS}:8443"
APP = "notes"


class Outside:
    """The server as operators and publishers see it."""

    def __init__(self, folder: Path, binaries: Path):
        self.folder, self.binaries = folder, binaries
        self.store = f"sqlite:{folder / 'server.db'}"
        self.server = None
        self.base = "http://127.0.0.1:8787"
        self.versions = 0

    def start(self):
        log = open(self.folder / "server.log", "ab")
        command = [str(self.binaries / "whimbrel-server"), "serve", "--listen", "127.0.0.1:8787", "--store", self.store]
        self.server = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=log, stderr=log)
        wait_for("the server", lambda: "listening on" in (self.folder / "server.log").read_text())
        self.admin = self._secret("key", "create", "--scope", "admin")
        self.ca = _certificates(self.folder)
        _tls_proxy(self.folder, ("127.0.0.1", 8787))

    def stop(self):
        self.server.terminate()
        self.server.wait(timeout=20)

    def token(self):
        """A token with which devices enrol."""
        return self._secret("token", "create", "--app", APP, "--uses", "100")

    def publish(self, name, up, manifest=""):
        """Adds one migration to the chain, with the publisher's own tool."""
        self.versions += 1
        chain = self.folder / "migrations"
        folder = chain / f"{self.versions:04}_{name}"
        folder.mkdir(parents=True)
        (folder / "up.sql").write_text(up)
        if manifest:
            (folder / "migration.toml").write_text(manifest)
        environment = dict(os.environ, WHIMBREL_API_KEY=self.admin)
        command = [str(self.binaries / "whimbrel"), "publish", str(chain), "--app", APP, "--server", self.base]
        done = subprocess.run(command, env=environment, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=60)
        assert done.returncode == 0, f"publish ended with {done.returncode}:\n{done.stdout}{done.stderr}"
        return self.versions

    def get(self, path):
        request = urllib.request.Request(self.base + path, headers={"X-API-Key": self.admin})
        with urllib.request.urlopen(request, timeout=10) as answer:
            return json.load(answer)

    def versions_of_clients(self):
        """Version in place of each database, by its path on the device."""
        return {c.get("path", c["client_id"]): c["version"] for c in (x.get("state", x) for x in self.get(f"/api/clients?app={APP}")["clients"])}

    def _secret(self, noun, verb, *more):
        command = [str(self.binaries / "whimbrel-server"), noun, verb, "--store", self.store, *more]
        return subprocess.run(command, check=True, capture_output=True, text=True).stdout.splitlines()[-1]


def _certificates(folder: Path) -> str:
    """Makes a CA and a certificate for the server's address. Returns the CA, PEM."""
    run = lambda *command: subprocess.run(["openssl", *command], cwd=folder, check=True, capture_output=True)
    key = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"]
    run("req", "-x509", *key, "-keyout", "ca.key", "-out", "ca.pem", "-days", "2", "-subj", "/CN=test authority")
    run("req", *key, "-keyout", "server.key", "-out", "server.csr", "-subj", "/CN=server")
    (folder / "san.ext").write_text(f"subjectAltName=IP:{OUTSIDE_ADDRESS}\nbasicConstraints=CA:FALSE\n")
    run("x509", "-req", "-in", "server.csr", "-CA", "ca.pem", "-CAkey", "ca.key", "-CAcreateserial", "-out", "server.pem", "-days", "2", "-extfile", "san.ext")
    return (folder / "ca.pem").read_text()


def _tls_proxy(folder: Path, target):
    """Accepts TLS where the device can reach it and passes the bytes on."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(folder / "server.pem", folder / "server.key")
    listener = socket.create_server((OUTSIDE_ADDRESS, 8443))

    def copy(source, sink):
        try:
            while data := source.recv(65536):
                sink.sendall(data)
        except OSError:
            pass  # a cut wire; the other direction notices by itself
        for end in (source, sink):
            try:
                end.shutdown(socket.SHUT_RDWR)
            except OSError:
                pass

    def serve(plain):
        try:
            client = context.wrap_socket(plain, server_side=True)
            server = socket.create_connection(target)
        except OSError:
            plain.close()
            return
        threading.Thread(target=copy, args=(client, server), daemon=True).start()
        copy(server, client)

    def accept():
        while True:
            plain, _ = listener.accept()
            plain.settimeout(60)
            threading.Thread(target=serve, args=(plain,), daemon=True).start()

    threading.Thread(target=accept, daemon=True).start()
