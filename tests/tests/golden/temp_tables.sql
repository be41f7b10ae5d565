-- plain SQLite gives the same

A> CREATE TABLE t(id INTEGER PRIMARY KEY, v TEXT); INSERT INTO t VALUES (1, 'shared');
A> CREATE TEMP TABLE mine(id INTEGER PRIMARY KEY, v TEXT); INSERT INTO mine VALUES (1, 'mine');
A> CREATE TEMP VIEW both AS SELECT v FROM t UNION ALL SELECT v FROM mine; SELECT * FROM both;
  shared
  mine
B> SELECT * FROM both;
  ! 1 no such table: both
A> CREATE TEMP TRIGGER watch AFTER INSERT ON t BEGIN INSERT INTO mine(v) VALUES ('saw ' || new.v); END;
A> INSERT INTO t VALUES (2, 'two'); SELECT v FROM mine;
  mine
  saw two
B> INSERT INTO t VALUES (3, 'three');
A> SELECT v FROM mine; SELECT count(*) FROM t;
  mine
  saw two
  3
A> BEGIN; INSERT INTO mine(v) VALUES ('gone'); INSERT INTO t VALUES (4, 'gone'); ROLLBACK; SELECT count(*) FROM mine; SELECT count(*) FROM t;
  2
  3

-- Sorts and temporary indexes that do not fit the cache.
A> PRAGMA temp_store = FILE; PRAGMA cache_size = 10;
A> CREATE TEMP TABLE much AS WITH RECURSIVE n(i) AS (VALUES(1) UNION ALL SELECT i+1 FROM n WHERE i<20000) SELECT i, (i * 7919) % 20011 AS k, hex(zeroblob(20)) AS pad FROM n;
A> SELECT sum(i), count(DISTINCT k) FROM (SELECT * FROM much ORDER BY k, pad LIMIT 10000);
  99957870|10000
A> CREATE INDEX temp.by_k ON much(k); SELECT i FROM much WHERE k = 12; DROP TABLE much;
  12372
