#!/bin/sh
# Measures an installation made for it, beside flux-core's figures: those of this machine when it is on PATH or FLUX_CORE_PREFIX
# names it. Arguments go to `cargo xtask bench`.
. "$(dirname "$0")/common.sh"
need_rust
# An installation that `make install` would make, in the build tree; its paths are compiled in.
PREFIX=$target/bench SYSCONFDIR=$target/bench/etc DESTDIR= sh etc/build/install.sh
step "measuring (FLUX_BENCH_HISTORY=${FLUX_BENCH_HISTORY:-20000} jobs of history)"
cargo run --quiet -p xtask -- bench --prefix="$target/bench" --history="${FLUX_BENCH_HISTORY:-20000}" \
    ${FLUX_CORE_PREFIX:+--flux-core="$FLUX_CORE_PREFIX"} "$@"
