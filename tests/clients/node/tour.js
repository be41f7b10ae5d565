// better-sqlite3 on Interleaf. Its SQLite is its own and it takes no file: URI, so the
// extension's VFS is the process's default (INTERLEAF_DEFAULT_VFS=1).
//
//     node tour.js LIBRARY NAME SECOND_EXTENSION
//
// Ends with exit code 0 and the line "tour complete", or with an AssertionError.
"use strict";
const assert = require("node:assert");
const Database = require("better-sqlite3");

const BLOB_BYTES = 50 * 1024 * 1024;
const [library, name, secondExtension] = process.argv.slice(2);

// The extension stays loaded after the connection that loaded it is closed.
const loader = new Database(":memory:");
loader.loadExtension(library);
loader.close();

const one = (db, sql, ...args) => db.prepare(sql).pluck().get(...args);

function openingLines(db) {
  assert.strictEqual(db.pragma("journal_mode = WAL", { simple: true }), "delete");
  db.pragma("synchronous = NORMAL");
  assert.strictEqual(db.pragma("synchronous", { simple: true }), 1);
  db.pragma("busy_timeout = 5000");
  db.pragma("mmap_size = 268435456");
  db.pragma("cache_size = -64000");
  db.pragma("foreign_keys = ON");
}

function createAndFill(db) {
  db.exec(`
    CREATE TABLE author(id INTEGER PRIMARY KEY, name TEXT UNIQUE NOT NULL);
    CREATE TABLE book(
      id INTEGER PRIMARY KEY,
      author INTEGER NOT NULL REFERENCES author(id) ON DELETE CASCADE,
      title TEXT NOT NULL,
      data TEXT CHECK (json_valid(data))
    );
    CREATE INDEX book_author ON book(author);
    CREATE TABLE audit(what TEXT);
    CREATE TRIGGER book_added AFTER INSERT ON book
      BEGIN INSERT INTO audit VALUES ('added ' || new.title); END;
  `);
  const author = db.prepare("INSERT INTO author(name) VALUES (?)");
  const book = db.prepare("INSERT INTO book(author, title, data) VALUES (?, ?, ?)");
  db.transaction(() => {
    for (let n = 0; n < 50; n++) author.run(`author ${n}`);
    for (let n = 0; n < 5000; n++) {
      book.run(1 + (n % 50), `title ${n}`, JSON.stringify({ pages: n, tags: ["a", `t${n % 7}`] }));
    }
  })();
}

function query(db) {
  assert.strictEqual(one(db, "SELECT count(*) FROM book"), 5000);
  assert.strictEqual(one(db, "SELECT count(*) FROM audit"), 5000);
  assert.strictEqual(one(db, "SELECT sum(data ->> '$.pages') FROM book"), (4999 * 5000) / 2);
  const orphan = db.prepare("INSERT INTO book(author, title, data) VALUES (999, 'orphan', '{}')");
  assert.throws(() => orphan.run(), { code: "SQLITE_CONSTRAINT_FOREIGNKEY" });
  db.prepare("DELETE FROM author WHERE id = 50").run();
  assert.strictEqual(one(db, "SELECT count(*) FROM book"), 4900);
}

function rollBack(db, other) {
  const fails = db.transaction(() => {
    db.prepare("DELETE FROM book").run();
    assert.strictEqual(one(other, "SELECT count(*) FROM book"), 4900);
    throw new Error("on purpose");
  });
  assert.throws(fails, /on purpose/);
  assert.strictEqual(one(db, "SELECT count(*) FROM book"), 4900);
}

function virtualTables(db) {
  db.exec("CREATE VIRTUAL TABLE search USING fts5(title)");
  db.exec("INSERT INTO search(rowid, title) SELECT id, title FROM book");
  assert.strictEqual(one(db, "SELECT count(*) FROM search WHERE search MATCH '\"title 17\"'"), 1);
  db.exec("CREATE VIRTUAL TABLE place USING rtree(id, x0, x1)");
  const place = db.prepare("INSERT INTO place VALUES (?, ?, ?)");
  db.transaction(() => {
    for (let n = 0; n < 1000; n++) place.run(n, n, n + 1);
  })();
  assert.strictEqual(one(db, "SELECT count(*) FROM place WHERE x0 >= 10 AND x1 <= 20"), 10);
}

function largeBlob(db, other) {
  const blob = Buffer.alloc(BLOB_BYTES, "a pattern of odd length");
  db.exec("CREATE TABLE large(content BLOB)");
  db.prepare("INSERT INTO large VALUES (?)").run(blob);
  assert.ok(blob.equals(one(other, "SELECT content FROM large")));
  db.exec("DELETE FROM large");
}

function vacuum(db) {
  const before = db.pragma("page_count", { simple: true });
  db.exec("VACUUM");
  assert.ok(db.pragma("page_count", { simple: true }) < before / 10);
  assert.strictEqual(one(db, "SELECT count(*) FROM book"), 4900);
  assert.strictEqual(db.pragma("integrity_check", { simple: true }), "ok");
}

function timeTravel(db) {
  const then = db.pragma("interleaf_version", { simple: true });
  assert.match(then, /^[0-9a-f]{20}$/);
  db.exec("DELETE FROM author WHERE id <= 10; DROP TABLE place");
  const snapshot = new Database(`${name}@${then}`, { readonly: true });
  assert.strictEqual(one(snapshot, "SELECT count(*) FROM author"), 49);
  assert.strictEqual(one(snapshot, "SELECT count(*) FROM place"), 1000);
  snapshot.close();
  const written = new Database(`${name}@${then}`);
  assert.throws(() => written.exec("DELETE FROM author"), { code: "SQLITE_READONLY" });
  written.close();
  db.pragma(`interleaf_at = '${then}'`);
  assert.strictEqual(one(db, "SELECT count(*) FROM author"), 49);
  db.pragma("interleaf_at = 'head'");
  assert.strictEqual(one(db, "SELECT count(*) FROM author"), 39);
}

const db = new Database(name);
openingLines(db);
createAndFill(db);
const other = new Database(name);
query(db);
rollBack(db, other);
virtualTables(db);
largeBlob(db, other);
vacuum(db);
db.loadExtension(secondExtension);
assert.strictEqual(one(db, "SELECT second_extension_twice(21)"), 42);
timeTravel(db);
const stats = JSON.parse(db.pragma("interleaf_stats", { simple: true }));
assert.ok(stats.commits > 5, stats);
assert.strictEqual(other.pragma("integrity_check", { simple: true }), "ok");
other.close();
db.close();
console.log(`SQLite ${one(new Database(":memory:"), "SELECT sqlite_version()")}: tour complete`);
