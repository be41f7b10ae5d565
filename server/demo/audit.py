"""Reads the totals while the desks write; they must add up every time.

usage: audit.py SECONDS extension|plain [FILE]
"""
import os, sqlite3, sys, time

seconds, how = float(sys.argv[1]), sys.argv[2]
TOTALS = open("scripts/totals.sql").read()


def connect():
    if how == "plain":
        return sqlite3.connect(sys.argv[3], timeout=30, isolation_level=None)
    loader = sqlite3.connect(":memory:")
    loader.enable_load_extension(True)
    loader.load_extension(os.environ["INTERLEAF_EXTENSION"])
    return sqlite3.connect("file:flights?vfs=interleaf", uri=True, isolation_level=None)


start, shown, reads, db = time.monotonic(), 0, 0, None
while (now := time.monotonic() - start) < seconds:
    try:
        db = db or connect()
        capacity, booked, free, sold, cancelled = db.execute(TOTALS).fetchone()
    except sqlite3.Error as error:
        print(f"  {now:4.1f} s  {error}", flush=True)
        db = None
        time.sleep(0.2)
        continue
    reads += 1
    right = booked + free == capacity and sold == booked
    if not right or now >= shown:
        verdict = "adds up" if right else "DOES NOT ADD UP"
        print(f"  {now:4.1f} s  booked {booked:,} + free {free:,} = capacity {capacity:,}, "
              f"sold {sold:,}, cancelled flights {cancelled}: {verdict}", flush=True)
        shown += 2
    if not right:
        sys.exit(1)
    time.sleep(0.1)
print(f"  {reads} audits, all of them added up", flush=True)
