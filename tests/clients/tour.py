"""Python's sqlite3 module on Interleaf, from opening to time travel.

    tour.py extension LIBRARY NAME SECOND_EXTENSION
    tour.py preload NAME SECOND_EXTENSION     (started under the preload library)

Ends with exit code 0 and the line "tour complete", or with an AssertionError.
"""

import json
import sqlite3
import sys

BLOB_BYTES = 50 * 1024 * 1024


def opener(mode, library):
    """Gives open(name, **uri parameters) -> connection in autocommit mode."""
    if mode == "extension":
        # The extension stays loaded after the connection that loaded it is closed.
        loader = sqlite3.connect(":memory:")
        loader.enable_load_extension(True)
        loader.load_extension(library)
        loader.close()

    def open_database(name, **parameters):
        if mode == "extension":
            parameters["vfs"] = "interleaf"
        query = "&".join(f"{key}={value}" for key, value in parameters.items())
        uri = f"file:{name}?{query}" if query else f"file:{name}"
        return sqlite3.connect(uri, uri=True, isolation_level=None)

    return open_database


def one(connection, sql, *arguments):
    """The only value of the only row, or None."""
    row = connection.execute(sql, arguments).fetchone()
    return None if row is None else row[0]


def opening_lines(db):
    """What applications send first: each must pass without an error."""
    assert one(db, "PRAGMA journal_mode=WAL") == "delete"
    db.execute("PRAGMA synchronous=NORMAL")
    assert one(db, "PRAGMA synchronous") == 1
    assert one(db, "PRAGMA busy_timeout=5000") == 5000
    db.execute("PRAGMA mmap_size=268435456").fetchall()
    db.execute("PRAGMA cache_size=-64000")
    db.execute("PRAGMA foreign_keys=ON")
    assert one(db, "PRAGMA foreign_keys") == 1
    assert one(db, "PRAGMA locking_mode=EXCLUSIVE") == "normal"
    db.execute("PRAGMA temp_store=MEMORY")


def create_and_fill(db):
    db.executescript(
        """
        CREATE TABLE author(id INTEGER PRIMARY KEY, name TEXT UNIQUE NOT NULL);
        CREATE TABLE book(
            id INTEGER PRIMARY KEY,
            author INTEGER NOT NULL REFERENCES author(id) ON DELETE CASCADE,
            title TEXT NOT NULL,
            data TEXT CHECK (json_valid(data))
        );
        CREATE INDEX book_author ON book(author);
        CREATE TABLE audit(what TEXT);
        CREATE TRIGGER book_added AFTER INSERT ON book
            BEGIN INSERT INTO audit VALUES ('added ' || new.title); END;
        CREATE VIEW counted AS
            SELECT name, count(book.id) AS books
            FROM author LEFT JOIN book ON author = author.id GROUP BY name;
        """
    )
    db.execute("BEGIN")
    for author in range(50):
        db.execute("INSERT INTO author(name) VALUES (?)", (f"author {author}",))
    db.executemany(
        "INSERT INTO book(author, title, data) VALUES (?, ?, ?)",
        (
            (1 + n % 50, f"title {n}", json.dumps({"pages": n, "tags": ["a", f"t{n % 7}"]}))
            for n in range(5000)
        ),
    )
    db.execute("COMMIT")


def query(db):
    assert one(db, "SELECT count(*) FROM book") == 5000
    assert one(db, "SELECT count(*) FROM audit") == 5000, "the trigger ran"
    assert one(db, "SELECT sum(books) FROM counted") == 5000
    assert one(db, "SELECT books FROM counted WHERE name = 'author 7'") == 100
    assert one(db, "SELECT sum(data ->> '$.pages') FROM book") == sum(range(5000))
    tags = "SELECT count(*) FROM book, json_each(data, '$.tags') WHERE value = 't3'"
    assert one(db, tags) == len(range(3, 5000, 7))
    try:
        db.execute("INSERT INTO book(author, title, data) VALUES (999, 'orphan', '{}')")
    except sqlite3.IntegrityError as error:
        assert "FOREIGN KEY" in str(error)
    else:
        raise AssertionError("a foreign key was not checked")
    db.execute("DELETE FROM author WHERE id = 50")
    assert one(db, "SELECT count(*) FROM book") == 4900, "ON DELETE CASCADE"


def roll_back(db, other):
    before = one(db, "SELECT count(*) FROM book")
    db.execute("BEGIN")
    db.execute("DELETE FROM book")
    assert one(db, "SELECT count(*) FROM book") == 0
    assert one(other, "SELECT count(*) FROM book") == before, "not committed"
    db.execute("ROLLBACK")
    assert one(db, "SELECT count(*) FROM book") == before
    db.execute("BEGIN")
    db.execute("SAVEPOINT inner_part")
    db.execute("UPDATE book SET title = 'changed'")
    db.execute("ROLLBACK TO inner_part")
    db.execute("UPDATE book SET title = 'kept' WHERE id = 1")
    db.execute("COMMIT")
    assert one(other, "SELECT title FROM book WHERE id = 1") == "kept"
    assert one(other, "SELECT title FROM book WHERE id = 2") == "title 1"


def virtual_tables(db):
    db.execute("CREATE VIRTUAL TABLE search USING fts5(title, content='book', content_rowid='id')")
    db.execute("INSERT INTO search(search) VALUES ('rebuild')")
    assert one(db, "SELECT count(*) FROM search WHERE search MATCH '\"title 17\"'") == 1
    db.execute("INSERT INTO search(search) VALUES ('integrity-check')")
    db.execute("CREATE VIRTUAL TABLE place USING rtree(id, x0, x1, y0, y1)")
    db.execute("BEGIN")
    for n in range(1000):
        db.execute("INSERT INTO place VALUES (?, ?, ?, ?, ?)", (n, n, n + 1, n, n + 1))
    db.execute("COMMIT")
    inside = "SELECT count(*) FROM place WHERE x0 >= 10 AND x1 <= 20 AND y0 >= 10 AND y1 <= 20"
    assert one(db, inside) == 10
    assert one(db, "SELECT rtreecheck('place')") == "ok"


def large_blob(db, other):
    pattern = bytes(range(251))
    blob = (pattern * (BLOB_BYTES // len(pattern) + 1))[:BLOB_BYTES]
    db.execute("CREATE TABLE large(id INTEGER PRIMARY KEY, content BLOB)")
    db.execute("INSERT INTO large VALUES (1, ?)", (blob,))
    assert one(other, "SELECT content FROM large WHERE id = 1") == blob
    if hasattr(db, "blobopen"):
        with db.blobopen("large", "content", 1) as handle:
            handle.seek(BLOB_BYTES // 2)
            handle.write(b"changed in place")
        with other.blobopen("large", "content", 1, readonly=True) as handle:
            handle.seek(BLOB_BYTES // 2)
            assert handle.read(16) == b"changed in place"
    db.execute("DELETE FROM large")


def vacuum(db):
    db.execute("DELETE FROM book WHERE id % 2")
    before = one(db, "PRAGMA page_count")
    rows = one(db, "SELECT count(*) FROM book")
    db.execute("VACUUM")
    assert one(db, "PRAGMA page_count") < before / 10, "the blob's pages are gone"
    assert one(db, "SELECT count(*) FROM book") == rows
    assert one(db, "PRAGMA integrity_check") == "ok"


def time_travel(db, open_database, name):
    then = one(db, "PRAGMA interleaf_version")
    assert len(then) == 20 and int(then, 16) > 0, then
    rows = one(db, "SELECT count(*) FROM author")
    db.execute("INSERT INTO author(name) VALUES ('later')")
    db.execute("DROP TABLE place")
    now = one(db, "PRAGMA interleaf_version")
    assert now > then

    for snapshot in (open_database(name, at=then), open_database(f"{name}@{then}")):
        assert one(snapshot, "SELECT count(*) FROM author") == rows
        assert one(snapshot, "SELECT count(*) FROM place") == 1000
        assert one(snapshot, "PRAGMA interleaf_version") == then
        try:
            snapshot.execute("DELETE FROM author")
        except sqlite3.OperationalError as error:
            assert "readonly" in str(error), error
        else:
            raise AssertionError("a snapshot was written")
        snapshot.close()

    db.execute(f"PRAGMA interleaf_at='{then}'").fetchall()
    assert one(db, "SELECT count(*) FROM author") == rows
    db.execute("PRAGMA interleaf_at='head'").fetchall()
    assert one(db, "SELECT count(*) FROM author") == rows + 1


def second_extension(db, path):
    if not hasattr(db, "enable_load_extension"):
        print("this python cannot load extensions")
        return
    db.enable_load_extension(True)
    db.load_extension(path)
    assert one(db, "SELECT second_extension_twice(21)") == 42
    assert one(db, "SELECT count(second_extension_twice(id)) FROM author") > 0


def main():
    mode, *rest = sys.argv[1:]
    library = rest.pop(0) if mode == "extension" else None
    name, second = rest
    open_database = opener(mode, library)
    db = open_database(name)
    opening_lines(db)
    create_and_fill(db)
    other = open_database(name)
    query(db)
    roll_back(db, other)
    virtual_tables(db)
    large_blob(db, other)
    vacuum(db)
    second_extension(db, second)
    time_travel(db, open_database, name)
    stats = json.loads(one(db, "PRAGMA interleaf_stats"))
    assert stats["commits"] > 10, stats
    assert stats["conflicts"] == 0, stats
    assert one(other, "PRAGMA integrity_check") == "ok"
    other.close()
    db.close()
    print(f"SQLite {sqlite3.sqlite_version}: tour complete")


if __name__ == "__main__":
    main()
