-- plain SQLite gives the same

A> CREATE TABLE t(id INTEGER PRIMARY KEY, v TEXT UNIQUE); INSERT INTO t VALUES (1, 'one');
A> BEGIN; INSERT INTO t VALUES (2, 'two');
A> SAVEPOINT s1; INSERT INTO t VALUES (3, 'three'); SAVEPOINT s2; DELETE FROM t;
A> SELECT count(*) FROM t;
  0
A> ROLLBACK TO s2; SELECT count(*) FROM t;
  3
A> RELEASE s2; ROLLBACK TO s1; SELECT count(*) FROM t;
  2
A> INSERT INTO t VALUES (4, 'four'); RELEASE s1; COMMIT;
A> SELECT * FROM t;
  1|one
  2|two
  4|four

-- A statement that fails in the middle is undone, the transaction goes on.
A> BEGIN; INSERT INTO t VALUES (5, 'five');
A> INSERT INTO t SELECT 10 + id, CASE id WHEN 4 THEN 'one' ELSE v || '!' END FROM t;
  ! 2067 UNIQUE constraint failed: t.v
A> SELECT count(*) FROM t;
  4
A> INSERT OR IGNORE INTO t VALUES (6, 'one'); INSERT OR REPLACE INTO t VALUES (7, 'one');
A> COMMIT; SELECT * FROM t;
  2|two
  4|four
  5|five
  7|one

-- A savepoint outside a transaction is one.
A> SAVEPOINT outer; DELETE FROM t; ROLLBACK TO outer; RELEASE outer; SELECT count(*) FROM t;
  4
A> PRAGMA integrity_check;
  ok
