// Runs the statements that come as a JSON list on stdin, one by one, and prints the messages of those that failed.
const Database = require("better-sqlite3");
const database = new Database(process.argv[2]);
const failed = [];
for (const sql of JSON.parse(require("fs").readFileSync(0, "utf8"))) {
  try {
    database.exec(sql);
  } catch (error) {
    failed.push(error.message);
  }
}
database.close();
console.log(JSON.stringify(failed));
