/* ==========================================================
 * Migration 0042; adds the tables of the shop.
 * Author's note: "run once"
 * ========================================================== */

CREATE TABLE shop(id INTEGER PRIMARY KEY);

/* ---------- rows ---------- */

INSERT INTO shop DEFAULT VALUES;
INSERT INTO shop DEFAULT VALUES;
