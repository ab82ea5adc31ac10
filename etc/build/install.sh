#!/bin/sh
# Builds for release with PREFIX and SYSCONFDIR compiled in, and copies to DESTDIR.
. "$(dirname "$0")/common.sh"
need_rust
need_packages $build_packages
# with_paths COMMAND...: the paths are compiled in
with_paths() { FLUX_PREFIX=$PREFIX FLUX_SYSCONFDIR=$SYSCONFDIR "$@"; }
with_paths cargo build --quiet --release --bins --workspace --exclude xtask --exclude flux-shell --exclude flux-broker
# A broker has 11,000 relocations, which each start reads: 0.27 MB, or 3 KB in the form that the loader knows since glibc 2.36.
case "$(getconf GNU_LIBC_VERSION 2>/dev/null)" in
    "glibc 2.3"[6-9] | "glibc 2."[4-9][0-9] | "glibc "[3-9]*) small_relocations="-C link-arg=-Wl,-z,pack-relative-relocs" ;;
    *) small_relocations= ;;
esac
# shellcheck disable=SC2086 # two words, or none
with_paths cargo rustc --quiet --release -p flux-broker --bin flux-broker -- $small_relocations
with_paths cargo build --quiet --release -p flux-broker --bin flux-hwloc-xml
# A shell starts on each node of each job. It uses libc alone; without a dynamic linker it starts in half the time.
with_paths cargo rustc --quiet --release -p flux-shell --bin flux-shell -- -C target-feature=+crt-static
# with the compiler that is installed
cargo run --quiet -p xtask -- wasm --release-compiler
imp_build() { RUSTFLAGS=$(reproducible_flags) with_paths cargo build --quiet --locked --manifest-path imp/Cargo.toml --target-dir "$target/imp" "$@"; }
imp_build --release --bin flux-imp
imp_build --profile pam --package pam_flux
dest=$DESTDIR$PREFIX
etc=$DESTDIR$SYSCONFDIR/flux
units=$dest/lib/systemd/system
examples=$dest/share/flux/examples
install -d "$dest/bin" "$dest/libexec/flux/cmd" "$dest/lib/flux/policies" "$units" "$examples" \
    "$etc/system/conf.d" "$etc/system/cron.d" "$etc/system/prolog.d" "$etc/system/epilog.d" "$etc/system/housekeeping.d" \
    "$etc/security/conf.d" "$etc/imp/conf.d"
install -m 755 "$target"/release/flux "$dest/bin/flux"
install -m 755 "$target"/release/flux-broker "$target"/release/flux-shell "$target"/release/flux-hwloc-xml "$target"/release/flux-policy "$dest/libexec/flux/"
# `flux policy build` compiles with it
install -m 755 "${FLUX_POLICY_COMPILE:-$target/wasm/compile/release/flux-policy-compile}" "$dest/libexec/flux/flux-policy-compile"
install -m 644 "$target"/policies/* "$dest/lib/flux/policies/"
install -d "$dest/lib/security"
install -m 644 "$target"/imp/pam/libpam_flux.so "$dest/lib/security/pam_flux.so"
if [ "$(id -u)" = 0 ]; then
    install -o root -g root -m 4755 "$target"/imp/release/flux-imp "$dest/libexec/flux/flux-imp"
else
    install -m 755 "$target"/imp/release/flux-imp "$dest/libexec/flux/flux-imp"
    step "flux-imp is without privilege; as root: chown root $dest/libexec/flux/flux-imp && chmod 4755 $dest/libexec/flux/flux-imp"
fi
# fill MODE FROM TO: copies a file of etc/ with the paths of this installation
fill() {
    sed -e "s|@BINDIR@|$PREFIX/bin|g" -e "s|@LIBEXECDIR@|$PREFIX/libexec/flux|g" -e "s|@SYSCONFDIR@|$SYSCONFDIR|g" "$2" >"$3"
    chmod "$1" "$3"
}
for unit in etc/systemd/*.service; do
    fill 644 "$unit" "$units/$(basename "$unit")"
done
for script in prolog epilog housekeeping; do
    fill 755 "etc/flux/$script.in" "$dest/libexec/flux/$script"
done
# what a site has to look at first is installed as an example, never over its own files
for file in system security imp; do
    fill 644 "etc/flux/$file.toml" "$examples/$file.toml"
done
install -m 644 etc/pam.d/flux "$examples/pam.d-flux"
step "installed to $dest; examples of the configuration are in $examples"
