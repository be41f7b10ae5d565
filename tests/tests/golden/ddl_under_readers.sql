-- Changes of the schema while others read and write.

A> CREATE TABLE t(id INTEGER PRIMARY KEY, v INT); INSERT INTO t VALUES (1, 10), (2, 20);
B> BEGIN; SELECT * FROM t;
  1|10
  2|20
A> ALTER TABLE t ADD COLUMN extra TEXT DEFAULT 'new';
A> CREATE INDEX by_v ON t(v);
A> DROP TABLE IF EXISTS absent;
-- B goes on in its snapshot, then sees the new schema.
B> SELECT * FROM t; SELECT name FROM sqlite_schema ORDER BY 1;
  1|10
  2|20
  t
B> COMMIT; SELECT * FROM t; SELECT name FROM sqlite_schema ORDER BY 1;
  1|10|new
  2|20|new
  by_v
  t

-- The table goes while B reads it.
B> BEGIN; SELECT count(*) FROM t;
  2
A> DROP TABLE t;
B> SELECT count(*) FROM t; COMMIT;
  2
B> SELECT count(*) FROM t;
  ! 1 no such table: t

-- A writer under a change of the schema loses.
A> CREATE TABLE w(x); INSERT INTO w VALUES (1);
B> BEGIN; UPDATE w SET x = 2;
A> CREATE TABLE another(y);
B> COMMIT;
  ! 517 database is locked
B> UPDATE w SET x = 3; SELECT * FROM w;
  3

-- Two that both create a table.
A> BEGIN; CREATE TABLE of_a(x);
B> BEGIN; CREATE TABLE of_b(x);
A> COMMIT;
B> COMMIT;
  ! 517 database is locked
B> SELECT name FROM sqlite_schema ORDER BY 1;
  another
  of_a
  w
A> PRAGMA integrity_check;
  ok
