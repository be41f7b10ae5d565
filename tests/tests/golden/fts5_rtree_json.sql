-- plain SQLite gives the same

A> CREATE VIRTUAL TABLE doc USING fts5(title, body, tokenize = 'porter');
A> INSERT INTO doc VALUES ('pages', 'writers commit pages'), ('trees', 'a tree has leaves'), ('logs', 'a log of commits');
A> SELECT title FROM doc WHERE doc MATCH 'commit' ORDER BY rank, title;
  pages
  logs
B> SELECT title, snippet(doc, 1, '[', ']', '...', 4) FROM doc WHERE doc MATCH 'leaf OR leaves';
  trees|a tree has [leaves]
B> BEGIN; DELETE FROM doc; SELECT count(*) FROM doc WHERE doc MATCH 'commit'; ROLLBACK; SELECT count(*) FROM doc WHERE doc MATCH 'commit';
  0
  2
B> UPDATE doc SET body = 'nothing here' WHERE title = 'logs';
A> SELECT title FROM doc WHERE doc MATCH 'commit'; INSERT INTO doc(doc) VALUES ('optimize'); INSERT INTO doc(doc) VALUES ('integrity-check');
  pages

A> CREATE VIRTUAL TABLE box USING rtree(id, x0, x1, y0, y1);
A> WITH RECURSIVE n(i) AS (VALUES(0) UNION ALL SELECT i+1 FROM n WHERE i<399) INSERT INTO box SELECT i, i % 20, i % 20 + 1, i / 20, i / 20 + 1 FROM n;
B> SELECT count(*), min(id), max(id) FROM box WHERE x0 >= 5 AND x1 <= 8 AND y0 >= 5 AND y1 <= 7;
  6|105|127
B> DELETE FROM box WHERE x0 >= 10; SELECT count(*) FROM box; SELECT rtreecheck('box');
  200
  ok

A> CREATE TABLE j(d); INSERT INTO j VALUES ('{"name":"a","tags":["x","y"],"n":{"k":1}}'), (json_object('name', 'b', 'tags', json_array('y')));
A> SELECT d ->> '$.name', json_array_length(d, '$.tags'), d -> '$.n.k' FROM j;
  a|2|1
  b|1|NULL
A> SELECT j.d ->> 'name', t.value FROM j, json_each(j.d, '$.tags') t ORDER BY 1, 2;
  a|x
  a|y
  b|y
A> CREATE INDEX by_name ON j(d ->> '$.name'); UPDATE j SET d = json_set(d, '$.n.k', 2) WHERE d ->> '$.name' = 'a';
B> SELECT d -> '$.n' FROM j WHERE d ->> '$.name' = 'a'; SELECT json_group_array(d ->> '$.name') FROM j; PRAGMA integrity_check;
  {"k":2}
  ["a","b"]
  ok
