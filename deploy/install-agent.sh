#!/bin/sh
# Installs or upgrades the consign agent on this server: install-agent.sh [BINARY] [--enroll TOKEN OPTION...]
#
#   BINARY     the consign-agent to install (default: the one beside this script)
#   --enroll   and enrol the server: what follows goes to `consign-agent enroll`; then start it
#
# Run it as root. Run it again to upgrade: steps that are running go on under the new agent.
set -eu

here=$(CDPATH='' cd -- "$(dirname -- "$0")" && pwd)
binary=$here/consign-agent
fail() { echo "install-agent.sh: $*" >&2; exit 1; }

case ${1:-} in
    -h | --help) sed -n '2,8s/^# \{0,1\}//p' "$0"; exit 0 ;;
    --enroll | '') ;;
    -*) fail "unknown option $1; see --help" ;;
    *) binary=$1; shift ;;
esac
enrol=no
if [ $# -gt 0 ]; then
    [ "$1" = --enroll ] || fail "unknown argument $1; see --help"
    [ $# -ge 2 ] || fail "--enroll needs the token that 'consign server token' printed"
    enrol=yes
    shift
fi
[ "$(id -u)" -eq 0 ] || fail "run it as root"
[ -f "$binary" ] || fail "no binary at $binary; give its path: install-agent.sh PATH/consign-agent"
[ -d /run/systemd/system ] || fail "systemd does not run here; start 'consign-agent run' by your own means"
"$binary" --version >/dev/null || fail "$binary does not run on this system"

# Under another name first, then renamed: a running agent keeps its file, and a broken copy never gets the name.
put() {
    install -m "$1" "$2" "$3.new"
    mv -f "$3.new" "$3"
}

changed=no
cmp -s "$binary" /usr/local/bin/consign-agent || changed=yes
units="consign-agent.service consign-confirm.service consign.slice"
for unit in $units; do
    cmp -s "$here/systemd/$unit" "/etc/systemd/system/$unit" || changed=yes
done

install -d -m 0755 /usr/local/bin /srv /etc/consign
put 0755 "$binary" /usr/local/bin/consign-agent
for unit in $units; do
    put 0644 "$here/systemd/$unit" "/etc/systemd/system/$unit"
done
systemctl daemon-reload
# The second one returns at boot what nobody confirmed before it; it runs only then.
systemctl --quiet enable consign-agent.service consign-confirm.service

# A token is good once: a server that is enrolled already keeps its identity, unless --replace is among the options.
if [ "$enrol" = yes ]; then
    /usr/local/bin/consign-agent enroll "$@"
    systemctl restart consign-agent.service
    /usr/local/bin/consign-agent status
elif [ ! -e /etc/consign/agent.toml ]; then
    echo "$(/usr/local/bin/consign-agent --version) is installed. Next:"
    echo "  1. where you have the operator's profile:  consign server token --name NAME --env ENVIRONMENT"
    echo "  2. here:  $0 --enroll TOKEN --allow-app APP --allow-user USER --allow-unit UNIT"
elif [ "$changed" = yes ]; then
    systemctl restart consign-agent.service
    echo "$(/usr/local/bin/consign-agent --version) is installed and running."
else
    systemctl start consign-agent.service
    echo "$(/usr/local/bin/consign-agent --version) was installed already; nothing changed."
fi
