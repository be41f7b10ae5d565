-- The flights from New York in 2013, as the CSV files have them.
CREATE TABLE airlines(carrier TEXT PRIMARY KEY, name TEXT);
CREATE TABLE airports(faa TEXT PRIMARY KEY, name TEXT, lat REAL, lon REAL, alt INTEGER,
  tz INTEGER, dst TEXT, tzone TEXT);
CREATE TABLE planes(tailnum TEXT PRIMARY KEY, year INTEGER, type TEXT, manufacturer TEXT,
  model TEXT, engines INTEGER, seats INTEGER, speed INTEGER, engine TEXT);
CREATE TABLE weather(origin TEXT, year INTEGER, month INTEGER, day INTEGER, hour INTEGER,
  temp REAL, dewp REAL, humid REAL, wind_dir INTEGER, wind_speed REAL, wind_gust REAL,
  precip REAL, pressure REAL, visib REAL, time_hour TEXT);
CREATE TABLE flights(year INTEGER, month INTEGER, day INTEGER, dep_time INTEGER,
  sched_dep_time INTEGER, dep_delay INTEGER, arr_time INTEGER, sched_arr_time INTEGER,
  arr_delay INTEGER, carrier TEXT, flight INTEGER, tailnum TEXT, origin TEXT, dest TEXT,
  air_time INTEGER, distance INTEGER, hour INTEGER, minute INTEGER, time_hour TEXT);

.import --csv --skip 1 csv/airlines.csv airlines
.import --csv --skip 1 csv/airports.csv airports
.import --csv --skip 1 csv/planes.csv planes
.import --csv --skip 1 csv/weather.csv weather
.import --csv --skip 1 csv/flights.csv flights

-- What the demo adds: the seats of each flight, 60 of 100 of them booked already.
-- Always true: booked + free = capacity.
CREATE TABLE seats(flight INTEGER PRIMARY KEY, capacity INTEGER, booked INTEGER,
  free INTEGER, cancelled INTEGER DEFAULT 0);
INSERT INTO seats(flight, capacity, booked, free)
  SELECT flight, capacity, capacity * 6 / 10, capacity - capacity * 6 / 10
  FROM (SELECT f.rowid AS flight, coalesce(p.seats, 150) AS capacity
        FROM flights f LEFT JOIN planes p USING (tailnum));

-- The desks that sell and cancel. Always true: all seats sold = all seats booked.
-- The remarks are long enough to give each desk a page of its own: desks do not conflict
-- with each other here, only where two of them touch flights of one page of `seats`.
CREATE TABLE desks(desk INTEGER PRIMARY KEY, transactions INTEGER DEFAULT 0, sold INTEGER,
  remarks TEXT);
INSERT INTO desks(desk, sold, remarks)
  SELECT 0, sum(booked), printf('%3000s', 'sold before the demo') FROM seats;
INSERT INTO desks(desk, sold, remarks)
  SELECT value, 0, printf('%3000s', 'desk') FROM json_each('[1,2,3,4,5,6,7,8]');

-- INSERT INTO sell VALUES (desk, flight, seats) books seats where enough are free.
CREATE VIEW sell AS SELECT 0 AS desk, 0 AS flight, 0 AS seats;
CREATE TRIGGER sell_seats INSTEAD OF INSERT ON sell BEGIN
  UPDATE seats SET booked = booked + NEW.seats, free = free - NEW.seats
    WHERE flight = NEW.flight AND free >= NEW.seats AND NOT cancelled;
  UPDATE desks SET sold = sold + NEW.seats * changes(), transactions = transactions + 1
    WHERE desk = NEW.desk;
END;

-- INSERT INTO cancel VALUES (desk, flight) cancels a flight and refunds what was booked.
CREATE VIEW cancel AS SELECT 0 AS desk, 0 AS flight;
CREATE TRIGGER cancel_flight INSTEAD OF INSERT ON cancel BEGIN
  UPDATE desks SET transactions = transactions + 1,
    sold = sold - (SELECT booked FROM seats WHERE flight = NEW.flight) WHERE desk = NEW.desk;
  UPDATE seats SET booked = 0, free = capacity, cancelled = 1 WHERE flight = NEW.flight;
  UPDATE flights SET dep_time = NULL, dep_delay = NULL WHERE rowid = NEW.flight;
END;
