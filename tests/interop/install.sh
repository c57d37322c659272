#!/bin/sh
# Installs the Python packages of requirements.txt from the package registry into target/interop, for this Python, and
# prints where. Does nothing where they are there. The system's own packages are not touched.
set -eu
cd "$(dirname "$0")/../.."
mkdir -p target/interop
exec 9>target/interop/lock
flock 9
version=$(python3 -c 'import sys; print("%d.%d" % sys.version_info[:2])')
dir=target/interop/python-$version-$(cksum <tests/interop/requirements.txt | cut -d ' ' -f 1)
if [ ! -e "$dir" ]; then
    rm -rf "$dir.new"
    python3 -m pip install --quiet --disable-pip-version-check --root-user-action ignore --no-deps \
        --only-binary :all: --target "$dir.new" --requirement tests/interop/requirements.txt >&2
    mv "$dir.new" "$dir"
fi
echo "$PWD/$dir"
