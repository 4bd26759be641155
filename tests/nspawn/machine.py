"""The device: a bare root booted under systemd-nspawn, in a network of its own whose cable can be pulled."""

import os
import shlex
import signal
import subprocess
import time
from pathlib import Path

DEVICE_ADDRESS, OUTSIDE_ADDRESS = "10.77.0.2", "10.77.0.1"


def wait_for(what, probe, limit_s=20.0):
    """Asks `probe` until it gives something true, and returns that. Fails after `limit_s`, with the last answer."""
    end = time.monotonic() + limit_s
    while True:
        answer = probe()
        if answer:
            return answer
        if time.monotonic() > end:
            raise AssertionError(f"waited {limit_s:.0f} s for: {what}; last answer: {answer!r}")
        time.sleep(0.02)


class Machine:
    """Runs from `boot` to `power_off`. Only in a mount, process and network namespace made for it (see `run`)."""

    def __init__(self, root: Path):
        self.root = root
        self.process = None
        self.leader = None

    def boot(self):
        # nspawn keeps its own files there; the machine's real ones are none of its business.
        _run("mkdir -p /run/systemd /run/netns && mount -t tmpfs tmpfs /run/systemd && mount -t tmpfs tmpfs /run/netns")
        _run("ip link set lo up && ip netns add device && ip link add cable type veth peer name eth0 netns device")
        _run(f"ip addr add {OUTSIDE_ADDRESS}/24 dev cable && ip link set cable up")
        _run(f"ip -n device link set lo up && ip -n device addr add {DEVICE_ADDRESS}/24 dev eth0 && ip -n device link set eth0 up")
        _run(f"ip -n device route add default via {OUTSIDE_ADDRESS}")
        self.start()

    def start(self):
        """Boots, after `boot` made the network or after `power_cut`."""
        log = open(self.root.parent / "console.log", "ab")
        command = ["systemd-nspawn", "--quiet", "-D", str(self.root), "--boot", "--register=no", "--keep-unit"]
        command += ["--network-namespace-path=/run/netns/device", "--console=read-only", "--link-journal=no"]
        self.process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=log, stderr=log)
        children = Path(f"/proc/{self.process.pid}/task/{self.process.pid}/children")

        def leader():
            assert self.process.poll() is None, f"systemd-nspawn ended: {(self.root.parent / 'console.log').read_text()}"
            # Until it is executed, there are helpers of nspawn in its place.
            return [pid for pid in children.read_text().split() if _name(pid) == "systemd"]

        self.leader = wait_for("the machine's first process", leader)[0]
        wait_for("systemd", lambda: self.sh("test -S /run/systemd/private", check=False).returncode == 0)
        wait_for("the end of the boot", lambda: self.say("systemctl is-system-running", check=False) in ("running", "degraded"))

    def power_off(self):
        if self.process and self.process.poll() is None:
            # Its init's word for "power off": also when nothing in it answers any more.
            os.kill(int(self.leader), signal.SIGRTMIN + 4)
            self.process.wait(timeout=60)

    def sh(self, script, user=None, check=True, limit_s=60):
        """Runs a shell script in the machine, as root or as `user`."""
        enter = ["nsenter", "-t", self.leader, "-m", "-u", "-i", "-n", "-p", "-r", "-w"]
        environment = ["env", "-i", "PATH=/usr/sbin:/usr/bin:/sbin:/bin", "LC_ALL=C.UTF-8", "DEBIAN_FRONTEND=noninteractive"]
        become = []
        if user:
            environment += [f"HOME=/home/{user}", f"USER={user}"]
            become = ["setpriv", "--reuid", user, "--regid", user, "--init-groups", "--"]
        else:
            environment += ["HOME=/root"]
        command = enter + environment + become + ["sh", "-c", script]
        done = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=limit_s)
        if check and done.returncode != 0:
            raise AssertionError(f"`{script}` ended with {done.returncode}:\n{done.stdout}{done.stderr}")
        return done

    def say(self, script, user=None, check=True):
        """What the script printed."""
        return self.sh(script, user, check).stdout.strip()

    def write(self, path, text, mode=0o644, owner=None):
        """Puts a file into the machine."""
        file = self.root / path.lstrip("/")
        file.parent.mkdir(parents=True, exist_ok=True)
        self.sh(f"cat > {shlex.quote(path)} <<'END_OF_FILE'\n{text}\nEND_OF_FILE\nchmod {mode:o} {shlex.quote(path)}")
        if owner:
            self.sh(f"chown {owner} {shlex.quote(path)}")

    def show(self, unit, *properties):
        """Properties of a unit, as systemd has them now."""
        text = self.say(f"systemctl show {shlex.quote(unit)} -p {','.join(properties)}")
        return dict(line.split("=", 1) for line in text.splitlines())

    def active(self, unit):
        """Whether a unit is ready: for Type=notify, whether it said so."""
        return self.show(unit, "ActiveState")["ActiveState"] == "active"

    def wait_active(self, unit, limit_s=20.0):
        wait_for(f"{unit} to be ready", lambda: self.active(unit), limit_s)
        return self.show(unit, "MainPID", "NRestarts", "StatusText")

    def journal(self, unit, *more):
        return self.say(f"journalctl --no-pager -o cat -u {shlex.quote(unit)} {' '.join(more)}")

    def pull_cable(self):
        _run("ip link set cable down")

    def put_cable_back(self):
        _run("ip link set cable up")


def _name(pid):
    try:
        return Path(f"/proc/{pid}/comm").read_text().strip()
    except FileNotFoundError:
        return None


def _run(script):
    subprocess.run(["sh", "-ec", script], check=True)
