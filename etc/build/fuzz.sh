#!/bin/sh
# Replays each fuzz target's corpus and mutates it for SECONDS (argument 1).
. "$(dirname "$0")/common.sh"
cargo run --quiet --release --manifest-path tests/fuzz/Cargo.toml --target-dir target/fuzz -- --seconds "${1:-15}"
