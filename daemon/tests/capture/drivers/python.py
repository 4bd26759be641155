"""Runs the statements that come as a JSON list on stdin, one by one, and prints the messages of those that failed."""

import json
import sqlite3
import sys

connection = sqlite3.connect(sys.argv[1], isolation_level=None)
failed = []
for sql in json.load(sys.stdin):
    try:
        connection.execute(sql).fetchall()
    except sqlite3.Error as error:
        failed.append(str(error))
connection.close()
print(json.dumps(failed))
