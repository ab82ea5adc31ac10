#!/bin/sh
# Runs all tests: formatting, lints, unit, property and end-to-end tests. Installs what they need.
. "$(dirname "$0")/common.sh"
need_rust
need_packages $build_packages mpich libmpich-dev python3
command -v cargo-nextest >/dev/null 2>&1 || { step "installing cargo-nextest"; cargo install --quiet --locked cargo-nextest; }
step "formatting"
cargo fmt --all --check
step "lints"
cargo clippy --quiet --workspace --all-targets -- -D warnings
step "building the programs"
cargo build --quiet --bins --workspace
step "building the policies (WebAssembly)"
cargo run --quiet -p xtask -- wasm
step "tests"
cargo nextest run --workspace --no-fail-fast --status-level slow --final-status-level fail
step "fuzz targets: corpus and a few seconds each"
sh etc/build/fuzz.sh "${FLUX_FUZZ_SECONDS:-15}"
step "all checks passed"
