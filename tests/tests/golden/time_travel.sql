-- Earlier versions are opened by version, attached beside the head, and never written.

A> CREATE TABLE t(id INTEGER PRIMARY KEY, v TEXT); INSERT INTO t VALUES (1, 'first');
A= v1 PRAGMA interleaf_version
A> UPDATE t SET v = 'second'; INSERT INTO t VALUES (2, 'new');
A= v2 PRAGMA interleaf_version
A> ALTER TABLE t ADD COLUMN w DEFAULT 'added'; DELETE FROM t WHERE id = 1;
A> SELECT * FROM t;
  2|new|added

B. open main &at=${v1}
B> SELECT * FROM t; PRAGMA interleaf_version;
  1|first
  ${v1}
B> UPDATE t SET v = 'changed';
  ! 8 attempt to write a readonly database
B> CREATE TABLE u(x);
  ! 8 attempt to write a readonly database
B> SELECT * FROM t;
  1|first

-- In one connection, there and back.
A> PRAGMA interleaf_at = '${v2}'; SELECT * FROM t;
  ${v2}
  1|second
  2|new
A> DELETE FROM t;
  ! 8 attempt to write a readonly database
A> PRAGMA interleaf_at = 'head'; SELECT * FROM t;
  head
  2|new|added

-- What was deleted comes back from the past.
A> ATTACH '${main}&at=${v1}' AS past; SELECT * FROM past.t;
  1|first
A> INSERT INTO main.t(id, v) SELECT id, v FROM past.t; SELECT * FROM main.t ORDER BY id;
  1|first|added
  2|new|added
A> DELETE FROM past.t;
  ! 8 attempt to write a readonly database
A> SELECT count(*) FROM past.t;
  1

-- A past in the middle of a transaction is refused or waits for its end; the head stays.
C> BEGIN; SELECT count(*) FROM t;
  2
C> SELECT count(*) FROM t; COMMIT;
  2
