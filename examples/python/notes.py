#!/usr/bin/env python3
"""A tiny application beside Whimbrel: it waits for its schema, writes notes, and looks at how they are exchanged.

    python3 notes.py /var/lib/notes/notes.db

It knows nothing of Whimbrel but the command `whimbrel wait` and the views of its own file (docs/sync.md). It ends with
SIGTERM or Ctrl-C. WHIMBREL and WHIMBREL_CONFIG in the environment say which whimbrel and which configuration.
"""

import json
import os
import signal
import sqlite3
import subprocess
import sys
import time

# The schema that this build was written for. A later one does not disturb it: it names its columns.
NEEDS_VERSION = 1


def open_database(path):
    """The file with the schema that this build needs; a migration that is under way is waited for."""
    subprocess.run([os.environ.get("WHIMBREL", "whimbrel"), "wait", path, "--version", str(NEEDS_VERSION)], check=True, stdout=subprocess.DEVNULL)
    # Each statement is a transaction of its own. Who writes meanwhile, Whimbrel among them, is waited for.
    database = sqlite3.connect(path, timeout=30, isolation_level=None)
    database.row_factory = sqlite3.Row
    return database


def schema_version(database):
    return database.execute("SELECT max(version) FROM _whimbrel_status WHERE status = 'completed'").fetchone()[0]


def standing(database):
    """How the rows stand: what a status line of the application would show. None where no rows are exchanged (yet)."""
    try:
        row = database.execute("SELECT unsent + unfolded AS waiting, conflicts_open, quarantined, exchanged_ms FROM _whimbrel_sync").fetchone()
    except sqlite3.OperationalError:
        return None
    return dict(row)


def conflicts(database):
    """The notes of which somebody has to decide something."""
    query = "SELECT key, kind FROM _whimbrel_conflicts WHERE open AND table_name = 'note'"
    return [tuple(row) for row in database.execute(query)]


def say(word, **more):
    print(json.dumps({"now": word, **more}), flush=True)


def main():
    going = True

    def stop(_signal, _frame):
        nonlocal going
        going = False

    for wanted in (signal.SIGTERM, signal.SIGINT):
        signal.signal(wanted, stop)
    database = open_database(sys.argv[1])
    version = schema_version(database)
    say("ready", version=version)
    written, shown = 0, None
    while going:
        database.execute("INSERT INTO note (title, body) VALUES (?, ?)", (f"note {written} of {os.getpid()}", "written by Python"))
        written += 1
        if written == 1:
            say("writing")
        if schema_version(database) != version:
            version = schema_version(database)
            say("migrated", version=version)
        now = standing(database)
        if now and now["exchanged_ms"] and shown is None:
            shown = now
            say("exchanged", **now)
        time.sleep(0.02)
    say("done", version=version, written=written, standing=standing(database), conflicts=conflicts(database) if standing(database) else [])


if __name__ == "__main__":
    main()
