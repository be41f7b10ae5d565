"""A pytest plugin for running sqlite-utils' own tests with their file databases in Interleaf.

It changes nothing in the tests or in sqlite-utils. It
* makes the names of databases absolute, since a bare name is one database from every folder
  and the tests use `test.db` in a new folder each;
* leaves an empty file where the database's name points, because sqlite-utils' command line
  refuses a path at which there is no file; an empty file holds no data, so Interleaf does too;
* notes which tests open a file database at all, and skips those that test what Interleaf
  refuses to do, each with the name of that feature.

The results go, as JSON, to the file that INTERLEAF_SUITE_REPORT names.
"""

import functools
import json
import os
import pathlib
import sqlite3
import urllib.parse

import pytest

REFUSED = json.loads((pathlib.Path(__file__).parent / "refused.json").read_text())

opened = set()
outcomes = {}
current = None


def absolute(database, uri):
    """The name of a database with an absolute path; None for one that is no file."""
    name = os.fspath(database)
    if isinstance(name, bytes):
        name = os.fsdecode(name)
    if not uri or not name.startswith("file:"):
        return None if name in ("", ":memory:") else os.path.abspath(name)
    path, _, query = name[len("file:") :].partition("?")
    if path in ("", ":memory:") or "mode=memory" in query:
        return None
    path = os.path.abspath(urllib.parse.unquote(path))
    return "file:" + urllib.parse.quote(path) + ("?" + query if query else "")


def placeholder(name):
    """Leaves an empty file at a path whose folder exists, as plain SQLite would."""
    if name.startswith("file:"):
        path, _, query = name[len("file:") :].partition("?")
        if "mode=ro" in query or "mode=rw" in query.split("&"):
            return
        name = urllib.parse.unquote(path)
    if os.path.isdir(os.path.dirname(name)):
        pathlib.Path(name).touch()


def interposed(real):
    @functools.wraps(real)
    def connect(database, *args, **kwargs):
        name = absolute(database, kwargs.get("uri", False))
        if name is None:
            return real(database, *args, **kwargs)
        if current is not None:
            opened.add(current)
        connection = real(name, *args, **kwargs)
        placeholder(name)
        return connection

    return connect


def pytest_configure(config):
    sqlite3.connect = interposed(sqlite3.connect)


def pytest_collection_modifyitems(items):
    for item in items:
        for prefix, feature in REFUSED.items():
            if item.nodeid == prefix or item.nodeid.startswith(prefix + "["):
                item.add_marker(pytest.mark.skip(reason=f"refused by Interleaf: {feature}"))


@pytest.hookimpl(wrapper=True)
def pytest_runtest_protocol(item):
    global current
    current = item.nodeid
    try:
        return (yield)
    finally:
        current = None


def pytest_runtest_logreport(report):
    # The worst of setup, call and teardown counts.
    order = ["passed", "skipped", "failed"]
    before = outcomes.get(report.nodeid, "passed")
    outcomes[report.nodeid] = max(before, report.outcome, key=order.index)


def pytest_sessionfinish():
    path = os.environ.get("INTERLEAF_SUITE_REPORT")
    if path:
        report = {
            "outcomes": outcomes,
            "opened": sorted(opened),
            "refused": {
                nodeid: feature
                for nodeid in outcomes
                for prefix, feature in REFUSED.items()
                if nodeid == prefix or nodeid.startswith(prefix + "[")
            },
        }
        pathlib.Path(path).write_text(json.dumps(report, indent=1))
