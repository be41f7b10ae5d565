#!/bin/sh
# Cancels flights for some seconds: each time a new sqlite3 process and a transaction of its
# own; where somebody else committed first (517) it is run again.
# usage: cancel.sh DESK SECONDS BEGIN COMMAND...    COMMAND opens the database in sqlite3
desk=$1 end=$(($(date +%s) + $2)) begin=$3
shift 3
while [ "$(date +%s)" -lt "$end" ]; do
    flight=$(($(od -An -N4 -tu4 /dev/urandom) % 336776 + 1))
    until "$@" <<SQL
.bail on
$begin;
INSERT INTO cancel VALUES ($desk, $flight);
COMMIT;
SQL
    do
        [ "$(date +%s)" -lt "$((end + 10))" ] || exit 1
    done
done
