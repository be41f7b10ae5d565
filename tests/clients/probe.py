"""Opens a database, runs statements and prints each result, or the error's name and text.

    probe.py [--load EXTENSION] [--hold] NAME STATEMENT...

With --hold it then waits for the end of its input, the database still open.
"""

import os
import sqlite3
import sys


def main():
    arguments = [os.fsencode(argument) for argument in sys.argv[1:]]
    loader = None
    if arguments[0] == b"--load":
        loader = sqlite3.connect(":memory:")
        loader.enable_load_extension(True)
        try:
            loader.load_extension(os.fsdecode(arguments[1]))
        except sqlite3.Error as error:
            # A failed load has no code of its own.
            print("SQLITE_ERROR", error)
            return
        del arguments[:2]
    hold = arguments[0] == b"--hold"
    if hold:
        del arguments[0]
    name, *statements = arguments
    try:
        uri = name.startswith(b"file:")
        connection = sqlite3.connect(name, uri=uri, isolation_level=None, timeout=1)
        for statement in statements:
            print(connection.execute(statement.decode()).fetchall())
    except sqlite3.Error as error:
        print(error.sqlite_errorname, error)
        return
    if hold:
        print("holding", flush=True)
        sys.stdin.read()


if __name__ == "__main__":
    main()
