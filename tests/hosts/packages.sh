#!/bin/sh
# Installs what the tests need beyond Rust, by Debian package name. Says what it does; does nothing where all is there.
#   mmdebstrap         builds the Debian tree that the test hosts boot from
#   systemd-container  systemd-nspawn, which boots them
#   iproute2           the bridge between them
#   python3, python3-pip, npm, git, tar: archives and packages as their users make them
#   faketime           a server whose clock is two hours off
#   python3-yaml       reads the templates for CI
#   openssh-client     ssh-keygen, ssh-agent: signatures that they make and check
#   haproxy, socat, nginx: the load balancers of deploy/examples, and how HAProxy is talked to
set -eu
missing=
need() { command -v "$1" >/dev/null 2>&1 || [ -x "/usr/sbin/$1" ] || missing="$missing $2"; }
need mmdebstrap mmdebstrap
need systemd-nspawn systemd-container
need ip iproute2
need python3 python3
python3 -c 'import yaml' >/dev/null 2>&1 || missing="$missing python3-yaml"
need pip3 python3-pip
need npm npm
need git git
need tar tar
need nsenter util-linux
need curl curl
need faketime faketime
need haproxy haproxy
need socat socat
need nginx nginx
need pgrep procps
need flock util-linux
need ssh-keygen openssh-client
[ -n "$missing" ] || exit 0
echo "installing Debian packages for the tests:$missing"
if [ "$(id -u)" -ne 0 ]; then
    echo "packages.sh: not root; install them with: sudo apt-get install$missing" >&2
    exit 1
fi
apt-get update -q
# The balancers' own services are not for the tests, and must not take this machine's port 80.
if [ ! -e /usr/sbin/policy-rc.d ]; then
    trap 'rm -f /usr/sbin/policy-rc.d' EXIT
    printf '#!/bin/sh\nexit 101\n' >/usr/sbin/policy-rc.d
    chmod 755 /usr/sbin/policy-rc.d
fi
# Word splitting is meant: one argument per package.
# shellcheck disable=SC2086
DEBIAN_FRONTEND=noninteractive apt-get install -y -q --no-install-recommends $missing
