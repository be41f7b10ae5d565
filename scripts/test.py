#!/usr/bin/env python3
"""Builds what the tests need, runs every test of the workspace, and ends with one line:

    N passed, N failed, N skipped

A test that cannot run here (no FoundationDB, say) is reported by its harness as ignored and
counts as skipped, never as passed.
"""

import os
import re
import subprocess
import sys

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
RESULT = re.compile(
    r"^test result: \w+\. (\d+) passed; (\d+) failed; (\d+) ignored;", re.MULTILINE
)


def run(*command):
    """Runs a command, shows its output as it comes, and gives (exit code, output)."""
    print("+", " ".join(command), flush=True)
    process = subprocess.Popen(
        command,
        cwd=ROOT,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        errors="replace",
    )
    lines = []
    for line in process.stdout:
        sys.stdout.write(line)
        sys.stdout.flush()
        lines.append(line)
    return process.wait(), "".join(lines)


def main():
    os.environ.setdefault("CARGO_TERM_COLOR", "never")
    os.environ.setdefault("CARGO_INCREMENTAL", "0")
    for lint in (
        ("cargo", "fmt", "--all", "--check"),
        ("cargo", "clippy", "--workspace", "--all-targets", "--locked", "--", "-D", "warnings"),
    ):
        if lint[1] == "clippy" and os.environ.get("INTERLEAF_TEST_LINT") == "0":
            continue
        code, _ = run(*lint)
        if code:
            print(f"{' '.join(lint)} failed", file=sys.stderr)
            print("0 passed, 1 failed, 0 skipped")
            return 1

    # The libraries and the server are test subjects: build them with the tests' own features.
    code, _ = run("cargo", "build", "--workspace", "--all-targets", "--locked")
    if code:
        print("0 passed, 1 failed, 0 skipped")
        return 1

    code, output = run("cargo", "test", "--workspace", "--locked", "--no-fail-fast", *sys.argv[1:])
    rows = [tuple(map(int, row)) for row in RESULT.findall(output)] or [(0, 0, 0)]
    passed, failed, skipped = (sum(column) for column in zip(*rows))
    if code and not failed:
        failed = 1  # A test binary that died prints no result line.
    print(f"{passed} passed, {failed} failed, {skipped} skipped")
    return 1 if failed or not passed else 0


if __name__ == "__main__":
    sys.exit(main())
