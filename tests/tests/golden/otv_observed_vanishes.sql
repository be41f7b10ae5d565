-- OTV: a transaction once observed does not vanish again.

A> CREATE TABLE t(id INTEGER PRIMARY KEY, v INT); INSERT INTO t VALUES (1, 10), (2, 20);
A> BEGIN; UPDATE t SET v = 11 WHERE id = 1; UPDATE t SET v = 19 WHERE id = 2;
B> BEGIN; UPDATE t SET v = 12 WHERE id = 1;
A> COMMIT;
C> BEGIN; SELECT v FROM t WHERE id = 1;
  11
B> UPDATE t SET v = 18 WHERE id = 2;
C> SELECT v FROM t WHERE id = 2;
  19
B> COMMIT;
  ! 517 database is locked
C> SELECT v FROM t WHERE id = 2; SELECT v FROM t WHERE id = 1; COMMIT;
  19
  11
C> SELECT * FROM t;
  1|11
  2|19
