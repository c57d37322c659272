#!/bin/sh
# Every shell script of the project must parse; shellcheck, where it is there, must have nothing to say.
set -eu
cd "$(dirname "$0")/../.."
for script in $(git ls-files '*.sh' .ci/run); do
    sh -n "$script"
done
if command -v shellcheck >/dev/null 2>&1; then
    git ls-files '*.sh' .ci/run | xargs shellcheck --shell=sh
fi
