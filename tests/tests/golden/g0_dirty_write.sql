-- G0: writes of two transactions must not interleave.

A> CREATE TABLE t(id INTEGER PRIMARY KEY, v INT); INSERT INTO t VALUES (1, 10), (2, 20);
A> BEGIN; UPDATE t SET v = 11 WHERE id = 1;
B> BEGIN; UPDATE t SET v = 12 WHERE id = 1;
A> UPDATE t SET v = 21 WHERE id = 2;
A> COMMIT;
A> SELECT * FROM t;
  1|11
  2|21
-- B began before A committed: it loses, and nothing of it is left.
B> UPDATE t SET v = 22 WHERE id = 2;
B> COMMIT;
  ! 517 database is locked
B> SELECT * FROM t;
  1|11
  2|21
A> SELECT * FROM t;
  1|11
  2|21
