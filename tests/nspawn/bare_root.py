"""A bare Debian root: systemd, the SQLite shell, and nothing that an edge machine might lack. Made once, then copied up."""

import hashlib
import shutil
import subprocess
from pathlib import Path

SUITE = "bookworm"
# No ca-certificates, no procps, no python, no curl. libpam-systemd and dbus-user-session: a user's own manager.
PACKAGES = ["systemd", "systemd-sysv", "dbus", "libpam-systemd", "dbus-user-session", "iproute2", "sqlite3"]


def make(cache: Path) -> Path:
    """The root's directory below `cache`; made if its recipe is not there yet. Nobody writes into it afterwards."""
    recipe = " ".join([SUITE, *PACKAGES])
    root = cache / f"root-{hashlib.sha256(recipe.encode()).hexdigest()[:12]}"
    if root.is_dir():
        return root
    cache.mkdir(parents=True, exist_ok=True)
    for old in cache.glob("root-*"):
        shutil.rmtree(old)
    tar, part = cache / "root.tar", cache / "root.part"
    shutil.rmtree(part, ignore_errors=True)
    subprocess.run(
        ["mmdebstrap", "--quiet", "--variant=minbase", f"--include={','.join(PACKAGES)}", SUITE, str(tar)], check=True
    )
    part.mkdir()
    subprocess.run(["tar", "-C", str(part), "-xf", str(tar)], check=True)
    tar.unlink()
    _prepare(part)
    part.rename(root)  # whole or not there
    return root


def _prepare(root: Path) -> None:
    (root / "etc/hostname").write_text("device\n")
    (root / "etc/resolv.conf").write_text("")
    (root / "var/log/journal").mkdir(exist_ok=True)  # a journal that can be read afterwards
    # Nothing that wakes up by itself during the test.
    for unit in ["apt-daily.timer", "apt-daily-upgrade.timer", "dpkg-db-backup.timer", "e2scrub_all.timer", "fstrim.timer"]:
        (root / "etc/systemd/system" / unit).symlink_to("/dev/null")
