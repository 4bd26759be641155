"""The stories, in order, on one machine: each goes on where the one before it ended."""

import contextlib
import functools
import json
import re
import shlex
import sqlite3
import subprocess
import time

from machine import wait_for
from outside import APP, URL

# Longest that a migration takes from the moment it may run. A busy two-core machine, unoptimised binaries.
SOON_S = 15

# An application as most are: one connection kept open, a row every few milliseconds, and it gives up at the first
# error. Its busy timeout is longer than any hold that is announced. It closes when the second file appears.
APP_SCRIPT = """#!/bin/sh
while [ ! -e "$2" ]; do
    echo "INSERT INTO note(title) VALUES ('by the application');"
    sleep 0.03
done | exec sqlite3 -bail -cmd '.timeout 20000' "$1"
"""

INIT = """
CREATE TABLE note (id INTEGER PRIMARY KEY, title TEXT NOT NULL);
"""

LONG = """
CREATE TABLE counted (n INTEGER);
INSERT INTO counted {counting};
ALTER TABLE note ADD COLUMN {column} TEXT;
DROP TABLE counted;
"""
COUNTING = "WITH RECURSIVE c(x) AS (SELECT 1 UNION ALL SELECT x + 1 FROM c LIMIT {rows}) SELECT max(x) FROM c"
LONG_MANIFEST = 'max_lock = "5m"\ntimeout = "10m"\ndestructive = true\n'


@functools.cache
def rows_a_second():
    """How far this machine counts in a second: how long a migration takes must not depend on who runs the tests."""
    rows, took_s = 100_000, 0.0
    while took_s < 0.25:
        rows *= 2
        begun = time.monotonic()
        with contextlib.closing(sqlite3.connect(":memory:")) as connection:
            connection.execute(COUNTING.format(rows=rows)).fetchall()
        took_s = time.monotonic() - begun
    return rows / took_s


def long(seconds, column):
    """A migration that takes about so long, or longer: something is done in the middle of it."""
    return LONG.format(counting=COUNTING.format(rows=int(seconds * rows_a_second())), column=column)


HOURLY, EVERY_SECOND = "0 0 * * * *", "* * * * * *"


def config(user, databases, poll=EVERY_SECOND, ca=True):
    """A configuration as the example that is shipped."""
    lines = [f'server = "{URL}"', 'trust = "none"']
    if ca:
        lines.append('ca_file = "/srv/ca.pem"')
    if user:
        lines += [f'state_dir = "/var/lib/whimbrel/{user}"', f'socket = "/run/whimbrel/{user}/control.sock"']
    lines += ["[schedule]", f'poll = "{poll}"']
    for path in databases:
        lines += ["[[database]]", f'path = "{path}"', f'app = "{APP}"', "create = false"]
    return "\n".join(lines)


class Daemon:
    """One of the three ways to run it: which unit, which configuration, which user."""

    def __init__(self, machine, unit, user, file, database):
        self.machine, self.unit, self.user, self.file, self.database = machine, unit, user, file, database

    def whimbrel(self, words, check=True):
        return self.machine.sh(f"whimbrel --config {self.file} {words}", user=self.as_user(), check=check)

    def as_user(self):
        return None if self.file.startswith("/etc") else self.user

    def status(self):
        """As the daemon tells it, or nothing while it is away."""
        done = self.whimbrel("status --json", check=False)
        return json.loads(done.stdout) if done.returncode in (0, 3, 4) else None

    def view(self, path=None):
        status = self.status()
        return status and next((d for d in status["databases"] if d["path"] == (path or self.database)), None)

    def version(self):
        view = self.view()
        return view["version"] if view else None

    def wait_version(self, version, limit_s=SOON_S):
        wait_for(f"{self.database} to be at version {version}", lambda: self.version() == version, limit_s)

    def history(self):
        """Its events, oldest first."""
        events = json.loads(self.whimbrel(f"history --json {self.database}").stdout)["events"]
        return events[::-1]

    def applying(self):
        """Whether the statements of a migration run now."""
        view = self.view()
        return view and view["now"]["phase"] == "running"


class Application:
    """The application on one database, as the user that owns it."""

    def __init__(self, machine, user, database):
        self.machine, self.user, self.database = machine, user, database
        self.unit = f"app-{re.sub('[^a-z]', '-', database.strip('/'))}.service"

    def start(self):
        self.machine.sh(
            f"rm -f /run/{self.unit}.end; "
            f"systemd-run --quiet --collect --unit={self.unit} --uid={self.user} -p UMask=0007 -p RuntimeMaxSec=600 "
            f"/bin/sh /srv/app {shlex.quote(self.database)} /run/{self.unit}.end"
        )

    def rows(self):
        return int(self.machine.say(f"sqlite3 -cmd '.timeout 20000' {self.database} 'SELECT count(*) FROM note'", self.user))

    def writes_on(self):
        """It is alive, and rows appear."""
        before = self.rows()
        wait_for(f"the application of {self.database} to write", lambda: self.alive() and self.rows() > before + 2)

    def alive(self):
        alive = self.machine.active(self.unit)
        assert alive, f"the application gave up: {self.machine.journal(self.unit)}"
        return True

    def stop(self):
        self.alive()
        self.machine.sh(f"touch /run/{self.unit}.end")
        wait_for(f"the application of {self.database} to close", lambda: not self.machine.active(self.unit))


class Stories:
    """Every method of ORDER is one line of the result."""

    def __init__(self, machine, outside, packages, upgrade):
        self.m, self.outside, self.packages, self.upgrade = machine, outside, packages, upgrade
        # It takes a while and needs nothing of the machine: beside the others.
        lintian = ["lintian", "--allow-root", "--fail-on", "error", *(str(machine.root / p.lstrip("/")) for p in packages)]
        self.lintian = subprocess.Popen(lintian, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
        self.own = Daemon(machine, "whimbrel@notes.service", "notes", "/etc/whimbrel/notes.toml", "/srv/notes/notes.db")
        self.shared = Daemon(machine, "whimbrel.service", "whimbrel", "/etc/whimbrel/config.toml", "/srv/shared/shared.db")
        self.user = Daemon(machine, "user@1002.service", "ann", "/home/ann/.config/whimbrel/config.toml", "/home/ann/ann.db")
        self.apps = {d.database: Application(machine, u, d.database) for d, u in [(self.own, "notes"), (self.shared, "notes"), (self.user, "ann")]}

    # --- the package arrives

    def lintian_finds_no_error(self):
        said, _ = self.lintian.communicate(timeout=120)
        assert self.lintian.returncode == 0, said

    def the_root_has_no_certificates(self):
        assert self.m.sh("test -e /etc/ssl/certs || test -e /usr/share/ca-certificates", check=False).returncode != 0
        assert self.m.say("systemctl is-system-running") == "running"
        self.files_before = self._files()

    def installing_starts_nothing(self):
        self.m.sh(f"dpkg -i {' '.join(self.packages)}")
        units = self.m.say("systemctl list-units --all --no-legend --plain 'whimbrel*'")
        assert units == "", units
        assert self.m.say("ls /etc/whimbrel") == "config.toml.example"
        assert self.m.say("systemctl is-enabled whimbrel.service whimbrel-server.service", check=False).split() == ["disabled"] * 2
        # The example is a configuration: with a user in it, all that is missing is the daemon.
        self.m.sh("sed s/USER/notes/g /etc/whimbrel/config.toml.example > /tmp/example.toml")
        assert self.m.sh("whimbrel --config /tmp/example.toml status", check=False).returncode == 69

    def every_page_that_a_unit_names_is_in_its_package(self):
        units = "/usr/lib/systemd/system/whimbrel*.service /usr/lib/systemd/user/whimbrel.service"
        pages = set(self.m.say(f"sed -n 's/^Documentation=man://p' {units}").split())
        assert pages == {"whimbrel(1)", "whimbrel-server(1)"}, pages
        listed = self.m.say("dpkg -L whimbrel whimbrel-server")
        for page in pages:
            assert f"/man1/{page[:-3]}.1.gz" in listed, page

    def the_server_is_ready_killed_and_back(self):
        unit = "whimbrel-server.service"
        self.m.sh("systemctl enable --now whimbrel-server")
        ask = "exec 3<>/dev/tcp/127.0.0.1/8787; printf 'GET /readyz HTTP/1.0\\r\\n\\r\\n' >&3; head -1 <&3"
        answers = lambda: "200" in self.m.say(f"bash -c {shlex.quote(ask)} 2>/dev/null", check=False)
        wait_for("the server to answer", answers)
        key = "whimbrel-server key create --scope read --name one --store sqlite:/var/lib/whimbrel-server/server.db"
        self.m.sh(f"runuser -u whimbrel-server -- {key}")
        self.m.sh(f"systemctl kill -s KILL {unit}")
        wait_for("the server to be started again", lambda: self.m.show(unit, "NRestarts")["NRestarts"] == "1")
        wait_for("the server to answer", answers)
        assert self.m.say("stat -c %U:%a /var/lib/whimbrel-server") == "whimbrel-server:700"

    # --- whimbrel@notes, beside an application of the user `notes`

    def without_a_configuration_nothing_starts_and_nothing_fails(self):
        self.m.sh("systemctl start whimbrel@notes whimbrel")
        for unit in (self.own.unit, self.shared.unit):
            state = self.m.show(unit, "ActiveState", "ConditionResult")
            assert state == {"ActiveState": "inactive", "ConditionResult": "no"}, state

    def a_wrong_configuration_stops_it_for_good(self):
        self.m.write(self.own.file, 'trust = "none"\nserverr = "x"')
        self.m.sh("systemctl start whimbrel@notes", check=False)
        state = lambda: self.m.show(self.own.unit, "ActiveState", "ExecMainStatus", "NRestarts")
        wait_for("it to fail", lambda: state()["ActiveState"] == "failed")
        assert state() == {"ActiveState": "failed", "ExecMainStatus": "78", "NRestarts": "0"}, state()
        assert "server" in self.m.journal(self.own.unit)
        self.m.sh("systemctl reset-failed whimbrel@notes")

    def without_certificates_it_is_ready_all_the_same(self):
        self.m.write(self.own.file, config("notes", ["/srv/notes/*.db"], poll=HOURLY, ca=False))
        self._make_database(self.own, "notes")
        self.m.sh("systemctl daemon-reload && systemctl enable --now whimbrel@notes", limit_s=90)
        state = self.m.wait_active(self.own.unit)
        assert state["NRestarts"] == "0" and state["StatusText"], state
        assert self.m.say("stat -c %U:%a /var/lib/whimbrel/notes") == "notes:700"
        assert self.m.say(f"stat -c %U /proc/{state['MainPID']}") == "notes"
        paths = self.m.show(self.own.unit, "ReadWritePaths")["ReadWritePaths"]
        assert "/srv/notes" in paths, paths

    def enrolled_and_reloaded_it_applies(self):
        self.outside.publish("init", INIT)
        self.m.write("/srv/ca.pem", self.outside.ca)
        self.m.write(self.own.file, config("notes", ["/srv/notes/*.db"], poll=HOURLY))
        pid = self.m.show(self.own.unit, "MainPID")
        self.m.sh("systemctl reload whimbrel@notes")
        self._enroll(self.own)
        self.own.wait_version(1)
        assert self.m.show(self.own.unit, "MainPID") == pid

    def a_wrong_configuration_is_not_taken_up(self):
        self.m.sh(f"cp {self.own.file} /root/right.toml")
        self.m.write(self.own.file, 'trust = "none"\nserverr = "x"')
        before = self.m.show(self.own.unit, "MainPID")
        self.m.sh("systemctl reload whimbrel@notes", check=False)
        wait_for("it to say so", lambda: "serverr" in self.m.journal(self.own.unit, f"_PID={before['MainPID']}"))
        assert self.m.active(self.own.unit) and self.m.show(self.own.unit, "MainPID") == before
        self.m.sh(f"mv /root/right.toml {self.own.file} && systemctl reload whimbrel@notes")

    def killed_it_is_back(self):
        self.m.sh(f"systemctl kill -s KILL {self.own.unit}")
        wait_for("it to be started again", lambda: self.m.show(self.own.unit, "NRestarts")["NRestarts"] == "1")
        self.m.wait_active(self.own.unit)
        self.own.wait_version(1)

    def stuck_it_is_started_anew_by_the_watchdog(self):
        assert self.m.show(self.own.unit, "WatchdogUSec")["WatchdogUSec"] == "1min"
        drop_in = f"/etc/systemd/system/{self.own.unit}.d/watchdog.conf"
        self.m.write(drop_in, "[Service]\nWatchdogSec=2s")
        self.m.sh(f"systemctl daemon-reload && systemctl restart {self.own.unit}")
        pid = self.m.wait_active(self.own.unit)["MainPID"]
        self.m.sh(f"kill -STOP {pid}")
        wait_for("the watchdog", lambda: self.m.show(self.own.unit, "MainPID")["MainPID"] not in (pid, "0"))
        assert "Watchdog timeout" in self.m.journal(self.own.unit)
        self.m.wait_active(self.own.unit)
        self.m.sh(f"rm {drop_in} && systemctl daemon-reload && systemctl restart {self.own.unit}")
        self.m.wait_active(self.own.unit)

    def the_cable_is_pulled_and_put_back(self):
        self.apps[self.own.database].start()
        self.m.pull_cable()
        version = self.outside.publish("while_offline", "ALTER TABLE note ADD COLUMN offline TEXT;")
        try:
            self.apps[self.own.database].writes_on()
            assert self.own.version() == version - 1 and self.m.active(self.own.unit)
        finally:
            self.m.put_cable_back()
        self.own.wait_version(version, 10)  # long before the next poll, which is within the hour
        self.apps[self.own.database].writes_on()
        wait_for("the report", lambda: version in self.outside.versions_of_clients().values())
        # From here on it asks as often as the others.
        self.m.write(self.own.file, config("notes", ["/srv/notes/*.db"]))
        self.m.sh("systemctl reload whimbrel@notes")

    # --- whose files

    def a_shared_directory_is_served_through_its_group(self):
        self.m.sh("groupadd shared && usermod -aG shared notes && usermod -aG shared whimbrel")
        self.m.sh("install -d -o root -g shared -m 2770 /srv/shared")
        self._make_database(self.shared, "notes", mode="660")
        # Two that are not: one without the group, one whose directory would give -wal to another group than the file's.
        self.m.sh("install -d -o notes -g notes -m 755 /srv/closed && install -d -o notes -g shared -m 2770 /srv/mixed")
        for place in ("closed", "mixed"):
            self.m.sh(f"sqlite3 /srv/{place}/x.db 'PRAGMA journal_mode=WAL; CREATE TABLE t(x)'", user="notes")
        self.m.sh("chgrp notes /srv/mixed/x.db && chmod 660 /srv/mixed/x.db")
        self.m.write(self.shared.file, config("whimbrel", [self.shared.database, "/srv/closed/x.db", "/srv/mixed/x.db"]))
        self.m.sh("systemctl daemon-reload && systemctl enable --now whimbrel")
        self.m.wait_active(self.shared.unit)
        self._enroll(self.shared)
        self.shared.wait_version(self.outside.versions)

    def a_file_that_is_not_shared_is_not_opened(self):
        for place in ("closed", "mixed"):
            view = wait_for("the other file", lambda: self.shared.view(f"/srv/{place}/x.db"))
            assert [h["code"] for h in view["health"]] == ["owner"], view["health"]
            assert self.m.say(f"ls /srv/{place}") == "x.db"
            self.m.sh(f"sqlite3 /srv/{place}/x.db 'INSERT INTO t VALUES (1)'", user="notes")

    def a_user_unit_serves_its_user(self):
        self.m.write(self.user.file, config(None, [self.user.database]))
        self.m.sh("chown -R ann:ann /home/ann")
        self._make_database(self.user, "ann")
        self.m.sh("loginctl enable-linger ann")
        systemctl = "systemctl --user --machine=ann@"
        wait_for("the user's manager", lambda: self.m.sh(f"{systemctl} is-system-running", check=False).returncode == 0)
        self.m.sh(f"{systemctl} enable --now whimbrel")
        self._enroll(self.user)
        self.user.wait_version(self.outside.versions)
        state = self.m.say(f"{systemctl} show whimbrel -p ActiveState,NRestarts,User --value").split()
        assert state[0] == "active" or "active" in state, state

    def after_a_boot_all_of_them_are_ready(self):
        version = self.outside.publish("while_off", "ALTER TABLE note ADD COLUMN while_off TEXT;")
        self.m.power_off()
        self.m.start()
        for daemon in (self.own, self.shared, self.user):
            wait_for(f"{daemon.unit} to be ready", lambda: self._pid(daemon))
            daemon.wait_version(version)
        for daemon in (self.own, self.shared):
            assert self.m.show(daemon.unit, "NRestarts")["NRestarts"] == "0"

    def the_application_goes_on_where_it_was_first(self):
        """It made -wal and -shm; the daemons join, migrate, and leave."""
        for daemon in (self.own, self.shared, self.user):
            app = self.apps[daemon.database]
            if not self.m.active(app.unit):
                app.start()
            app.writes_on()
            assert self._beside(daemon) == {app.user}, self._beside(daemon)
        version = self.outside.publish("app_first", "ALTER TABLE note ADD COLUMN app_first TEXT;")
        for daemon in (self.own, self.shared, self.user):
            daemon.wait_version(version)
            self.apps[daemon.database].writes_on()
            self.apps[daemon.database].stop()

    def the_application_goes_on_where_the_daemon_was_first(self):
        """The daemons made -wal and -shm; the applications come while a migration runs, wait for it, and write on."""
        daemons = (self.own, self.shared, self.user)
        for daemon in daemons:
            assert self._beside(daemon) == set(), f"{daemon.database}: {self._beside(daemon)}"
        version = self.outside.publish("daemon_first", long(1, "daemon_first"), LONG_MANIFEST)
        waiting = list(daemons)

        def applications_that_come():
            for daemon in list(waiting):
                owners = self._beside(daemon)
                if owners:
                    assert owners == {daemon.user}, owners
                    self.apps[daemon.database].start()
                    waiting.remove(daemon)
            return not waiting

        wait_for("every daemon to make -wal and -shm", applications_that_come, SOON_S)
        for daemon in daemons:
            daemon.wait_version(version, 60)
            self.apps[daemon.database].writes_on()

    def an_application_goes_on_with_what_a_killed_daemon_left(self):
        """-wal and -shm of a daemon that died in the middle of a migration."""
        app = self.apps[self.shared.database]
        app.stop()
        version = self.outside.publish("killed", long(1, "killed"), LONG_MANIFEST)
        wait_for("the daemon's -wal", lambda: self._beside(self.shared) == {"whimbrel"}, SOON_S)
        self.m.sh("systemctl kill -s KILL whimbrel.service")
        app.start()
        app.writes_on()
        for daemon in (self.own, self.shared, self.user):
            daemon.wait_version(version, 60)
            self.apps[daemon.database].writes_on()

    def a_migration_longer_than_the_watchdog_is_not_killed(self):
        """It is fed by the work: a long statement is work."""
        drop_in = "/etc/systemd/system/whimbrel.service.d/watchdog.conf"
        self.m.write(drop_in, "[Service]\nWatchdogSec=1s")
        self.m.sh("systemctl daemon-reload && systemctl restart whimbrel")
        try:
            version = self.outside.publish("watched", long(3, "watched"), LONG_MANIFEST)
            for daemon in (self.own, self.shared, self.user):
                daemon.wait_version(version, 60)
            assert self.m.show("whimbrel.service", "NRestarts")["NRestarts"] == "0", self.m.journal("whimbrel.service")
            events = [e for e in self.shared.history() if e["version"] == version]
            assert events[1]["at_ms"] - events[0]["at_ms"] > 1000, f"it was not longer: {events}"
        finally:
            self.m.sh("rm -r /etc/systemd/system/whimbrel.service.d && systemctl daemon-reload && systemctl restart whimbrel")
        wait_for("the daemon", lambda: self.shared.version() == version)

    # --- the package changes and goes

    def an_upgrade_in_the_middle_of_a_migration_loses_nothing(self):
        daemons = (self.own, self.shared, self.user)
        self.m.sh("echo '# by the administrator' >> /etc/whimbrel/config.toml.example")
        # Unpacked first, so that what is left, the restart, meets the migration.
        self.m.sh(f"dpkg --unpack --force-confold {' '.join(self.upgrade)}", limit_s=180)
        version = self.outside.publish("upgraded", long(2, "upgraded"), LONG_MANIFEST)
        wait_for("migrations to be under way", lambda: self.own.applying() and self.shared.applying(), SOON_S)
        old = {d: self._pid(d) for d in daemons}
        began_ms = time.time() * 1000
        self.m.sh("dpkg --configure --force-confold whimbrel whimbrel-server", limit_s=180)
        for daemon in daemons:
            new = wait_for(f"the new version of {daemon.unit}", lambda: self._pid(daemon))
            assert new != old[daemon], f"{daemon.unit} still runs the old version"
            assert "deleted" not in self.m.say(f"readlink /proc/{new}/exe")
            daemon.wait_version(version, 60)
            self.apps[daemon.database].writes_on()
        for daemon in (self.own, self.shared):
            events = [e for e in daemon.history() if e["version"] == version]
            assert [e["kind"] for e in events] == ["started", "completed"], f"what was begun was not finished, but done again: {events}"
            assert events[0]["at_ms"] < began_ms < events[1]["at_ms"], f"the restart at {began_ms} did not meet the migration: {events}"
        assert "by the administrator" in self.m.say("cat /etc/whimbrel/config.toml.example")
        wait_for("every report", lambda: set(self.outside.versions_of_clients().values()) == {version})

    def removing_keeps_the_state(self):
        self.m.sh("dpkg -r whimbrel whimbrel-server", limit_s=180)
        for unit in (self.own.unit, self.shared.unit, "whimbrel-server.service"):
            assert not self.m.active(unit), unit
        assert self.m.say("grep -lx 'whimbrel.*' /proc/[0-9]*/comm", check=False) == "", "something of it still runs"
        assert "device.db" in self.m.say("ls /var/lib/whimbrel/notes /var/lib/whimbrel/whimbrel")
        assert "notes.toml" in self.m.say("ls /etc/whimbrel")
        for app in self.apps.values():
            app.writes_on()

    def installed_again_it_goes_on(self):
        version = self.outside.publish("again", "ALTER TABLE note ADD COLUMN again TEXT;")
        self.m.sh(f"dpkg -i --force-confdef --force-confold {' '.join(self.upgrade)}", limit_s=180)
        for daemon in (self.own, self.shared):
            self.m.wait_active(daemon.unit)
            daemon.wait_version(version)

    def purging_leaves_only_what_is_the_users(self):
        rows = {}
        for app in self.apps.values():
            app.stop()
        self.m.sh("dpkg -r whimbrel whimbrel-server", limit_s=180)
        for app in self.apps.values():
            rows[app.database] = app.rows()
        self.m.sh("dpkg --purge whimbrel whimbrel-server", limit_s=180)
        for app in self.apps.values():
            assert app.rows() == rows[app.database]
            assert self.m.say(f"sqlite3 {app.database} 'PRAGMA integrity_check'", app.user) == "ok"
        left = sorted(self._files() - self.files_before)
        # What the daemon of ann's unit made in her home is hers: packages do not reach into homes.
        ours = [f for f in left if not f.startswith(("/srv/", "/home/ann", "/etc/systemd/system/whimbrel@notes.service.d"))]
        ours += [f for f in left if f.startswith("/srv/") and "whimbrel" in f]
        assert not ours, ours
        assert self.m.say("getent passwd whimbrel whimbrel-server", check=False) == ""
        assert self.m.say("systemctl is-system-running", check=False) == "running", self.m.say("systemctl --failed")

    def nothing_was_said_that_a_person_should_look_at(self):
        """An error in a log that no story expects is one."""
        daemons = self.m.say("journalctl --no-pager -o json -p err -t whimbrel").splitlines()
        daemons = [json.loads(line)["MESSAGE"] for line in daemons]
        server = self.m.say("journalctl --no-pager -o short -t whimbrel-server | grep ' ERROR '", check=False)
        outside = [l for l in (self.outside.folder / "server.log").read_text().splitlines() if " ERROR " in l]
        unexpected = [m for m in daemons + server.splitlines() + outside if "serverr" not in m]
        assert not unexpected, unexpected

    ORDER = [
        the_root_has_no_certificates,
        installing_starts_nothing,
        every_page_that_a_unit_names_is_in_its_package,
        the_server_is_ready_killed_and_back,
        without_a_configuration_nothing_starts_and_nothing_fails,
        a_wrong_configuration_stops_it_for_good,
        without_certificates_it_is_ready_all_the_same,
        enrolled_and_reloaded_it_applies,
        a_wrong_configuration_is_not_taken_up,
        killed_it_is_back,
        stuck_it_is_started_anew_by_the_watchdog,
        the_cable_is_pulled_and_put_back,
        a_shared_directory_is_served_through_its_group,
        a_file_that_is_not_shared_is_not_opened,
        a_user_unit_serves_its_user,
        after_a_boot_all_of_them_are_ready,
        the_application_goes_on_where_it_was_first,
        the_application_goes_on_where_the_daemon_was_first,
        an_application_goes_on_with_what_a_killed_daemon_left,
        a_migration_longer_than_the_watchdog_is_not_killed,
        an_upgrade_in_the_middle_of_a_migration_loses_nothing,
        removing_keeps_the_state,
        installed_again_it_goes_on,
        purging_leaves_only_what_is_the_users,
        lintian_finds_no_error,
        nothing_was_said_that_a_person_should_look_at,
    ]

    # --- helpers

    def users(self):
        """The people of the machine, and what they brought."""
        self.m.sh("useradd -u 1001 -m notes && useradd -u 1002 -m ann && chmod 755 /home/ann")
        self.m.sh("install -d -o notes -g notes /srv/notes")
        self.m.write("/srv/app", APP_SCRIPT)

    def _make_database(self, daemon, user, mode="644"):
        """As the application made it long ago; closed, so nothing lies beside it."""
        self.m.sh(f"sqlite3 {daemon.database} 'PRAGMA journal_mode=WAL' && chmod {mode} {daemon.database}", user=user)

    def _enroll(self, daemon):
        token = self.outside.token()
        daemon.whimbrel(f"enroll {URL} --token-file - <<'END'\n{token}\nEND")

    def _pid(self, daemon):
        """The daemon's process, if it runs."""
        words = "--user --machine=ann@ show whimbrel" if daemon is self.user else f"show {daemon.unit}"
        return self.m.say(f"systemctl {words} -p MainPID --value").lstrip("0")

    def _beside(self, daemon):
        """Who owns -wal and -shm."""
        return set(self.m.say(f"stat -c %U {daemon.database}-wal {daemon.database}-shm 2>/dev/null", check=False).split())

    def _files(self):
        skip = " -o ".join(f"-path {p}" for p in ["/proc", "/sys", "/dev", "/run", "/tmp", "/var/tmp", "/var/log", "/var/lib/dpkg", "/var/cache", "/var/lib/systemd"])
        return set(self.m.say(f"find / \\( {skip} \\) -prune -o -print").splitlines())
