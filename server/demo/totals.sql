SELECT (SELECT sum(capacity) FROM seats) AS capacity,
       (SELECT sum(booked) FROM seats) AS booked,
       (SELECT sum(free) FROM seats) AS free,
       (SELECT sum(sold) FROM desks) AS sold,
       (SELECT sum(cancelled) FROM seats) AS cancelled;
