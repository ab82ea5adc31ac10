#!/bin/sh
# Replays each fuzz target's corpus and mutates it for SECONDS (argument 1) each, one target per processor at a time.
. "$(dirname "$0")/common.sh"
cargo build --quiet --release --manifest-path tests/fuzz/Cargo.toml --target-dir target/fuzz
fuzz=target/fuzz/release/flux-fuzz
seed=$(date +%s)
"$fuzz" --list | xargs -n 1 -P "$(nproc)" "$fuzz" --seconds "${1:-15}" --seed "$seed" --target
