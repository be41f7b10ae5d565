-- plain SQLite gives the same

A> PRAGMA foreign_keys = ON;
A> CREATE TABLE customer(id INTEGER PRIMARY KEY, name TEXT, orders INT DEFAULT 0);
A> CREATE TABLE orders(id INTEGER PRIMARY KEY, customer INT REFERENCES customer ON DELETE CASCADE DEFERRABLE INITIALLY DEFERRED, item TEXT);
A> CREATE TRIGGER counted AFTER INSERT ON orders BEGIN UPDATE customer SET orders = orders + 1 WHERE id = new.customer; END;
A> CREATE TRIGGER forbidden BEFORE DELETE ON orders WHEN old.item = 'kept' BEGIN SELECT RAISE(ABORT, 'kept orders stay'); END;
A> INSERT INTO customer(id, name) VALUES (1, 'Ann'), (2, 'Bob'); INSERT INTO orders(customer, item) VALUES (1, 'pear'), (1, 'kept'), (2, 'plum');
A> SELECT * FROM customer;
  1|Ann|2
  2|Bob|1
A> DELETE FROM customer WHERE id = 2; SELECT count(*) FROM orders;
  2
A> DELETE FROM customer WHERE id = 1;
  ! 1811 kept orders stay
A> SELECT count(*) FROM customer; SELECT count(*) FROM orders;
  1
  2

-- A deferred violation is noticed at the COMMIT, and the transaction stays open.
A> BEGIN; INSERT INTO orders(customer, item) VALUES (99, 'fig');
A> COMMIT;
  ! 787 FOREIGN KEY constraint failed
A> INSERT INTO customer(id, name) VALUES (99, 'Cleo'); COMMIT;
B> SELECT c.name, o.item FROM customer c JOIN orders o ON o.customer = c.id ORDER BY o.id;
  Ann|pear
  Ann|kept
  Cleo|fig
B> PRAGMA foreign_key_check; PRAGMA integrity_check;
  ok
