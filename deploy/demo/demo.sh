#!/bin/sh
# The main job on this machine, without root: demo.sh DIRECTORY_OF_BINARIES (make demo calls it)
#
# A coordinator and three agents as processes; a small web app in three versions: the second skips its migration, the third
# fails its health check and every server goes back by itself. Leaves nothing running; CONSIGN_DEMO_KEEP=1 keeps it all.
set -eu

bin=$(CDPATH='' cd -- "$1" && pwd)
here=$(CDPATH='' cd -- "$(dirname -- "$0")" && pwd)
work=$(mktemp -d "${TMPDIR:-/tmp}/consign-demo.XXXXXX")
export CONSIGN_HOME="$work/operator"
processes=

say() { printf '\n\033[1m== %s\033[0m\n' "$*"; }
show() { printf '\033[2m$ %s\033[0m\n' "$*"; }
consign() { show consign "$@"; "$bin/consign" "$@"; }
fail() { echo "demo: $*" >&2; exit 1; }

cleanup() {
    status=$?
    if [ "${CONSIGN_DEMO_KEEP:-}" = 1 ] && [ $status -eq 0 ]; then
        echo "kept: $work; processes:$processes; to go on:"
        echo "  export CONSIGN_HOME=$CONSIGN_HOME CONSIGN_ADDRESS=$CONSIGN_ADDRESS PATH=$bin:\$PATH"
        return
    fi
    for server in web-1 web-2 web-3; do
        pid=$work/$server/apps/guestbook/shared/data/pid
        [ ! -s "$pid" ] || kill "$(cat "$pid")" 2>/dev/null || true
    done
    for process in $processes; do kill "$process" 2>/dev/null || true; done
    for process in $processes; do wait "$process" 2>/dev/null || true; done
    if [ $status -ne 0 ]; then
        for log in "$work"/*.log; do echo "---- $log"; tail -n 20 "$log"; done >&2
    fi
    rm -rf "$work"
    return $status
}
trap cleanup EXIT
trap 'exit 130' INT TERM

# The version that `rollout start` must end with, or the demo has failed.
expect() {
    expected=$1
    shift
    code=0
    consign "$@" || code=$?
    [ "$code" -eq "$expected" ] || fail "exit code $code, expected $expected"
    echo "(exit code $code)"
}

pages() {
    for server in web-1 web-2 web-3; do
        port=$(cat "$work/$server/apps/guestbook/shared/data/port")
        printf '%s  http://127.0.0.1:%s/  ' "$server" "$port"
        "$bin/examples/guestbook" get "$work/$server/apps/guestbook/shared/data/port"
    done
}

say "The operator: two keys, a trust root, a bundle for the coordinator"
consign init --app guestbook --env staging --advertise 127.0.0.1

say "The coordinator, and three servers that enrol with single-use tokens"
"$bin/consign" serve --state "$work/coordinator" --listen 127.0.0.1:0 --enrolment-listen 127.0.0.1:0 \
    --advertise 127.0.0.1 --bundle "$CONSIGN_HOME/coordinator.bundle" >"$work/coordinator.log" 2>&1 &
processes="$processes $!"
tries=0
until [ -s "$work/coordinator/addresses.json" ]; do
    tries=$((tries + 1))
    [ $tries -lt 100 ] || fail "the coordinator does not start"
    sleep 0.1
done
CONSIGN_ADDRESS=$(sed 's/.*"address": *"\([^"]*\)".*/\1/' "$work/coordinator/addresses.json")
export CONSIGN_ADDRESS

for server in web-1 web-2 web-3; do
    mkdir -p "$work/$server/apps/guestbook/shared/data"
    token=$("$bin/consign" server token --name "$server" --env staging 2>/dev/null)
    show "consign-agent enroll <token> --allow-app guestbook --allow-user $(id -un)"
    "$bin/consign-agent" enroll "$token" --yes --allow-app guestbook --allow-user "$(id -un)" --label role=web \
        --state "$work/$server/state" --apps "$work/$server/apps" --config "$work/$server/agent.toml" >"$work/$server.log" 2>&1
    "$bin/consign-agent" run \
        --state "$work/$server/state" --apps "$work/$server/apps" --config "$work/$server/agent.toml" >>"$work/$server.log" 2>&1 &
    processes="$processes $!"
done
tries=0
until [ "$("$bin/consign" server list --output json | grep -o '"online": *true' | wc -l)" -eq 3 ]; do
    tries=$((tries + 1))
    [ $tries -lt 100 ] || fail "the agents do not connect"
    sleep 0.1
done
consign server list

write_source() {
    rm -rf "$work/source"
    cp -R "$here/guestbook" "$work/source"
    cp "$bin/examples/guestbook" "$work/source/bin/guestbook"
}

say "Version 1.0.0: packed, signed here, published, rolled out; the migration runs"
write_source
consign artifact publish "$work/source" --version 1.0.0
expect 0 rollout start guestbook@1.0.0 --env staging --follow
pages

say "Version 2.0.0: the same migrations, so that step is skipped, and says why"
consign artifact publish "$work/source" --version 2.0.0
expect 0 rollout start guestbook@2.0.0 --env staging --wave 1 --wave 100% --follow
pages

say "Version 3.0.0 is not healthy: the first server goes back by itself, the others are never touched"
consign artifact publish "$work/source" --version 3.0.0
expect 4 rollout start guestbook@3.0.0 --env staging --wave 1 --wave 100% --follow
pages

say "Done. How to go on"
cat <<'END'
  CONSIGN_DEMO_KEEP=1 make demo    keeps coordinator, agents and app running, for rollout list, rollout logs ID and the rest
  README.md, docs/guide.md         install both parts on real servers
END
