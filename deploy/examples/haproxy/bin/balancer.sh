#!/bin/sh
# Takes this server out of HAProxy's rotation, and puts it back: balancer.sh drain | ready
#
# Both may be run again at any time. What they need comes from the plan's parameters (consign.toml says what each means):
#   BALANCERS BACKENDS DRAIN_SECONDS DRAIN_OVERDUE LEAST_OTHERS OTHERS_SECONDS READY_SECONDS
# The server's name in HAProxy is CONSIGN_SERVER. A server that somebody put into maintenance (`state maint`) is left so.
set -euf

say() { echo "$*"; }
fail() { echo "$*" >&2; exit 1; }

# Seconds by a clock that nobody sets.
now() { read -r up _ </proc/uptime; echo "${up%%.*}"; }

# Every look at a balancer ends, also when the balancer does not answer.
ask() {
    answer=$(printf '%s\n' "$2" | timeout 10 socat -t 60 - "$1") || fail "$1 does not answer to: $2"
    printf '%s\n' "$answer"
}

# HAProxy answers a change with an empty line, and with words when it refuses.
change() {
    answer=$(ask "$1" "$2")
    [ -z "$answer" ] || fail "$1 refused: $2: $answer"
}

# Every server of a backend, as `name op_state admin_state`.
servers() {
    answer=$(ask "$1" "show servers state $2")
    printf '%s\n' "$answer" | awk '
        /^# / { for (i = 2; i <= NF; i++) column[$i] = i - 1; next }
        NF > 5 { print $column["srv_name"], $column["srv_op_state"], $column["srv_admin_state"]; found = 1 }
        END { exit !found }' || fail "$1 has no servers in backend $2: $answer"
}

# What `show stat` says of this server in these columns, added up or as words.
stat() {
    answer=$(ask "$1" "show stat")
    printf '%s\n' "$answer" | awk -F, -v backend="$2" -v server="$CONSIGN_SERVER" -v wanted="$3" '
        NR == 1 { sub(/^# /, ""); for (i = 1; i <= NF; i++) column[$i] = i; next }
        $column["pxname"] == backend && $column["svname"] == server {
            count = split(wanted, names, " ")
            for (i = 1; i <= count; i++) line = line (i > 1 ? " " : "") $column[names[i]]
            print line
        }'
}

# Sets `op` and `admin` of this server, and `others`: how many more of its backend get requests. Bits of the admin state:
# 8 and 16 drain, all others maintenance. An op state of 0 is down, 3 is leaving.
look() {
    listed=$(servers "$1" "$2")
    op=
    others=0
    position=0
    seen=0
    # Not in a pipe: what is set there would be lost.
    while read -r name its_op its_admin; do
        if [ "$name" = "$CONSIGN_SERVER" ]; then
            op=$its_op
            admin=$its_admin
            position=$seen
        elif [ "$its_admin" -eq 0 ] && { [ "$its_op" -eq 1 ] || [ "$its_op" -eq 2 ]; }; then
            others=$((others + 1))
        fi
        seen=$((seen + 1))
    done <<END
$listed
END
    [ -n "$op" ] || fail "$1 has no server $CONSIGN_SERVER in backend $2"
}

in_maintenance() { [ $((admin & ~24)) -ne 0 ]; }
drained() { [ $((admin & 24)) -ne 0 ]; }

# Never the last one: where too few others would remain, it waits for them to come back, as after a rollback that
# reaches all servers at once.
take_out() {
    until=$(($(now) + OTHERS_SECONDS))
    told=
    while :; do
        look "$1" "$2"
        if in_maintenance; then
            say "$2/$CONSIGN_SERVER is in maintenance at $1: left so"
            return
        elif drained; then
            say "$2/$CONSIGN_SERVER is drained at $1 already"
            return
        elif [ "$op" -eq 0 ] || [ "$others" -ge "$LEAST_OTHERS" ]; then
            change "$1" "set server $2/$CONSIGN_SERVER state drain"
            down=$op
            look "$1" "$2"
            drained || fail "$1 took the drain of $2/$CONSIGN_SERVER, and does not show it"
            if [ "$down" -eq 0 ] || [ "$others" -ge "$LEAST_OTHERS" ]; then
                say "$2/$CONSIGN_SERVER gets no new requests from $1; $others others do"
                return
            fi
            # Another one was taken out at the same moment.
            change "$1" "set server $2/$CONSIGN_SERVER state ready"
        fi
        [ -n "$told" ] || say "waiting: $others others in rotation at $1, there must be $LEAST_OTHERS"
        told=yes
        [ "$(now)" -lt "$until" ] ||
            fail "$others others in rotation at $1 after $OTHERS_SECONDS s, there must be $LEAST_OTHERS: not drained"
        # Not in step with the others that wait.
        sleep "$((position % 3)).$((position % 10))5"
    done
}

open_sessions() {
    sum=0
    for balancer in $BALANCERS; do
        for backend in $BACKENDS; do
            counts=$(stat "$balancer" "$backend" "scur qcur")
            [ -n "$counts" ] || fail "$balancer does not count $backend/$CONSIGN_SERVER"
            sum=$((sum + ${counts% *} + ${counts#* }))
        done
    done
    echo "$sum"
}

drain() {
    # Orders that come to all servers at once do not look at the same moment.
    look "${BALANCERS%% *}" "${BACKENDS%% *}"
    sleep "$((position % 10 / 3)).$((position % 10 % 3 * 3))"
    for balancer in $BALANCERS; do
        for backend in $BACKENDS; do
            take_out "$balancer" "$backend"
        done
    done
    until=$(($(now) + DRAIN_SECONDS))
    before=
    while :; do
        open=$(open_sessions)
        [ "$open" = "$before" ] || say "sessions open: $open"
        # Twice: one that was being assigned is seen the second time.
        if [ "$open" -eq 0 ] && [ "$before" = 0 ]; then
            say "drained"
            return
        fi
        if [ "$(now)" -ge "$until" ] && [ "$open" -ne 0 ]; then
            break
        fi
        before=$open
        sleep 0.3
    done
    case $DRAIN_OVERDUE in
        go-on) say "OVERDUE: $open sessions are still open after $DRAIN_SECONDS s and WILL BE CUT OFF: drain_overdue is go-on" ;;
        *) fail "OVERDUE: $open sessions are still open after $DRAIN_SECONDS s; not going on (drain_overdue is $DRAIN_OVERDUE)" ;;
    esac
}

# In rotation means that HAProxy's own check has found it up: only then may the next server be drained.
ready() {
    for balancer in $BALANCERS; do
        for backend in $BACKENDS; do
            look "$balancer" "$backend"
            if in_maintenance; then
                say "$backend/$CONSIGN_SERVER is in maintenance at $balancer: left so"
                continue
            fi
            change "$balancer" "set server $backend/$CONSIGN_SERVER state ready"
        done
    done
    until=$(($(now) + READY_SECONDS))
    for balancer in $BALANCERS; do
        for backend in $BACKENDS; do
            while :; do
                look "$balancer" "$backend"
                if in_maintenance; then
                    break
                elif [ "$admin" -eq 0 ] && { [ "$op" -eq 1 ] || [ "$op" -eq 2 ]; }; then
                    say "$backend/$CONSIGN_SERVER is in rotation at $balancer"
                    break
                fi
                [ "$(now)" -lt "$until" ] ||
                    fail "$balancer does not see $backend/$CONSIGN_SERVER up after $READY_SECONDS s: $(stat "$balancer" "$backend" "status check_status last_chk")"
                sleep 0.3
            done
        done
    done
}

: "${CONSIGN_SERVER:?}" "${BALANCERS:?}" "${BACKENDS:?}" "${DRAIN_SECONDS:?}" "${DRAIN_OVERDUE:?}"
: "${LEAST_OTHERS:?}" "${OTHERS_SECONDS:?}" "${READY_SECONDS:?}"
case ${1:-} in
    drain) drain ;;
    ready) ready ;;
    *) fail "balancer.sh drain | ready" ;;
esac
