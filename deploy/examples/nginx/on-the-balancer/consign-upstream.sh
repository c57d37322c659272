#!/bin/sh
# Takes a server out of an nginx upstream, and puts it back. For the machine where nginx runs; install it as
# /usr/local/sbin/consign-upstream.
#
#   consign-upstream drain NAME SECONDS OTHERS_SECONDS    ends with 3 if requests of before are still open after SECONDS
#   consign-upstream ready NAME
#   consign-upstream show
#
# The upstream's file has one server a line, with its name in a comment at the end, and this adds and removes `down`:
#   server 10.0.0.11:8080;    # web-1
# The file is replaced as a whole, and only for as long as `nginx -t` and the reload succeed; otherwise the one before is
# put back, and nginx runs on as it did. Settings are in /etc/consign-upstream.conf.
set -euf

say() { echo "$*"; }
fail() { echo "$*" >&2; exit 1; }

# Seconds by a clock that nobody sets.
now() { read -r up _ </proc/uptime; echo "${up%%.*}"; }

# By ssh, as the forced command of a key that may do nothing else.
# shellcheck disable=SC2086
[ -z "${SSH_ORIGINAL_COMMAND:-}" ] || set -- $SSH_ORIGINAL_COMMAND

file=/etc/nginx/upstreams/shop.conf
nginx=nginx
pid_file=/run/nginx.pid
least_others=1
settings=${CONSIGN_UPSTREAM_CONF:-/etc/consign-upstream.conf}
# shellcheck source=/dev/null
[ ! -e "$settings" ] || . "$settings"
exec </dev/null

number() { case $1 in '' | *[!0-9]* | ?????*) fail "not a number of seconds: $1" ;; esac; }
server_name() { case $1 in '' | *[!a-z0-9.-]*) fail "not a server's name: $1" ;; esac; }

# `in`, `out` or `backup`, and the name, of every server.
listed() {
    awk '$1 == "server" && match($0, /#[ \t]*[^ \t#]+[ \t]*$/) {
        name = substr($0, RSTART + 1); gsub(/[ \t]/, "", name)
        line = substr($0, 1, RSTART - 1)
        print (line ~ /[ \t]down[ \t;]/ ? "out" : line ~ /[ \t]backup[ \t;]/ ? "backup" : "in"), name
    }' "$file"
}

# Sets `place`: where this server is.
known() {
    place=$(listed | awk -v name="$1" '$2 == name { print $1 }')
    case $place in
        in | out | backup) ;;
        '') fail "no server of $file has the name $1" ;;
        *) fail "several servers of $file have the name $1" ;;
    esac
}

# The file with this server `out` or `in`.
edited() {
    awk -v wanted="$1" -v way="$2" '
        $1 == "server" && match($0, /#[ \t]*[^ \t#]+[ \t]*$/) {
            name = substr($0, RSTART + 1); gsub(/[ \t]/, "", name)
            comment = substr($0, RSTART); line = substr($0, 1, RSTART - 1)
            if (name == wanted) {
                if (way == "in") while (sub(/[ \t]+down[ \t]*;/, ";", line) || sub(/[ \t]+down[ \t]+/, " ", line)) { }
                else if (line !~ /[ \t]down[ \t;]/) sub(/;/, " down;", line)
                $0 = line comment
            }
        }
        { print }' "$file"
}

valid() {
    words=$(timeout 30 $nginx -t 2>&1) || return 1
}

workers() { pgrep -P "$master" | tr '\n' ' '; }

# How many of these workers are there still.
left_of() {
    count=0
    current=" $(workers)"
    for worker in $1; do
        case $current in *" $worker "*) count=$((count + 1)) ;; esac
    done
    echo "$count"
}

any_new() {
    for worker in $(workers); do
        case " $old" in *" $worker "*) ;; *) return 0 ;; esac
    done
    return 1
}

lock() {
    exec 9>"$file.lock"
    timeout 60 flock 9 || fail "another change of $file does not end"
    # A run before this was killed between its change and its end: what stands is judged as any other.
    if [ -e "$file.before" ]; then
        if valid; then
            rm "$file.before"
        else
            say "putting back what stood before a change that was never finished"
            mv "$file.before" "$file"
        fi
    fi
}
unlock() { exec 9>&-; }

# Word splitting of $nginx is meant: a command and its options.
# shellcheck disable=SC2086
change() {
    name=$1 way=$2
    valid || fail "nginx -t fails before any change; nothing was touched: $words"
    master=$(cat "$pid_file") || fail "nginx does not run: there is no $pid_file"
    old=$(workers)
    [ -n "$old" ] || fail "nginx does not run: process $master has no workers"

    cp -p "$file" "$file.new"
    cp -p "$file" "$file.keep"
    edited "$name" "$way" >"$file.new"
    sync "$file.new" "$file.keep"
    mv "$file.keep" "$file.before"
    # From here on, whatever ends this run puts the file back.
    trap 'mv "$file.before" "$file"' EXIT
    trap 'exit 1' HUP INT TERM
    mv "$file.new" "$file"
    valid || fail "nginx -t refuses $name $way; the file is as it was, nothing was reloaded: $words"
    # Also where the file was so already: a run that was killed may not have come so far.
    timeout 30 $nginx -s reload || fail "nginx cannot be told to reload; the file is as it was"
    until=$(($(now) + 20))
    while :; do
        # nginx goes on with its old workers alone where it cannot take up what `nginx -t` accepted.
        ! any_new || break
        [ "$(now)" -lt "$until" ] || fail "nginx did not take up $file, see its error log; the file is as it was"
        sleep 0.1
    done
    trap - EXIT HUP INT TERM
    rm "$file.before"
}

# Never the last one: where too few others would remain, it waits for them to come back, as after a rollback that
# reaches all servers at once.
drain() {
    until=$(($(now) + $3))
    told=
    while :; do
        lock
        known "$1"
        others=$(listed | awk -v name="$1" '$1 == "in" && $2 != name { count++ } END { print count + 0 }')
        # One that is out, or a backup, takes nothing away.
        if [ "$place" != in ] || [ "$others" -ge "$least_others" ]; then break; fi
        unlock
        [ -n "$told" ] || say "waiting: $others others in rotation, there must be $least_others"
        told=yes
        [ "$(now)" -lt "$until" ] || fail "$others others in rotation after $3 s, there must be $least_others: not drained"
        sleep 0.5
    done
    change "$1" out
    unlock
    say "$1 gets no new requests"
    until=$(($(now) + $2))
    while [ "$(left_of "$old")" -gt 0 ]; do
        if [ "$(now)" -ge "$until" ]; then
            say "$(left_of "$old") workers of nginx still have requests of before, after $2 s"
            exit 3
        fi
        sleep 0.2
    done
    say "all requests of before have ended"
}

ready() {
    lock
    known "$1"
    change "$1" in
    unlock
    say "$1 is in rotation"
}

case ${1:-}/$# in
    drain/4) server_name "$2"; number "$3"; number "$4"; drain "$2" "$3" "$4" ;;
    ready/2) server_name "$2"; ready "$2" ;;
    show/1) listed ;;
    *) fail "consign-upstream drain NAME SECONDS OTHERS_SECONDS | ready NAME | show" ;;
esac
