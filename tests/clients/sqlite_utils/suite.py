#!/usr/bin/env python3
"""Runs sqlite-utils' own test suite with its file databases in Interleaf.

    suite.py --preload target/debug/libinterleaf_preload.so --work target/clients/sqlite-utils
             [--program target/debug/interleaf] [--plain] [--time-limit SECONDS]
             [-- PYTEST ARGUMENTS]

The suite comes from the package's source distribution, its dependencies go into a virtual
environment below the work directory; both are kept for the next run. The store is a new one
in a temporary directory, behind a server where --program is given (some tests start processes
of their own, which need it). With --plain no library is preloaded, for comparison.

Ends with exit code 0 where at least 95% of the tests that open a file passed and none of all
failed. Every test left out is in refused.json with the feature that Interleaf refuses.
"""

import argparse
import contextlib
import hashlib
import json
import os
import pathlib
import shutil
import subprocess
import sys
import tempfile
import venv

HERE = pathlib.Path(__file__).resolve().parent
PACKAGE = "sqlite-utils"
VERSION = "4.2.1"
SHARE_TO_PASS = 0.95


def arguments():
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("--preload", type=pathlib.Path, help="the preload library")
    parser.add_argument("--work", type=pathlib.Path, required=True, help="directory to work in")
    parser.add_argument("--program", type=pathlib.Path, help="the program interleaf, to serve")
    parser.add_argument("--plain", action="store_true", help="plain SQLite, for comparison")
    parser.add_argument("--time-limit", type=float, default=600, help="in seconds")
    parser.add_argument("pytest", nargs="*", help="arguments for pytest")
    parsed = parser.parse_args()
    if not parsed.plain and not (parsed.preload and parsed.preload.is_file()):
        parser.error(f"--preload {parsed.preload} is no file; cargo build makes it")
    return parsed


def prepare(work):
    """Gives (python of the virtual environment, the unpacked source distribution)."""
    wanted = hashlib.sha256(
        (VERSION + sys.version).encode() + (HERE / "requirements.txt").read_bytes()
    ).hexdigest()
    stamp = work / "prepared"
    python = work / "venv" / "bin" / "python"
    source = work / f"sqlite_utils-{VERSION}"
    if stamp.is_file() and stamp.read_text() == wanted:
        return python, source
    shutil.rmtree(work, ignore_errors=True)
    work.mkdir(parents=True)
    venv.create(work / "venv", with_pip=True)
    pip = [python, "-m", "pip", "--quiet", "--disable-pip-version-check"]
    subprocess.run([*pip, "install", "-r", HERE / "requirements.txt"], check=True)
    subprocess.run(
        [*pip, "download", "--no-deps", "--no-binary", PACKAGE, "--dest", work]
        + [f"{PACKAGE}=={VERSION}"],
        check=True,
    )
    shutil.unpack_archive(work / f"sqlite_utils-{VERSION}.tar.gz", work, filter="data")
    subprocess.run([*pip, "install", "--no-deps", source], check=True)
    stamp.write_text(wanted)
    return python, source


@contextlib.contextmanager
def store(parsed, scratch):
    """A new store: gives its URL."""
    url = f"dir:{scratch / 'store'}"
    if parsed.plain or parsed.program is None:
        yield url
        return
    socket = f"unix:{scratch / 'interleaf.sock'}"
    serve = [parsed.program, "serve", "--store", url, "--listen", socket, "--http", "127.0.0.1:0"]
    server = subprocess.Popen(serve, stdout=subprocess.PIPE, stdin=subprocess.DEVNULL)
    try:
        if not server.stdout.readline():
            sys.exit(f"the server ended with exit code {server.wait()} before it was ready")
        yield socket
    finally:
        server.terminate()
        server.communicate(timeout=60)


def run(parsed, python, source, scratch, url):
    """Runs the suite and gives the plugin's report."""
    report = scratch / "report.json"
    environment = {k: v for k, v in os.environ.items() if not k.startswith("INTERLEAF_")}
    environment["INTERLEAF_SUITE_REPORT"] = str(report)
    environment["PYTHONPATH"] = str(HERE)
    environment["HYPOTHESIS_STORAGE_DIRECTORY"] = str(scratch / "hypothesis")
    preload = []
    if not parsed.plain:
        environment["INTERLEAF_STORE"] = url
        # Only from here on: what starts pytest is none of the subject.
        preload = ["env", f"LD_PRELOAD={parsed.preload.resolve()}"]
    command = [*preload, python, "-m", "pytest", "-q", "-p", "interleaf_pytest"]
    command += ["-p", "no:cacheprovider", "--hypothesis-seed=0", "--tb=short", "-W", "ignore"]
    command += [f"--basetemp={scratch / 'tests'}", *parsed.pytest]
    finished = subprocess.run(command, cwd=source, env=environment, timeout=parsed.time_limit)
    if not report.is_file():
        sys.exit(f"pytest ended with exit code {finished.returncode} and left no report")
    return json.loads(report.read_text())


def summary(report):
    """Prints the counts and gives the exit code."""
    outcomes, refused = report["outcomes"], report["refused"]
    # A skipped test opened nothing in this run; it counts as one that would have.
    opened = set(report["opened"]) | set(refused)

    def count(nodeids):
        found = [outcomes.get(nodeid, "failed") for nodeid in nodeids]
        return {kind: found.count(kind) for kind in ("passed", "failed", "skipped")}

    for title, nodeids in (("all tests", outcomes), ("tests that open a file", opened)):
        counts = count(nodeids)
        print(f"{title}: {len(nodeids)}: " + ", ".join(f"{n} {k}" for k, n in counts.items()))
    for feature in sorted(set(refused.values())):
        skipped = [nodeid for nodeid, why in refused.items() if why == feature]
        print(f"skipped, {feature}: {len(skipped)}")
        for nodeid in skipped:
            print(f"    {nodeid}")
    for nodeid in sorted(nodeid for nodeid, outcome in outcomes.items() if outcome == "failed"):
        print(f"failed: {nodeid}")
    share = count(opened)["passed"] / max(1, len(opened))
    print(f"{share:.1%} of the tests that open a file pass")
    failed = count(outcomes)["failed"]
    return 0 if opened and share >= SHARE_TO_PASS and not failed else 1


def main():
    parsed = arguments()
    parsed.work = parsed.work.resolve()
    python, source = prepare(parsed.work)
    with tempfile.TemporaryDirectory(prefix="interleaf-suite-") as scratch:
        scratch = pathlib.Path(scratch)
        with store(parsed, scratch) as url:
            report = run(parsed, python, source, scratch, url)
    return summary(report)


if __name__ == "__main__":
    sys.exit(main())
