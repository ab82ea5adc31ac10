# Shared by the scripts beside it: progress lines, packages, the build. Sourced, not run.
set -eu
cd "$(dirname "$0")/../.."
top=$PWD
target=${CARGO_TARGET_DIR:-$top/target}
started=$(date +%s)

# step TEXT: one line of progress with the seconds since the start
step() { printf '[%4ss] %s\n' "$(($(date +%s) - started))" "$*"; }
die() { printf '%s: %s\n' "$(basename "$0")" "$*" >&2; exit 1; }

# need_packages NAME...: installs Debian packages that are missing, through sudo when not root
need_packages() {
    missing=
    for package in "$@"; do
        dpkg-query -W -f='${Status}' "$package" 2>/dev/null | grep -q 'ok installed' || missing="$missing $package"
    done
    [ -n "$missing" ] || return 0
    if [ "$(id -u)" = 0 ]; then
        sudo=
    elif command -v sudo >/dev/null 2>&1 && sudo -n true 2>/dev/null; then
        sudo="sudo -n"
    else
        die "these packages are missing and may not be installed by $(id -un):$missing; as root: apt-get install$missing"
    fi
    step "installing$missing"
    # shellcheck disable=SC2086 # words are meant to split
    { $sudo apt-get -qq update && DEBIAN_FRONTEND=noninteractive $sudo apt-get -qq -y --no-install-recommends install $missing; } \
        >"${TMPDIR:-/tmp}/flux-apt.$$.log" 2>&1 || { cat "${TMPDIR:-/tmp}/flux-apt.$$.log" >&2; die "could not install$missing"; }
    rm -f "${TMPDIR:-/tmp}/flux-apt.$$.log"
}

need_rust() {
    command -v cargo >/dev/null 2>&1 || die "cargo is missing: install Rust 1.95 (rustup.rs)"
    have=$(rustc -V | awk '{print $2}')
    [ "$(printf '1.95\n%s\n' "$have" | sort -V | head -n 1)" = 1.95 ] || die "Rust 1.95 or later is needed, this is $have"
}

# what building needs, on a bare Debian 12
build_packages="gcc libc6-dev make pkg-config libhwloc-dev libudev-dev"

# xtask WORD...: as the build of the workspace has made it; a build of its own (`cargo run -p xtask`) would be one with other features
xtask() { "$target/debug/xtask" "$@"; }

# what makes the bytes of flux-imp the same in every directory and for every user
reproducible_flags() { printf '%s' "--remap-path-prefix=$PWD=/flux --remap-path-prefix=${CARGO_HOME:-$HOME/.cargo}=/cargo"; }
