-- A transaction over two databases commits in both or in none.

A> CREATE TABLE t(v); INSERT INTO t VALUES (1);
A> ATTACH '${two}' AS two; CREATE TABLE two.t(v); INSERT INTO two.t VALUES (1);
B. open two

-- A conflict in the attached one.
A> BEGIN; UPDATE main.t SET v = 2; UPDATE two.t SET v = 2;
B> UPDATE t SET v = 5;
A> COMMIT;
  ! 517 database is locked
A> SELECT m.v, o.v FROM main.t m, two.t o;
  1|5

-- A conflict in main.
C. open main
A> BEGIN; UPDATE main.t SET v = 3; UPDATE two.t SET v = 3;
C> UPDATE t SET v = 7;
A> COMMIT;
  ! 517 database is locked
A> SELECT m.v, o.v FROM main.t m, two.t o;
  7|5

-- A conflict in one that was only read.
A> BEGIN; UPDATE main.t SET v = (SELECT v FROM two.t);
B> UPDATE t SET v = 6;
A> COMMIT;
  ! 517 database is locked
A> SELECT m.v, o.v FROM main.t m, two.t o;
  7|6

-- Both are read at one moment: B commits between the two reads.
A> BEGIN; SELECT v FROM main.t;
  7
B> UPDATE t SET v = 8;
A> SELECT v FROM two.t; COMMIT; SELECT v FROM two.t;
  6
  8
A> BEGIN; UPDATE main.t SET v = 9; UPDATE two.t SET v = 9; COMMIT;
B> SELECT * FROM t;
  9
C> SELECT * FROM t;
  9
