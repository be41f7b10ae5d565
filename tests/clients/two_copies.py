"""Two copies of SQLite in one process, both under the preload library.

    two_copies.py SECOND_COPY_SOURCE DIRECTORY

The second copy is Debian's library under another name (of the same length, so that replacing
the bytes is enough), behind a plug-in that links it.
"""

import ctypes
import pathlib
import re
import sqlite3
import subprocess
import sys

NAME = b"libsqlite3.so.0"
OTHER = b"libsqliteX.so.0"


def build(source, directory):
    """Compiles the plug-in, and gives its path."""
    sqlite3.connect(":memory:").close()
    maps = pathlib.Path("/proc/self/maps").read_text()
    (library,) = set(re.findall(r"(/\S*libsqlite3\.so\S*)$", maps, re.MULTILINE))
    other = directory / OTHER.decode()
    other.write_bytes(pathlib.Path(library).read_bytes().replace(NAME, OTHER))
    plugin = directory / "plugin.so"
    command = ["env", "-u", "LD_PRELOAD", "cc", "-shared", "-fPIC", "-o", plugin, source, other]
    subprocess.run([*command, f"-Wl,-rpath,{directory}"], check=True)
    return plugin


def main():
    plugin = ctypes.CDLL(str(build(sys.argv[1], pathlib.Path(sys.argv[2]))))
    own = sqlite3.connect("shared", isolation_level=None)
    own.execute("CREATE TABLE t AS SELECT 'A' AS v")
    assert plugin.second_copy_has_vfs() == 0, "each copy has VFSes of its own"
    read = plugin.second_copy_run(b"shared", b"SELECT v FROM t")
    assert read == ord("A"), read
    assert plugin.second_copy_has_vfs() == 1
    assert plugin.second_copy_run(b"shared", b"UPDATE t SET v = 'B'; SELECT v FROM t") == ord("B")
    assert own.execute("SELECT v FROM t").fetchone() == ("B",)
    assert plugin.second_copy_run(b":memory:", b"SELECT missing") == -2
    print("two copies, one database")


if __name__ == "__main__":
    main()
