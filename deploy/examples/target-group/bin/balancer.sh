#!/bin/sh
# Takes this server out of its target groups, and puts it back: balancer.sh drain | ready
#
# Both may be run again at any time. Which target this server is stands in the environment, or in config/target.env:
#   TARGET_ID       an instance's id or an IP address, as it is registered
#   TARGET_PORT     only where it is registered with a port of its own
#   TARGET_GROUPS   ARNs, with spaces between them
# and AWS_REGION, and what else the AWS command line needs. The rest comes from the plan's parameters (consign.toml):
#   AWS DRAIN_SECONDS DRAIN_OVERDUE LEAST_OTHERS OTHERS_SECONDS READY_SECONDS POLL_SECONDS
set -euf

say() { echo "$*"; }
fail() { echo "$*" >&2; exit 1; }

if [ -z "${TARGET_ID:-}" ]; then
    [ -r config/target.env ] || fail "neither TARGET_ID nor config/target.env says which target this server is"
    set -a
    # shellcheck source=/dev/null
    . ./config/target.env
    set +a
fi
: "${TARGET_ID:?}" "${TARGET_GROUPS:?}" "${AWS:?}" "${DRAIN_SECONDS:?}" "${DRAIN_OVERDUE:?}" "${LEAST_OTHERS:?}"
: "${OTHERS_SECONDS:?}" "${READY_SECONDS:?}" "${POLL_SECONDS:?}"
target=Id=$TARGET_ID${TARGET_PORT:+,Port=$TARGET_PORT}
# Version 2 would open a pager.
export AWS_PAGER=

# Seconds by a clock that nobody sets.
now() { read -r up _ </proc/uptime; echo "${up%%.*}"; }

# Ends also when AWS does not answer; it retries by itself what may be retried.
elbv2() { timeout -k 5 90 "$AWS" elbv2 "$@" --cli-connect-timeout 10 --cli-read-timeout 20 </dev/null; }

# Sets `state` and `reason` of this server in a group, and `others`: how many more are healthy. A target that is not
# registered, or whose draining has ended, is not listed. Looking is repeated: a look that fails changes nothing.
look() {
    tries=0
    while :; do
        code=0
        listed=$(elbv2 describe-target-health --target-group-arn "$1" --output text \
            --query 'TargetHealthDescriptions[].[Target.Id,Target.Port,TargetHealth.State,TargetHealth.Reason]') || code=$?
        [ "$code" -ne 0 ] || break
        tries=$((tries + 1))
        [ "$tries" -lt 5 ] || fail "cannot see the health of $1: exit code $code from $AWS, $tries times in a row"
        sleep "$POLL_SECONDS"
    done
    state=unused
    reason=Target.NotRegistered
    others=0
    position=0
    seen=0
    while read -r id port its_state its_reason; do
        if [ "$id" = "$TARGET_ID" ] && { [ -z "${TARGET_PORT:-}" ] || [ "$port" = "$TARGET_PORT" ]; }; then
            state=$its_state
            reason=$its_reason
            position=$seen
        elif [ "$its_state" = healthy ]; then
            others=$((others + 1))
        fi
        seen=$((seen + 1))
    done <<END
$listed
END
}

# Never the last one: where too few others would remain, it waits for them to come back, as after a rollback that
# reaches all servers at once.
take_out() {
    until=$(($(now) + OTHERS_SECONDS))
    told=
    while :; do
        look "$1"
        was=$state
        # `unused` is also a target that is registered, in a group that no load balancer uses.
        if [ "$was" = draining ] || [ "$reason" = Target.NotRegistered ]; then
            say "$target is out of $1 already: $was ($reason)"
            return
        fi
        if [ "$was" != healthy ] || [ "$others" -ge "$LEAST_OTHERS" ]; then
            elbv2 deregister-targets --target-group-arn "$1" --targets "$target" ||
                fail "cannot deregister $target from $1"
            look "$1"
            if [ "$was" != healthy ] || [ "$others" -ge "$LEAST_OTHERS" ]; then
                say "$target gets no new requests from $1; $others others are healthy"
                return
            fi
            # Another one was taken out at the same moment.
            elbv2 register-targets --target-group-arn "$1" --targets "$target" ||
                fail "cannot register $target again with $1"
        fi
        [ -n "$told" ] || say "waiting: $others others are healthy in $1, there must be $LEAST_OTHERS"
        told=yes
        [ "$(now)" -lt "$until" ] ||
            fail "$others others are healthy in $1 after $OTHERS_SECONDS s, there must be $LEAST_OTHERS: not drained"
        # Not in step with the others that wait.
        sleep "$POLL_SECONDS"
        sleep $((position % 10))
    done
}

drain() {
    # Orders that come to all servers at once do not look at the same moment.
    look "${TARGET_GROUPS%% *}"
    sleep $((position % 10))
    for group in $TARGET_GROUPS; do
        take_out "$group"
    done
    until=$(($(now) + DRAIN_SECONDS))
    for group in $TARGET_GROUPS; do
        told=
        while :; do
            look "$group"
            [ "$state" != unused ] || break
            [ "$state" = "$told" ] || say "$group: $state"
            told=$state
            if [ "$(now)" -ge "$until" ]; then
                [ "$DRAIN_OVERDUE" = go-on ] ||
                    fail "OVERDUE: still $state in $group after $DRAIN_SECONDS s; not going on (drain_overdue is $DRAIN_OVERDUE)"
                say "OVERDUE: still $state in $group after $DRAIN_SECONDS s, open requests WILL BE CUT OFF: drain_overdue is go-on"
                break
            fi
            sleep "$POLL_SECONDS"
        done
    done
    say "$target is out of rotation"
}

# In rotation means that the groups' own checks have found it healthy: only then may the next server be drained.
ready() {
    for group in $TARGET_GROUPS; do
        elbv2 register-targets --target-group-arn "$group" --targets "$target" ||
            fail "cannot register $target with $group"
    done
    until=$(($(now) + READY_SECONDS))
    for group in $TARGET_GROUPS; do
        told=
        while :; do
            look "$group"
            [ "$state" != healthy ] || break
            [ "$state $reason" = "$told" ] || say "$group: $state ($reason)"
            told="$state $reason"
            [ "$(now)" -lt "$until" ] || fail "$target is $state ($reason) in $group after $READY_SECONDS s"
            sleep "$POLL_SECONDS"
        done
        say "$target is healthy in $group"
    done
}

case ${1:-} in
    drain) drain ;;
    ready) ready ;;
    *) fail "balancer.sh drain | ready" ;;
esac
