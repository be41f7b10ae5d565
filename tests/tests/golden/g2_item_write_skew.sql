-- G2-item: two that each read what the other writes cannot both commit.

A> CREATE TABLE t(id INTEGER PRIMARY KEY, v INT); INSERT INTO t VALUES (1, 10), (2, 20);
A> BEGIN; SELECT * FROM t WHERE id IN (1, 2);
  1|10
  2|20
B> BEGIN; SELECT * FROM t WHERE id IN (1, 2);
  1|10
  2|20
A> UPDATE t SET v = 11 WHERE id = 1;
B> UPDATE t SET v = 21 WHERE id = 2;
A> COMMIT;
B> COMMIT;
  ! 517 database is locked
A> SELECT * FROM t;
  1|11
  2|20

-- A reader that writes elsewhere loses as well: tables on pages of their own.
A> CREATE TABLE u(w); INSERT INTO u VALUES (0);
A> BEGIN; UPDATE u SET w = (SELECT sum(v) FROM t);
B> UPDATE t SET v = 0;
A> COMMIT;
  ! 517 database is locked
A> BEGIN; UPDATE u SET w = (SELECT sum(v) FROM t); COMMIT; SELECT * FROM u;
  0

-- One that only reads never does.
A> BEGIN; SELECT sum(v) FROM t;
  0
B> UPDATE t SET v = 1;
A> SELECT sum(v) FROM t; COMMIT;
  0
