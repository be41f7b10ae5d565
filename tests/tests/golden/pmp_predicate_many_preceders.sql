-- PMP: a predicate gives the same rows throughout a transaction.

A> CREATE TABLE t(id INTEGER PRIMARY KEY, v INT); INSERT INTO t VALUES (1, 10), (2, 20);
A> BEGIN; SELECT * FROM t WHERE v = 30;
B> INSERT INTO t VALUES (3, 30);
A> SELECT * FROM t WHERE v % 3 = 0; COMMIT;
A> SELECT * FROM t WHERE v % 3 = 0;
  3|30

-- With a write behind the predicate: the writer whose predicate is out of date loses.
A> BEGIN; DELETE FROM t WHERE v = 20;
B> UPDATE t SET v = v + 10;
A> COMMIT;
  ! 517 database is locked
A> SELECT * FROM t;
  1|20
  2|30
  3|40
