#!/bin/sh
# Builds the Debian tree that every test host boots from: base.sh DIRECTORY. Built once; the hosts put overlays over it.
set -eu
tree=$1
[ ! -e "$tree/.complete" ] || exit 0
rm -rf "$tree"
mkdir -p "$(dirname "$tree")"
# The same Debian as this machine: the binaries under test are linked against its C library.
# shellcheck source=/dev/null
. /etc/os-release
echo "building the test hosts' Debian tree in $tree (about a minute)" >&2
mmdebstrap --quiet --variant=minbase \
    --include=systemd,systemd-sysv,dbus,libpam-systemd,iproute2,procps,python3,ca-certificates,curl \
    --dpkgopt='path-exclude=/usr/share/doc/*' --dpkgopt='path-exclude=/usr/share/man/*' \
    --dpkgopt='path-exclude=/usr/share/locale/*' \
    "${VERSION_CODENAME:?this machine is not a Debian release}" "$tree" >&2

# A host gets its own machine id at its first boot, and its address from a file that the harness writes.
rm -f "$tree/etc/machine-id" "$tree/var/lib/dbus/machine-id"
ln -sf /lib/systemd/system/systemd-networkd.service "$tree/etc/systemd/system/multi-user.target.wants/systemd-networkd.service"
# What a container cannot do, or what only costs time.
for unit in systemd-resolved systemd-timesyncd systemd-networkd-wait-online apt-daily.timer apt-daily-upgrade.timer \
    e2scrub_all.timer fstrim.timer dpkg-db-backup.timer systemd-logind systemd-firstboot getty@ console-getty container-getty@; do
    case $unit in *.timer) name=$unit ;; *) name=$unit.service ;; esac
    ln -sf /dev/null "$tree/etc/systemd/system/$name"
done
touch "$tree/.complete"
