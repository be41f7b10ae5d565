-- The usual opening lines pass; modes that cannot be had are answered with the mode in force.

A> PRAGMA journal_mode = WAL;
  delete
A> PRAGMA journal_mode;
  delete
A> PRAGMA journal_mode = OFF; PRAGMA journal_mode = MEMORY; PRAGMA journal_mode = PERSIST; PRAGMA journal_mode = TRUNCATE;
  delete
  delete
  delete
  delete
A> PRAGMA locking_mode = EXCLUSIVE; PRAGMA locking_mode;
  normal
  normal
A> PRAGMA synchronous = NORMAL; PRAGMA synchronous;
  1
A> PRAGMA busy_timeout = 5000; PRAGMA foreign_keys = ON; PRAGMA cache_size = -2000; PRAGMA temp_store = MEMORY;
  5000
A> PRAGMA mmap_size = 268435456;
  268435456
A> CREATE TABLE t(v); INSERT INTO t VALUES (1);
A> PRAGMA user_version = 7; PRAGMA application_id = 1234;
B> PRAGMA user_version; PRAGMA application_id; PRAGMA encoding; PRAGMA page_size; PRAGMA journal_mode;
  7
  1234
  UTF-8
  4096
  delete
B> PRAGMA wal_checkpoint(TRUNCATE); PRAGMA optimize; PRAGMA quick_check;
  0|-1|-1
  ok

-- Under each of them a COMMIT is one, and a ROLLBACK too.
B> PRAGMA synchronous = OFF; BEGIN; UPDATE t SET v = 2; ROLLBACK; SELECT v FROM t; UPDATE t SET v = 3;
  1
A> SELECT v FROM t;
  3
B> PRAGMA synchronous = EXTRA; PRAGMA synchronous; UPDATE t SET v = 4;
  3
A> SELECT v FROM t;
  4
