#!/bin/sh
# shellcheck disable=SC2013,SC2016 # names have no spaces, and backquotes are what is looked for
# Names that the documents give must be there: tests that SECURITY.md and docs/attacks.md stand on, refusals and whatever
# else has a name of words and dashes; and every refusal must be in docs/formats.md.
set -eu
cd "$(dirname "$0")/../.."
missing=0
miss() {
    echo "$1" >&2
    missing=1
}
# `a_test`, or `module::a_test`, of at least two words.
tests() {
    grep -o '`[a-z0-9_:]*`' "$1" | tr -d '`' | sed 's/.*:://' | grep '^[a-z0-9]*_[a-z0-9_]*$' | sort -u
}
list=$(mktemp)
trap 'rm -f "$list" "$list".*' EXIT
# A test is a function with the attribute on one of the lines before it.
git ls-files -co --exclude-standard '*.rs' | xargs awk '
    /^ *#\[(tokio::)?test/ { left = 6 }
    left > 0 && /fn [a-z0-9_]+/ { sub(/.*fn /, ""); sub(/[^a-z0-9_].*/, ""); print; left = 0 }
    { left-- }
' | sort -u >"$list"
sed -n '/^## What stands behind each clause/,/^## What is not promised/p' SECURITY.md | grep '^|' >"$list.security"
grep -e '^Test:' -e '^| A' docs/attacks.md >"$list.attacks"
for document in security attacks; do
    for name in $(tests "$list.$document"); do
        grep -qx "$name" "$list" || miss "$document: there is no test $name"
    done
done
# A row of SECURITY.md without a test promises what nothing shows.
awk -F'|' 'NR > 2 && $3 !~ /`/ { print "SECURITY.md: no test for" $2; failed = 1 } END { exit failed }' "$list.security" >&2 || missing=1

# Words and dashes in backquotes, as they stand in code, in a test's expectation or in a file that is shipped.
sources() {
    git ls-files -co --exclude-standard '*.rs' '*.proto' '*.sh' '*.toml' '*.sql' '*.service' '*.html' '*.js' '*.yml' '*.yaml' '*.json' \
        '*.conf' '*.deb' Makefile 'deploy/*' '.ci/*' 'tests/*'
}
for name in $(grep -oh '`[a-z][a-z0-9]*\(-[a-z0-9]*[a-z0-9]\)\+`' docs/*.md README.md SECURITY.md | tr -d '`' | sort -u); do
    sources | xargs grep -qF -e "$name" || miss "docs: $name is nowhere in the code"
done
for name in $(sed -n '/pub fn code(/,/^    }/s/.*=> "\([a-z-]*\)",.*/\1/p' common/src/trust/refusal.rs | sort -u); do
    grep -qF "\`$name\`" docs/formats.md || miss "docs/formats.md does not name the refusal $name"
done
exit "$missing"
