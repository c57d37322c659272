#!/bin/sh
# Installs or upgrades the consign coordinator on this machine: install-coordinator.sh [--bundle FILE] [BINARY]
#
#   --bundle FILE   coordinator.bundle, as `consign init` wrote it; needed the first time only
#   BINARY          the consign to install (default: the one beside this script)
#
# Run it as root. Run it again to upgrade: agents go on with their work and reconnect.
set -eu

here=$(CDPATH='' cd -- "$(dirname -- "$0")" && pwd)
bundle=
binary=$here/consign
fail() { echo "install-coordinator.sh: $*" >&2; exit 1; }

while [ $# -gt 0 ]; do
    case $1 in
        -h | --help) sed -n '2,7s/^# \{0,1\}//p' "$0"; exit 0 ;;
        --bundle) [ $# -ge 2 ] || fail "--bundle needs a file"; bundle=$2; shift 2 ;;
        -*) fail "unknown option $1; see --help" ;;
        *) binary=$1; shift ;;
    esac
done
[ "$(id -u)" -eq 0 ] || fail "run it as root"
[ -f "$binary" ] || fail "no binary at $binary; give its path: install-coordinator.sh PATH/consign"
[ -z "$bundle" ] || [ -f "$bundle" ] || fail "no bundle at $bundle"
[ -d /run/systemd/system ] || fail "systemd does not run here; start 'consign serve' by your own means"
"$binary" --version >/dev/null || fail "$binary does not run on this system"

put() {
    install -m "$1" "$2" "$3.new"
    mv -f "$3.new" "$3"
}

changed=no
cmp -s "$binary" /usr/local/bin/consign || changed=yes
cmp -s "$here/systemd/consign.service" /etc/systemd/system/consign.service || changed=yes

if ! getent passwd consign >/dev/null; then
    useradd --system --home-dir /var/lib/consign --no-create-home --shell /usr/sbin/nologin consign
fi
install -d -m 0755 /usr/local/bin /etc/consign
install -d -m 0700 -o consign -g consign /var/lib/consign
put 0755 "$binary" /usr/local/bin/consign
put 0644 "$here/systemd/consign.service" /etc/systemd/system/consign.service
if [ -n "$bundle" ]; then
    install -m 0600 -o consign -g consign "$bundle" /var/lib/consign/coordinator.bundle.new
    mv -f /var/lib/consign/coordinator.bundle.new /var/lib/consign/coordinator.bundle
    changed=yes
fi
systemctl daemon-reload
systemctl --quiet enable consign.service

if [ ! -e /var/lib/consign/coordinator.bundle ] && [ ! -e /var/lib/consign/consign.db ]; then
    echo "$(/usr/local/bin/consign --version) is installed. Next: run 'consign init' on your own machine, bring its"
    echo "coordinator.bundle here, and run this again with --bundle coordinator.bundle"
elif [ "$changed" = yes ]; then
    systemctl restart consign.service
    echo "$(/usr/local/bin/consign --version) is installed and running."
else
    systemctl start consign.service
    echo "$(/usr/local/bin/consign --version) was installed already; nothing changed."
fi
