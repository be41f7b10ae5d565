-- plain SQLite gives the same

A> PRAGMA page_size = 1024;
A> CREATE TABLE t(id INTEGER PRIMARY KEY, pad TEXT); CREATE INDEX i ON t(pad);
A> WITH RECURSIVE n(i) AS (VALUES(1) UNION ALL SELECT i+1 FROM n WHERE i<1000) INSERT INTO t SELECT i, printf('%0200d', i) FROM n;
A> DELETE FROM t WHERE id % 10 <> 0; PRAGMA freelist_count;
  452
A> PRAGMA page_count;
  508
A> VACUUM; PRAGMA freelist_count; PRAGMA page_count; PRAGMA page_size;
  0
  54
  1024
B> SELECT count(*), CAST(max(pad) AS INT) FROM t; PRAGMA integrity_check;
  100|1000
  ok

-- Another page size.
A> PRAGMA page_size = 4096; VACUUM; PRAGMA page_size; PRAGMA page_count;
  4096
  15
B> SELECT count(*), CAST(max(pad) AS INT) FROM t; PRAGMA page_size; PRAGMA integrity_check;
  100|1000
  4096
  ok
A> PRAGMA page_size = 512; VACUUM; PRAGMA page_size; PRAGMA page_count;
  512
  163
B> SELECT count(*), CAST(max(pad) AS INT) FROM t; PRAGMA page_size; PRAGMA integrity_check;
  100|1000
  512
  ok
B> INSERT INTO t VALUES (1, 'after'); SELECT count(*) FROM t;
  101
A> SELECT pad FROM t WHERE id = 1;
  after

-- A vacuum is no part of a transaction.
A> BEGIN; VACUUM;
  ! 1 cannot VACUUM from within a transaction
A> ROLLBACK;
A> DELETE FROM t; VACUUM; PRAGMA page_count;
  3
B> SELECT count(*) FROM t; PRAGMA integrity_check;
  0
  ok
