-- G1a aborted reads, G1b intermediate reads, G1c circular information flow.

A> CREATE TABLE t(id INTEGER PRIMARY KEY, v INT); INSERT INTO t VALUES (1, 10), (2, 20);

-- G1a: what is rolled back was never seen.
A> BEGIN; UPDATE t SET v = 101 WHERE id = 1;
B> BEGIN; SELECT * FROM t;
  1|10
  2|20
A> ROLLBACK;
B> SELECT * FROM t; COMMIT;
  1|10
  2|20

-- G1b: nor what was overwritten within its transaction.
A> BEGIN; UPDATE t SET v = 101 WHERE id = 1;
B> BEGIN; SELECT * FROM t;
  1|10
  2|20
A> UPDATE t SET v = 11 WHERE id = 1; COMMIT;
B> SELECT * FROM t; COMMIT; SELECT * FROM t;
  1|10
  2|20
  1|11
  2|20

-- G1c: neither of two open transactions sees the other.
A> BEGIN; UPDATE t SET v = 12 WHERE id = 1;
B> BEGIN; UPDATE t SET v = 22 WHERE id = 2;
A> SELECT v FROM t WHERE id = 2;
  20
B> SELECT v FROM t WHERE id = 1;
  11
A> COMMIT;
B> COMMIT;
  ! 517 database is locked
B> SELECT * FROM t;
  1|12
  2|20
