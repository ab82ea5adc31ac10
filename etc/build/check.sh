#!/bin/sh
# Runs all tests: formatting, lints, unit, property and end-to-end tests. Installs what they need.
. "$(dirname "$0")/common.sh"
need_rust
need_packages $build_packages mpich libmpich-dev python3 munge strace chromium iproute2
step "formatting"
cargo fmt --all --check
cargo fmt --manifest-path imp/Cargo.toml --all --check
step "lints"
cargo clippy --quiet --workspace --all-targets -- -D warnings
cargo clippy --quiet --manifest-path imp/Cargo.toml --target-dir "$target/imp" --workspace --all-targets --all-features -- -D warnings
step "building the programs"
cargo build --quiet --bins --workspace
cargo build --quiet --manifest-path imp/Cargo.toml --target-dir "$target/imp" --bin flux-imp
step "the released interface of policies"
xtask wit
step "building the policies (WebAssembly)"
xtask wasm
step "the policies' own tests, natively"
cargo fmt --manifest-path plugins-wasm/Cargo.toml --all --check
cargo clippy --quiet --manifest-path plugins-wasm/Cargo.toml --target-dir "$target/wasm/native" --workspace --all-targets -- -D warnings
cargo test --quiet --manifest-path plugins-wasm/Cargo.toml --target-dir "$target/wasm/native" --workspace --no-fail-fast
step "tool chains of policies in other languages (FLUX_POLICY_LANGS: c or all)"
sh etc/build/policy-langs.sh "$target/wasm/langs" "${FLUX_POLICY_LANGS:-c}"
step "the privileged part: figures, budgets, tables"
xtask audit
# as it is installed; the tests of its attacks run against this one
cargo build --quiet --release --manifest-path imp/Cargo.toml --target-dir "$target/imp" --bin flux-imp
FLUX_IMP_RELEASE=$target/imp/release/flux-imp
export FLUX_IMP_RELEASE
step "tests"
FLUX_TEST_SKIPPED=$target/tests-skipped
export FLUX_TEST_SKIPPED
rm -f "$FLUX_TEST_SKIPPED"
cargo test --quiet --manifest-path imp/Cargo.toml --target-dir "$target/imp" --workspace --all-features --no-fail-fast
if command -v cargo-nextest >/dev/null 2>&1; then
    cargo nextest run --workspace --no-fail-fast --status-level slow --final-status-level fail
else
    cargo test --quiet --workspace --no-fail-fast
fi
if [ -s "$FLUX_TEST_SKIPPED" ]; then
    echo "$(wc -l <"$FLUX_TEST_SKIPPED") cases were skipped, for what this machine lacks:"
    sort "$FLUX_TEST_SKIPPED"
    # everything but the rights of root and what a kernel offers was installed above
    ! grep -vqE '^(root|mount|site|cgroup2|device programs|zig|componentize-py|componentize-js) ' "$FLUX_TEST_SKIPPED" || die "cases were skipped that should have run"
fi
step "fuzz targets: corpus and ${FLUX_FUZZ_SECONDS:-15} seconds each"
sh etc/build/fuzz.sh "${FLUX_FUZZ_SECONDS:-15}"
step "all checks passed"
