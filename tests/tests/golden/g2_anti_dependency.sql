-- G2: anti-dependencies by predicates, and the cycle of three with one reader.

A> CREATE TABLE t(id INTEGER PRIMARY KEY, v INT); INSERT INTO t VALUES (1, 10), (2, 20);
A> BEGIN; SELECT * FROM t WHERE v % 3 = 0;
B> BEGIN; SELECT * FROM t WHERE v % 3 = 0;
A> INSERT INTO t VALUES (3, 30);
B> INSERT INTO t VALUES (4, 42);
A> COMMIT;
B> COMMIT;
  ! 517 database is locked
A> SELECT * FROM t WHERE v % 3 = 0;
  3|30

-- Fekete's: A reads, B writes and commits, C sees B's, A writes what C has read.
A> CREATE TABLE u(id INTEGER PRIMARY KEY, v INT); INSERT INTO u SELECT id, v FROM t;
A> BEGIN; SELECT * FROM t WHERE id = 2;
  2|20
B> BEGIN; UPDATE t SET v = v + 5 WHERE id = 2; COMMIT;
C> BEGIN; SELECT v FROM t WHERE id = 2; SELECT v FROM u WHERE id = 1; COMMIT;
  25
  10
A> UPDATE u SET v = 0 WHERE id = 1;
A> COMMIT;
  ! 517 database is locked
A> SELECT v FROM u WHERE id = 1;
  10
