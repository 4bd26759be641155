// A tiny application beside Whimbrel: it waits for its schema, writes notes, and looks at how they are exchanged.
//
//     npm install && node notes.js /var/lib/notes/notes.db
//
// It knows nothing of Whimbrel but the command `whimbrel wait` and the views of its own file (docs/sync.md). It ends with
// SIGTERM or Ctrl-C. WHIMBREL and WHIMBREL_CONFIG in the environment say which whimbrel and which configuration.
"use strict";

const { execFileSync } = require("node:child_process");
const Database = require("better-sqlite3");

// The schema that this build was written for. A later one does not disturb it: it names its columns.
const NEEDS_VERSION = 1;

/** The file with the schema that this build needs; a migration that is under way is waited for. */
function openDatabase(path) {
  execFileSync(process.env.WHIMBREL ?? "whimbrel", ["wait", path, "--version", String(NEEDS_VERSION)], { stdio: ["ignore", "ignore", "inherit"] });
  // Who writes meanwhile, Whimbrel among them, is waited for.
  return new Database(path, { timeout: 30_000 });
}

const schemaVersion = (database) =>
  database.prepare("SELECT max(version) AS version FROM _whimbrel_status WHERE status = 'completed'").get().version;

/** How the rows stand: what a status line of the application would show. Null where no rows are exchanged (yet). */
function standing(database) {
  try {
    return database.prepare("SELECT unsent + unfolded AS waiting, conflicts_open, quarantined, exchanged_ms FROM _whimbrel_sync").get();
  } catch (error) {
    if (error.code === "SQLITE_ERROR") return null;
    throw error;
  }
}

/** The notes of which somebody has to decide something. */
const conflicts = (database) => database.prepare("SELECT key, kind FROM _whimbrel_conflicts WHERE open AND table_name = 'note'").raw().all();

const say = (word, more = {}) => console.log(JSON.stringify({ now: word, ...more }));

function main() {
  let going = true;
  for (const wanted of ["SIGTERM", "SIGINT"]) process.on(wanted, () => (going = false));
  const database = openDatabase(process.argv[2]);
  let version = schemaVersion(database);
  say("ready", { version });
  // Prepared once, and good through every migration: SQLite prepares it anew by itself.
  const insert = database.prepare("INSERT INTO note (title, body) VALUES (?, ?)");
  let written = 0;
  let shown = false;
  const step = () => {
    if (!going) {
      const now = standing(database);
      say("done", { version, written, standing: now, conflicts: now ? conflicts(database) : [] });
      database.close();
      return;
    }
    insert.run(`note ${written} of ${process.pid}`, "written by Node");
    written += 1;
    if (written === 1) say("writing");
    const latest = schemaVersion(database);
    if (latest !== version) {
      version = latest;
      say("migrated", { version });
    }
    const now = standing(database);
    if (now?.exchanged_ms && !shown) {
      shown = true;
      say("exchanged", now);
    }
    setTimeout(step, 20);
  };
  step();
}

main();
