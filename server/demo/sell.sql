INSERT INTO sell SELECT DESK, 1 + abs(random()) % CASE abs(random()) % 10 WHEN 0 THEN 50 ELSE 336776 END, 1;
