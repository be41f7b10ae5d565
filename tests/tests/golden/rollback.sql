-- plain SQLite gives the same

A> CREATE TABLE t(id INTEGER PRIMARY KEY, pad TEXT);
A> WITH RECURSIVE n(i) AS (VALUES(1) UNION ALL SELECT i+1 FROM n WHERE i<2000) INSERT INTO t SELECT i, hex(zeroblob(200)) FROM n;
A> SELECT count(*), sum(length(pad)) FROM t;
  2000|800000

-- A rollback of much, of little, of growth, of a schema.
A> BEGIN; DELETE FROM t; SELECT count(*) FROM t; ROLLBACK; SELECT count(*) FROM t;
  0
  2000
A> BEGIN; UPDATE t SET pad = '' WHERE id = 77; ROLLBACK; SELECT length(pad) FROM t WHERE id = 77;
  400
A> BEGIN; INSERT INTO t SELECT id + 10000, pad FROM t; CREATE INDEX i ON t(pad); ROLLBACK;
A> SELECT count(*), max(id) FROM t; SELECT count(*) FROM sqlite_schema;
  2000|2000
  1

-- The same with a cache that is too small, so that pages are written before the end.
A> PRAGMA cache_size = 5; PRAGMA cache_spill = 5;
A> BEGIN; UPDATE t SET pad = pad || 'x'; DELETE FROM t WHERE id > 1000; SELECT count(*) FROM t; ROLLBACK;
  1000
A> SELECT count(*), sum(length(pad)) FROM t;
  2000|800000
A> BEGIN; UPDATE t SET pad = pad || 'x'; SAVEPOINT s; DELETE FROM t; ROLLBACK TO s; COMMIT;
A> SELECT count(*), sum(length(pad)) FROM t;
  2000|802000
B> SELECT count(*), sum(length(pad)) FROM t; PRAGMA integrity_check;
  2000|802000
  ok
