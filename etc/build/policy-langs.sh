#!/bin/sh
# Gets the tool chains that build policies in other languages, once, for the tests: policy-langs.sh DIR [c|all]
# C comes from PyPI (80 MB), Python from there, too, JavaScript from npm (another 150 MB; both make components that take a minute to compile).
# What cannot be had here is said and left out; the tests that need it are skipped and counted.
set -u
dir=${1:?usage: policy-langs.sh DIR [c|all]}
langs=${2:-c}
python_packages="ziglang==0.17.0"
[ "$langs" != all ] || python_packages="$python_packages componentize-py==0.25.1"
node_package="@bytecodealliance/componentize-js@0.23.0"
mkdir -p "$dir" || exit 1
exec 9>"$dir/.lock"
flock 9

without() { printf 'policies in %s: %s\n' "$1" "$2" >&2; }

if [ "$(cat "$dir/venv/.packages" 2>/dev/null)" != "$python_packages" ]; then
    rm -rf "$dir/venv"
    # shellcheck disable=SC2086 # words are meant to split
    if ! command -v python3 >/dev/null 2>&1 || ! python3 -m venv "$dir/venv" >"$dir/venv.log" 2>&1; then
        without "Python and C" "python3 with venv is missing"
    elif "$dir/venv/bin/pip" --quiet --disable-pip-version-check install $python_packages >"$dir/venv.log" 2>&1; then
        printf '%s' "$python_packages" >"$dir/venv/.packages"
    else
        without "Python and C" "pip cannot install $python_packages; see $dir/venv.log"
    fi
fi

if [ "$langs" = all ] && [ "$(cat "$dir/node_modules/.packages" 2>/dev/null)" != "$node_package" ]; then
    rm -rf "$dir/node_modules"
    printf '{"private": true}\n' >"$dir/package.json"
    if ! command -v node >/dev/null 2>&1 || ! command -v npm >/dev/null 2>&1; then
        without JavaScript "node and npm are missing"
    elif (cd "$dir" && npm install --silent --no-audit --no-fund --save-exact "$node_package") >"$dir/npm.log" 2>&1; then
        printf '%s' "$node_package" >"$dir/node_modules/.packages"
    else
        without JavaScript "npm cannot install $node_package; see $dir/npm.log"
    fi
fi
exit 0
