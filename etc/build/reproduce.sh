#!/bin/sh
# Builds flux-imp twice, from copies of its sources in two directories: the same bytes, or an error.
. "$(dirname "$0")/common.sh"
need_rust
need_packages $build_packages
work=$(mktemp -d "${TMPDIR:-/tmp}/flux-reproduce.XXXXXX")
trap 'rm -rf "$work"' EXIT
hash_of() {
    mkdir -p "$work/$1"
    cp -a imp "$work/$1/imp"
    cd "$work/$1"
    FLUX_SYSCONFDIR=${SYSCONFDIR:-/usr/local/etc} RUSTFLAGS=$(reproducible_flags) \
        cargo build --quiet --release --locked --manifest-path imp/Cargo.toml --target-dir "$work/$1/target" --bin flux-imp >&2
    sha256sum <"$work/$1/target/release/flux-imp" | cut -d ' ' -f 1
    cd "$top"
}
first=$(hash_of one)
step "$first in the first directory"
second=$(hash_of another/and/longer)
step "$second in the second"
[ "$first" = "$second" ] || die "flux-imp depends on where it is built"
rustc -vV
step "flux-imp is the same wherever it is built"
