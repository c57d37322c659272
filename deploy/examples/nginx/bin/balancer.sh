#!/bin/sh
# Takes this server out of nginx's rotation, and puts it back: balancer.sh drain | ready
#
# The work is done on the machine where nginx runs, by consign-upstream; this asks for it on every one of them, and
# decides what a drain that does not end means. Both may be run again at any time. From the plan's parameters:
#   BALANCERS DRAIN_SECONDS DRAIN_OVERDUE OTHERS_SECONDS
set -euf

say() { echo "$*"; }
fail() { echo "$*" >&2; exit 1; }

: "${CONSIGN_SERVER:?}" "${BALANCERS:?}" "${DRAIN_SECONDS:?}" "${DRAIN_OVERDUE:?}" "${OTHERS_SECONDS:?}"
overdue=

# Ends also when the other machine does not. What it says is in this step's log.
on_balancer() {
    command=$1
    shift
    code=0
    # Word splitting is meant: the parameter is a command.
    # shellcheck disable=SC2086
    timeout -k 5 $((DRAIN_SECONDS + OTHERS_SECONDS + 120)) $command "$@" </dev/null || code=$?
    case $code in
        0) ;;
        3) overdue=yes ;;
        124 | 137) fail "no end of: $command $*" ;;
        *) fail "exit code $code from: $command $*" ;;
    esac
}

on_all() {
    while read -r command; do
        [ -z "$command" ] || on_balancer "$command" "$@"
    done <<END
$BALANCERS
END
}

case ${1:-} in
    drain)
        on_all drain "$CONSIGN_SERVER" "$DRAIN_SECONDS" "$OTHERS_SECONDS"
        if [ -z "$overdue" ]; then
            say "drained"
        elif [ "$DRAIN_OVERDUE" = go-on ]; then
            say "OVERDUE: requests of before are still open after $DRAIN_SECONDS s and WILL BE CUT OFF: drain_overdue is go-on"
        else
            fail "OVERDUE: requests of before are still open after $DRAIN_SECONDS s; not going on (drain_overdue is $DRAIN_OVERDUE)"
        fi
        ;;
    ready) on_all ready "$CONSIGN_SERVER" ;;
    *) fail "balancer.sh drain | ready" ;;
esac
