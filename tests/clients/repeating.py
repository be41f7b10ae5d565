"""What the preload library runs again after a conflict, and what it does not.

    repeating.py PRELOAD_LIBRARY NAME     (started under that library)

A function called from within a statement commits on a second connection to the very row that
the statement then changes: a conflict at the statement's commit, as often as wanted.
"""

import ctypes
import json
import sqlite3
import sys

BUSY_SNAPSHOT = 517


class Interference:
    """The function `interfere(v)`: gives v + 1, having added 100 to it elsewhere."""

    def __init__(self, other):
        self.other = other
        self.left = 0
        self.calls = 0

    def __call__(self, value):
        self.calls += 1
        if self.left > 0:
            self.left -= 1
            self.other.execute("UPDATE t SET v = v + 100 WHERE id = 1")
        return value + 1

    def prepare(self, times):
        self.other.execute("UPDATE t SET v = 0 WHERE id = 1")
        self.left, self.calls = times, 0


def value(connection):
    return connection.execute("SELECT v FROM t WHERE id = 1").fetchone()[0]


def expect_conflict(run):
    try:
        run()
    except sqlite3.OperationalError as error:
        assert error.sqlite_errorcode == BUSY_SNAPSHOT, (error, error.sqlite_errorcode)
    else:
        raise AssertionError("no conflict was seen")


def statements(name):
    update = "UPDATE t SET v = interfere(v) WHERE id = 1"
    db = sqlite3.connect(name, isolation_level=None, timeout=10)
    other = sqlite3.connect(name, isolation_level=None)
    db.execute("CREATE TABLE t(id INTEGER PRIMARY KEY, v INTEGER)")
    db.execute("CREATE TABLE many AS WITH RECURSIVE n(i) AS (VALUES (1) UNION ALL"
               " SELECT i + 1 FROM n LIMIT 1000) SELECT i FROM n")
    db.execute("INSERT INTO t VALUES (1, 0)")
    interference = Interference(other)
    db.create_function("interfere", 1, interference)

    interference.prepare(3)
    changed = db.execute(update).rowcount
    assert (value(other), interference.calls, changed) == (301, 4, 1)
    stats = json.loads(db.execute("PRAGMA interleaf_stats").fetchone()[0])
    assert (stats["retries"], stats["conflicts"]) == (3, 3), stats

    # Bound values stay bound.
    interference.prepare(2)
    db.execute("UPDATE t SET v = interfere(v) + ? WHERE id = ?", (1000, 1))
    assert (value(other), interference.calls) == (1201, 3)

    # A transaction is the program's to repeat.
    interference.prepare(1)
    db.execute("BEGIN")
    db.execute(update)
    expect_conflict(lambda: db.execute("COMMIT"))
    assert (value(other), interference.calls, db.in_transaction) == (100, 1, False)

    # Rows that were handed out cannot be taken back.
    interference.prepare(1)
    expect_conflict(lambda: db.execute(update + " RETURNING v").fetchall())
    assert (value(other), interference.calls) == (100, 1)

    # Nor can what another statement is still reading.
    interference.prepare(1)
    reading = db.execute("SELECT i FROM many")
    reading.fetchone()
    expect_conflict(lambda: db.execute(update))
    reading.close()
    assert (value(other), interference.calls) == (100, 1)

    # An endless conflict ends with the busy timeout.
    hasty = sqlite3.connect(name, isolation_level=None, timeout=0.2)
    hasty.create_function("interfere", 1, interference)
    interference.prepare(10**9)
    expect_conflict(lambda: hasty.execute(update))
    assert interference.calls > 2, interference.calls
    hasty.close()
    db.close()
    other.close()


def c_interface(library, name):
    """sqlite3_exec and sqlite3_get_table, by their C interface."""
    front = ctypes.CDLL(library)
    sqlite = ctypes.CDLL("libsqlite3.so.0")
    other = sqlite3.connect(name, isolation_level=None)
    interference = Interference(other)

    function = ctypes.CFUNCTYPE(
        None, ctypes.c_void_p, ctypes.c_int, ctypes.POINTER(ctypes.c_void_p)
    )
    sqlite.sqlite3_value_int64.restype = ctypes.c_int64

    def call(context, _count, values):
        old = sqlite.sqlite3_value_int64(ctypes.c_void_p(values[0]))
        new = interference(old)
        sqlite.sqlite3_result_int64(ctypes.c_void_p(context), ctypes.c_int64(new))

    call = function(call)
    db = ctypes.c_void_p()
    # SQLITE_OPEN_READWRITE; the message of a later failure is looked at as well.
    assert front.sqlite3_open_v2(name.encode(), ctypes.byref(db), 2, None) == 0
    assert sqlite.sqlite3_create_function(db, b"interfere", 1, 1, None, call, None, None) == 0

    def execute(sql, callback=None):
        message = ctypes.c_char_p()
        code = front.sqlite3_exec(db, sql.encode(), callback, None, ctypes.byref(message))
        return code, message.value

    def get_table(sql):
        table, rows, columns = ctypes.POINTER(ctypes.c_char_p)(), ctypes.c_int(), ctypes.c_int()
        message = ctypes.c_char_p()
        code = front.sqlite3_get_table(
            db, sql.encode(), ctypes.byref(table), ctypes.byref(rows), ctypes.byref(columns),
            ctypes.byref(message),
        )
        cells = [table[n] for n in range(columns.value * (rows.value + 1))] if code == 0 else None
        return code, cells, message.value

    update = "UPDATE t SET v = interfere(v) WHERE id = 1"
    interference.prepare(2)
    assert execute(update + "; -- done") == (0, None)
    assert (value(other), interference.calls) == (201, 3)

    # What ran before the conflict would run twice.
    interference.prepare(1)
    code, message = execute(f"INSERT INTO many VALUES (0); {update}")
    assert (code & 0xFF, interference.calls) == (5, 1), (code, message)
    assert message
    assert sqlite.sqlite3_extended_errcode(db) == BUSY_SNAPSHOT
    assert other.execute("SELECT count(*) FROM many WHERE i = 0").fetchone() == (1,)

    rows = []
    row_callback = ctypes.CFUNCTYPE(
        ctypes.c_int, ctypes.c_void_p, ctypes.c_int, ctypes.POINTER(ctypes.c_char_p),
        ctypes.POINTER(ctypes.c_char_p),
    )
    collect = row_callback(lambda _context, _count, values, _names: rows.append(values[0]) or 0)
    interference.prepare(1)
    code, message = execute(update + " RETURNING v", collect)
    assert (code & 0xFF, rows, interference.calls) == (5, [b"1"], 1), (code, rows, message)
    interference.prepare(1)
    assert execute(update, collect) == (0, None)
    assert (value(other), interference.calls, rows) == (101, 2, [b"1"])
    assert execute("SELECT v FROM t WHERE id = 1", collect) == (0, None)
    assert rows == [b"1", b"101"]

    # A table is handed over at the end, so that its rows are nobody's before.
    interference.prepare(2)
    code, cells, message = get_table(update + " RETURNING v")
    assert (code, cells, message) == (0, [b"v", b"201"], None)
    assert (value(other), interference.calls) == (201, 3)
    code, cells, message = get_table("SELECT missing")
    assert (code, message) == (1, b"no such column: missing")
    assert sqlite.sqlite3_close(db) == 0
    other.close()


if __name__ == "__main__":
    statements(sys.argv[2])
    c_interface(*sys.argv[1:])
    print("all as it must be")
