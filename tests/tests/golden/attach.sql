-- plain SQLite gives the same

A> CREATE TABLE t(v); INSERT INTO t VALUES ('main');
A> ATTACH '${two}' AS two; ATTACH '${three}' AS three;
A> CREATE TABLE two.t(v); INSERT INTO two.t VALUES ('two'); CREATE TABLE three.u(v);
A> SELECT name FROM pragma_database_list;
  main
  two
  three
A> SELECT m.v, o.v FROM main.t m, two.t o;
  main|two

-- One transaction over three, rolled back and committed.
A> BEGIN; UPDATE main.t SET v = 'x'; UPDATE two.t SET v = 'y'; INSERT INTO u VALUES ('z'); ROLLBACK;
A> SELECT m.v, o.v, (SELECT count(*) FROM u) FROM main.t m, two.t o;
  main|two|0
A> BEGIN; UPDATE main.t SET v = 'x'; UPDATE two.t SET v = 'y'; INSERT INTO u VALUES ('z'); COMMIT;
A> SELECT m.v, o.v, (SELECT count(*) FROM u) FROM main.t m, two.t o;
  x|y|1

-- Each is a database of its own.
B. open two
B> SELECT * FROM t; UPDATE t SET v = 'from B';
  y
A> SELECT * FROM two.t;
  from B
A> DETACH two; SELECT * FROM t; SELECT * FROM two.t;
  x
  ! 1 no such table: two.t
A> ATTACH '${two}' AS again; SELECT * FROM again.t;
  from B
A> ATTACH ':memory:' AS m; CREATE TABLE m.k AS SELECT * FROM again.t; SELECT * FROM m.k;
  from B
A> PRAGMA integrity_check;
  ok
