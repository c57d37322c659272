#!/bin/sh
# Brings two consecutive releases of the published Python package bottle: fetch.sh DIRECTORY, as DIRECTORY/<version>/bottle.py
set -eu
directory=$1
for version in 0.13.3 0.13.4; do
    [ ! -e "$directory/$version/bottle.py" ] || continue
    rm -rf "$directory/$version.new"
    mkdir -p "$directory/$version.new"
    pip3 download --quiet --disable-pip-version-check --no-deps --only-binary :all: \
        --dest "$directory/$version.new" "bottle==$version"
    python3 -m zipfile -e "$directory/$version.new"/*.whl "$directory/$version.new"
    rm "$directory/$version.new"/*.whl
    mv "$directory/$version.new" "$directory/$version"
done
