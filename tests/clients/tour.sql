-- The sqlite3 program on Interleaf: what it prints is compared with tour.expected.
.bail on
.mode list
PRAGMA journal_mode=WAL;
PRAGMA synchronous=NORMAL;
PRAGMA busy_timeout=5000;
PRAGMA cache_size=-64000;
PRAGMA foreign_keys=ON;
.print -- create and fill
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
BEGIN;
INSERT INTO author(name) SELECT 'author ' || value FROM generate_series(0, 49);
INSERT INTO book(author, title, data)
  SELECT 1 + value % 50, 'title ' || value, json_object('pages', value) FROM generate_series(0, 4999);
COMMIT;
SELECT count(*), sum(data ->> '$.pages') FROM book;
SELECT count(*) FROM audit;
DELETE FROM author WHERE id = 50;
SELECT count(*) FROM book;
.print -- roll back
BEGIN;
DELETE FROM book;
SELECT count(*) FROM book;
ROLLBACK;
SELECT count(*) FROM book;
.print -- full text, R-tree
CREATE VIRTUAL TABLE search USING fts5(title);
INSERT INTO search(rowid, title) SELECT id, title FROM book;
SELECT count(*) FROM search WHERE search MATCH '"title 17"';
CREATE VIRTUAL TABLE place USING rtree(id, x0, x1);
INSERT INTO place SELECT value, value, value + 1 FROM generate_series(0, 999);
SELECT count(*) FROM place WHERE x0 >= 10 AND x1 <= 20;
.print -- a blob of 50 MB
CREATE TABLE large(content TEXT);
INSERT INTO large VALUES (replace(hex(zeroblob(26214400)), '0000', 'abcd'));
SELECT length(content), substr(content, -4), content = replace(hex(zeroblob(26214400)), '0000', 'abcd') FROM large;
DELETE FROM large;
.print -- vacuum
VACUUM;
SELECT count(*) FROM book;
PRAGMA integrity_check;
