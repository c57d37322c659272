#!/bin/sh
# What systemd does on a server: ends the app, without mercy, and starts the one of this release.
set -eu
if [ -s data/pid ]; then
    old=$(cat data/pid)
    kill -KILL "$old" 2>/dev/null || true
    while kill -0 "$old" 2>/dev/null && ! grep -q '^State:.Z' "/proc/$old/status" 2>/dev/null; do sleep 0.02; done
fi
# shellcheck disable=SC2046
python3 shop.py $(cat data/address) "$CONSIGN_SERVER" "$CONSIGN_VERSION" "$(pwd -P)/data" >>data/log 2>&1 </dev/null &
echo $! >data/pid
