-- G-single: all reads of a transaction are of one moment.

A> CREATE TABLE t(id INTEGER PRIMARY KEY, v INT); INSERT INTO t VALUES (1, 10), (2, 20);
A> BEGIN; SELECT v FROM t WHERE id = 1;
  10
B> BEGIN; SELECT v FROM t WHERE id = 1; SELECT v FROM t WHERE id = 2;
  10
  20
B> UPDATE t SET v = 12 WHERE id = 1; UPDATE t SET v = 18 WHERE id = 2; COMMIT;
A> SELECT v FROM t WHERE id = 2; COMMIT;
  20

-- By a predicate.
A> BEGIN; SELECT count(*) FROM t WHERE v % 5 = 0;
  0
B> UPDATE t SET v = 16 WHERE id = 1;
A> SELECT count(*) FROM t WHERE v % 3 = 0; COMMIT;
  2
A> SELECT count(*) FROM t WHERE v % 3 = 0;
  1

-- With a write by a predicate that is out of date.
A> BEGIN; SELECT v FROM t WHERE id = 1;
  16
B> UPDATE t SET v = 20;
A> DELETE FROM t WHERE v = 20;
A> COMMIT;
A> SELECT * FROM t;
  1|20
  2|20
