-- P4: of two that read and then write the same row, one loses and hears of it.

A> CREATE TABLE t(id INTEGER PRIMARY KEY, v INT); INSERT INTO t VALUES (1, 10), (2, 20);
A> BEGIN; SELECT v FROM t WHERE id = 1;
  10
B> BEGIN; SELECT v FROM t WHERE id = 1;
  10
A> UPDATE t SET v = 11 WHERE id = 1;
B> UPDATE t SET v = 11 WHERE id = 1;
A> COMMIT;
B> COMMIT;
  ! 517 database is locked
-- Its transaction is gone: a second COMMIT has none, and a retry sees A's.
B> COMMIT;
  ! 1 cannot commit - no transaction is active
B> BEGIN; UPDATE t SET v = v + 1 WHERE id = 1; COMMIT;
A> SELECT * FROM t;
  1|12
  2|20
