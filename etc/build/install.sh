#!/bin/sh
# Builds for release with PREFIX and SYSCONFDIR compiled in, and copies to DESTDIR.
. "$(dirname "$0")/common.sh"
need_rust
need_packages $build_packages
# with_paths COMMAND...: the paths are compiled in
with_paths() { FLUX_PREFIX=$PREFIX FLUX_SYSCONFDIR=$SYSCONFDIR "$@"; }
with_paths cargo build --quiet --release --bins --workspace --exclude xtask --exclude flux-shell
# A shell starts on each node of each job. It uses libc alone; without a dynamic linker it starts in half the time.
with_paths cargo rustc --quiet --release -p flux-shell --bin flux-shell -- -C target-feature=+crt-static
cargo run --quiet -p xtask -- wasm
dest=$DESTDIR$PREFIX
install -d "$dest/bin" "$dest/libexec/flux/cmd" "$dest/lib/flux/policies" "$DESTDIR$SYSCONFDIR/flux/system/conf.d"
install -m 755 "$target"/release/flux "$dest/bin/flux"
install -m 755 "$target"/release/flux-broker "$target"/release/flux-shell "$target"/release/flux-hwloc-xml "$dest/libexec/flux/"
install -m 644 "$target"/policies/* "$dest/lib/flux/policies/"
step "installed to $dest"
