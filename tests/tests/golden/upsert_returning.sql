-- plain SQLite gives the same

A> CREATE TABLE stock(item TEXT PRIMARY KEY, n INT NOT NULL DEFAULT 0 CHECK (n >= 0), changed INT DEFAULT 0) WITHOUT ROWID;
A> INSERT INTO stock(item, n) VALUES ('pear', 3), ('plum', 5) RETURNING item, n;
  pear|3
  plum|5
A> INSERT INTO stock(item, n) VALUES ('pear', 4), ('fig', 1) ON CONFLICT(item) DO UPDATE SET n = n + excluded.n, changed = changed + 1 RETURNING *;
  pear|7|1
  fig|1|0
A> INSERT INTO stock(item, n) VALUES ('fig', 9) ON CONFLICT DO NOTHING RETURNING *;
A> UPDATE stock SET n = n - 4 WHERE item = 'fig' RETURNING n;
  ! 275 CHECK constraint failed: n >= 0
A> SELECT * FROM stock;
  fig|1|0
  pear|7|1
  plum|5|0
A> DELETE FROM stock WHERE n > 4 RETURNING item; SELECT * FROM stock;
  pear
  plum
  fig|1|0
B> SELECT * FROM stock;
  fig|1|0
B> UPDATE stock SET n = x.n FROM (SELECT 'fig' AS item, 12 AS n) x WHERE stock.item = x.item RETURNING stock.n;
  12

-- Windows and recursive queries.
A> WITH RECURSIVE n(i) AS (VALUES(1) UNION ALL SELECT i+1 FROM n WHERE i<5) SELECT i, sum(i) OVER (ORDER BY i), lag(i, 2, 0) OVER (ORDER BY i) FROM n;
  1|1|0
  2|3|0
  3|6|1
  4|10|2
  5|15|3
