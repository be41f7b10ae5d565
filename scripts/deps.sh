#!/bin/sh
# Installs what a fresh Debian machine lacks: as root at once, else it prints the line to run.
#   deps.sh build   what building and the demo need
#   deps.sh test    and what the tests need besides
set -eu

need=""
want() { # want COMMAND PACKAGE
    command -v "$1" >/dev/null 2>&1 || need="$need $2"
}
want cc gcc
want sqlite3 sqlite3
want python3 python3
# The declarations of FoundationDB's client interface are generated while building.
if [ -z "${LIBCLANG_PATH:-}" ] &&
    ! ls /usr/lib*/libclang[-.][0-9s]* /usr/lib*/*/libclang[-.][0-9s]* \
        /usr/lib/llvm-*/lib/libclang[-.][0-9s]* 2>/dev/null | grep -q .; then
    need="$need libclang1"
fi
python3 -m pip --version >/dev/null 2>&1 || need="$need python3-pip"
if [ "${1:-build}" = test ]; then
    want node nodejs
    want npm npm
    # better-sqlite3 is compiled where there is no ready-made binary for it.
    want g++ g++
    ls /usr/include/node/node.h /usr/include/nodejs/src/node.h 2>/dev/null | grep -q . ||
        need="$need libnode-dev"
    # The system's own Python runs the clients, its venv a program's test suite.
    [ -x /usr/bin/python3 ] || need="$need python3"
    /usr/bin/python3 -c 'import venv, ensurepip' 2>/dev/null || need="$need python3-venv"
fi

if ! command -v cargo >/dev/null 2>&1; then
    echo "Rust is missing: install cargo and rustc 1.90 or newer first (https://rustup.rs)" >&2
    exit 1
fi
[ -n "$need" ] || exit 0

if ! command -v apt-get >/dev/null 2>&1; then
    echo "these are missing; install them first:$need" >&2
    exit 1
fi
if [ "$(id -u)" != 0 ]; then
    echo "some packages are missing; run this, then make again:" >&2
    echo "  sudo apt-get install -y$need" >&2
    exit 1
fi
echo "installing:$need"
export DEBIAN_FRONTEND=noninteractive
apt-get update -qq
# shellcheck disable=SC2086 # a list of words on purpose
apt-get install -y -qq --no-install-recommends $need >/dev/null
