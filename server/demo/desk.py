"""A booking desk: sells seats and delays flights for some seconds.

usage: desk.py DESK SECONDS HOW [FILE]
  HOW extension: load Interleaf's extension, open the database `flights` in it
      preload:   nothing to do here, `interleaf exec` has done it: open `flights`
      plain:     open FILE with SQLite as it is, for comparison
"""
import json, os, random, sqlite3, sys, time

desk, seconds, how = int(sys.argv[1]), float(sys.argv[2]), sys.argv[3]
FLIGHTS, POPULAR = 336_776, 50
CONFLICT = 517  # SQLITE_BUSY_SNAPSHOT: somebody else committed first; run it again
# Plain SQLite has one writer at a time and does best when told at once who will write.
BEGIN = "BEGIN IMMEDIATE" if how == "plain" else "BEGIN"


def connect():
    if how == "plain":
        return sqlite3.connect(sys.argv[4], timeout=30, isolation_level=None)
    if how == "preload":
        return sqlite3.connect("flights", isolation_level=None)
    loader = sqlite3.connect(":memory:")
    loader.enable_load_extension(True)
    loader.load_extension(os.environ["INTERLEAF_EXTENSION"])
    return sqlite3.connect("file:flights?vfs=interleaf", uri=True, isolation_level=None)


def work(db, flight):
    """One transaction: look, take the money, book; now and then a flight is late."""
    db.execute("SELECT free FROM seats WHERE flight = ?", (flight,)).fetchone()
    time.sleep(0.002)  # the payment takes its time, within the transaction
    db.execute("INSERT INTO sell VALUES (?, ?, 1)", (desk, flight))
    if random.random() < 0.2:
        db.execute("UPDATE flights SET dep_delay = coalesce(dep_delay, 0) + 15 WHERE rowid = ?",
                   (flight,))


def done_so_far(db):
    return db.execute("SELECT transactions FROM desks WHERE desk = ?", (desk,)).fetchone()[0]


counts = {"committed": 0, "conflicts": 0, "busy": 0, "interrupted": 0, "longest_ms": 0}
# What was acknowledged to this desk, over its restarts: none of it may ever be lost.
ledger = os.open(f"out/{how}-{desk}.acknowledged", os.O_RDWR | os.O_CREAT)
acknowledged = int(os.read(ledger, 20) or 0)
end, db, done = time.monotonic() + seconds, None, None
while time.monotonic() < end:
    began = time.monotonic()
    hot = random.random() < 0.1
    flight = random.randint(1, POPULAR if hot else FLIGHTS)
    while time.monotonic() < end + 10:
        try:
            if db is None:
                db = connect()
                now = done_so_far(db)
                # After an interruption only the database knows whether the last COMMIT was
                # done: this desk's own count tells, and nothing is sold twice.
                if done is not None and now == done + 1:
                    break
                done = now
            db.execute(BEGIN)
            work(db, flight)
            db.execute("COMMIT")
            break
        except sqlite3.Error as error:
            code = getattr(error, "sqlite_errorcode", 0)
            if code == CONFLICT or code & 0xFF == sqlite3.SQLITE_BUSY:
                counts["conflicts" if code == CONFLICT else "busy"] += 1
                if db.in_transaction:
                    db.execute("ROLLBACK")
                time.sleep(random.random() * 0.004)
            else:
                print(f"desk {desk}: {error}", file=sys.stderr)
                counts["interrupted"] += 1
                if db is not None:
                    db.close()
                db = None
                time.sleep(0.1)
    else:
        break
    done += 1
    counts["committed"] += 1
    counts["longest_ms"] = max(counts["longest_ms"], round((time.monotonic() - began) * 1000))
    acknowledged += 1
    os.pwrite(ledger, f"{acknowledged:10}".encode(), 0)
print(json.dumps(counts))
