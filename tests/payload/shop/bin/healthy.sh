#!/bin/sh
# The `http` step of the examples, for servers that share one machine and have addresses of their own.
set -eu
read -r address port <data/address
tries=0
until curl -sSf --max-time 2 "http://$address:$port/healthz"; do
    tries=$((tries + 1))
    [ $tries -lt 20 ] || exit 1
    sleep 0.2
done
