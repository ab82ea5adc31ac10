#!/bin/sh
# Makes the standard library for wasm32-unknown-unknown available to the active rustc.
#
# Prints, on standard output, the RUSTFLAGS that a guest build needs (an empty line when the compiler has the target already);
# everything else goes to standard error.
#
# Ways, in this order, unless FLUX_WASM_STD chooses one:
#   1. the target is installed beside the compiler, or was built by an earlier call;
#   2. FLUX_WASM_STD=debian: std is built once (about half a minute) from the library sources of exactly this rustc: those
#      installed beside the compiler, or Debian's package rust-src (downloaded and unpacked, never installed; no root needed);
#   3. FLUX_WASM_STD=rustup: `rustup target add wasm32-unknown-unknown`.
#
# Other knobs: RUSTC, CARGO, OUT (where the built library is kept), RUST_SRC (a `library` directory to build from),
# FLUX_DEBIAN_MIRROR (default: the mirror this machine's apt uses).
set -eu

target=wasm32-unknown-unknown
RUSTC=${RUSTC:-rustc}
CARGO=${CARGO:-cargo}
OUT=${OUT:-$PWD/target/wasm-std}
way=${FLUX_WASM_STD:-any}
version=$($RUSTC -V | awk '{print $2}')
host=$($RUSTC -vV | awk '/^host:/ {print $2}')
tried=

say() { echo "wasm-std: $*" >&2; }
miss() { tried="$tried
  - $1: $2"; }
has_std() { ls "$1"/libstd-*.rlib >/dev/null 2>&1; }

case $way in
    any | debian | rustup) ;;
    *) say "FLUX_WASM_STD=$way is not known; use debian or rustup"; exit 2 ;;
esac

# --- 1. present ---------------------------------------------------------------------------------------------------------
if has_std "$($RUSTC --print target-libdir --target $target)"; then
    echo
    exit 0
fi
# rustc refuses libraries of another build of itself, so the stamp names the compiler in full
stamp=$($RUSTC -vV | sha256sum | cut -c1-32)
lib=$OUT/lib/rustlib/$target/lib
if has_std "$lib" && [ "$(cat "$OUT/stamp" 2>/dev/null)" = "$stamp" ]; then
    echo "--sysroot=$OUT"
    exit 0
fi
miss present "rustc $version has no $target"

# Two builds at once must not write one directory.
mkdir -p "$OUT"
if command -v flock >/dev/null 2>&1; then
    exec 9>"$OUT/lock"
    flock 9
    if has_std "$lib" && [ "$(cat "$OUT/stamp" 2>/dev/null)" = "$stamp" ]; then
        echo "--sysroot=$OUT"
        exit 0
    fi
fi

# --- 2. Debian's rust-src -----------------------------------------------------------------------------------------------
# Names the first Debian mirror in this machine's apt sources.
mirror() {
    if [ -n "${FLUX_DEBIAN_MIRROR:-}" ]; then
        echo "$FLUX_DEBIAN_MIRROR"
        return
    fi
    {
        cat /etc/apt/sources.list.d/*.sources 2>/dev/null | awk '$1 == "URIs:" {print $2}'
        cat /etc/apt/sources.list /etc/apt/sources.list.d/*.list 2>/dev/null |
            awk '$1 == "deb" {for (i = 2; i <= NF; i++) if ($i ~ /^[a-z+]+:\/\//) {print $i; break}}'
    } | grep -E '/debian/?$' | head -n 1
}

# Downloads rust-src of this version into $OUT/apt with a private apt state, and prints the library directory.
fetch_source() {
    work=$OUT/apt
    rm -rf "$work"
    mkdir -p "$work/lists/partial" "$work/cache/archives/partial"
    : >"$work/status"
    keyring=/usr/share/keyrings/debian-archive-keyring.gpg
    uri=$(mirror)
    [ -n "$uri" ] || { say "no Debian mirror in /etc/apt"; return 1; }
    [ -r $keyring ] || { say "$keyring is missing (package debian-archive-keyring)"; return 1; }
    for suite in ${FLUX_DEBIAN_SUITES:-trixie-backports sid}; do
        echo "deb [signed-by=$keyring] $uri $suite main"
    done >"$work/sources.list"
    cat >"$work/apt.conf" <<C
Dir::State::Lists "$work/lists";
Dir::State::status "$work/status";
Dir::Cache "$work/cache";
Dir::Etc::sourcelist "$work/sources.list";
Dir::Etc::sourceparts "/nonexistent";
Acquire::Languages "none";
Acquire::IndexTargets::deb::Contents-deb::DefaultEnabled "false";
APT::Sandbox::User "$(id -un)";
C
    APT_CONFIG=$work/apt.conf
    export APT_CONFIG
    apt-get -qq update >&2 || return 1
    found=$(apt-cache madison rust-src | awk -v v="$version" 'index($3, v "+") == 1 || index($3, v "-") == 1 {print $3; exit}')
    [ -n "$found" ] || { say "Debian has no rust-src $version in ${FLUX_DEBIAN_SUITES:-trixie-backports sid}"; return 1; }
    say "downloading rust-src $found"
    (cd "$work" && apt-get -qq download "rust-src=$found" >&2) || return 1
    # only the library: the rest of the package is the compiler
    (cd "$work" && dpkg --fsys-tarfile rust-src_*.deb | tar x --wildcards './usr/src/*/library' && rm -f rust-src_*.deb) || return 1
    ls -d "$work"/usr/src/*/library
}

# Builds std from the library directory $1 into $OUT.
build_std() {
    src=$1
    build=$OUT/build
    rm -rf "$build"
    mkdir -p "$build/src"
    cat >"$build/Cargo.toml" <<C
[package]
name = "wasm-std-stub"
version = "0.0.0"
edition = "2024"
[workspace]
[profile.release]
panic = "abort"
C
    echo '#![no_std]' >"$build/src/lib.rs"
    say "building std for $target from $src"
    # -Zbuild-std needs the bootstrap switch on a stable compiler; nothing else is built with it
    (cd "$build" && env -u CARGO_ENCODED_RUSTFLAGS -u CARGO_BUILD_TARGET -u CARGO_TARGET_DIR \
        RUSTC_BOOTSTRAP=1 __CARGO_TESTS_ONLY_SRC_ROOT="$src" \
        RUSTFLAGS="-Cembed-bitcode=yes -Cdebuginfo=0 --remap-path-prefix=$src=/rust/library" \
        "$CARGO" build --quiet -Zbuild-std=std,panic_abort --release --target $target --target-dir target >&2) || return 1
    rm -rf "$OUT/lib"
    mkdir -p "$lib"
    cp "$build/target/$target/release/deps/"lib*.rlib "$lib/" || return 1
    rm -f "$lib"/libwasm_std_stub*
    # build scripts and proc macros of guests still need the host's own library
    ln -s "$($RUSTC --print sysroot)/lib/rustlib/$host" "$OUT/lib/rustlib/$host"
    rm -rf "$build" "$OUT/apt"
    echo "$stamp" >"$OUT/stamp"
}

if [ "$way" != rustup ]; then
    beside=$($RUSTC --print sysroot)/lib/rustlib/src/rust/library
    if [ -n "${RUST_SRC:-}" ]; then
        source_dir=$RUST_SRC
    elif [ -d "$beside" ]; then
        source_dir=$beside
    elif command -v apt-get >/dev/null 2>&1 && command -v dpkg >/dev/null 2>&1; then
        source_dir=$(fetch_source) || source_dir=
    else
        say "no apt-get here"
        source_dir=
    fi
    if [ -n "$source_dir" ] && build_std "$source_dir"; then
        echo "--sysroot=$OUT"
        exit 0
    fi
    miss "FLUX_WASM_STD=debian" "rust-src $version could not be had or built (see above); needs apt, dpkg and a Debian mirror"
fi

# --- 3. rustup ----------------------------------------------------------------------------------------------------------
if [ "$way" != debian ]; then
    if command -v rustup >/dev/null 2>&1 && rustup target add $target >&2; then
        echo
        exit 0
    fi
    miss "FLUX_WASM_STD=rustup" "'rustup target add $target' is not possible here"
fi

say "cannot get the standard library for $target and rustc $version. Tried:$tried
Ways to help: install the target beside the compiler; set FLUX_WASM_STD=debian with a reachable Debian mirror (FLUX_DEBIAN_MIRROR)
that has rust-src $version; set RUST_SRC to the 'library' directory of rustc $version's sources; or set FLUX_WASM_STD=rustup."
exit 1
