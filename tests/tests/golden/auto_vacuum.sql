-- plain SQLite gives the same

A> PRAGMA auto_vacuum = FULL; CREATE TABLE t(id INTEGER PRIMARY KEY, pad BLOB); PRAGMA auto_vacuum;
  1
A> WITH RECURSIVE n(i) AS (VALUES(1) UNION ALL SELECT i+1 FROM n WHERE i<200) INSERT INTO t SELECT i, zeroblob(3000) FROM n;
A> PRAGMA page_count;
  203
A> DELETE FROM t WHERE id <= 150; PRAGMA page_count; PRAGMA freelist_count;
  53
  0
B> SELECT count(*), sum(length(pad)) FROM t; PRAGMA integrity_check;
  50|150000
  ok
A> BEGIN; DELETE FROM t WHERE id <= 190; ROLLBACK; PRAGMA page_count; SELECT count(*) FROM t;
  53
  50
A> INSERT INTO t VALUES (1, zeroblob(100000)); PRAGMA page_count; DELETE FROM t WHERE id = 1; PRAGMA page_count;
  78
  53

-- Incremental.
B. open two
B> PRAGMA auto_vacuum = INCREMENTAL; CREATE TABLE t(id INTEGER PRIMARY KEY, pad BLOB);
B> WITH RECURSIVE n(i) AS (VALUES(1) UNION ALL SELECT i+1 FROM n WHERE i<100) INSERT INTO t SELECT i, zeroblob(3000) FROM n;
B> DELETE FROM t WHERE id > 20; PRAGMA page_count; PRAGMA freelist_count;
  103
  80
B> PRAGMA incremental_vacuum(30); PRAGMA page_count; PRAGMA freelist_count;
  73
  50
B> PRAGMA incremental_vacuum; PRAGMA page_count; PRAGMA freelist_count;
  23
  0
C. open two
C> SELECT count(*), sum(length(pad)) FROM t; PRAGMA integrity_check;
  20|60000
  ok
