#!/bin/sh
# A new user's first look: builds everything, boots four brokers, runs jobs and an MPI program, shuts down.
. "$(dirname "$0")/common.sh"
need_rust
need_packages $build_packages mpich libmpich-dev
step "building the programs"
cargo build --quiet --bins --workspace
step "building the policies (WebAssembly)"
xtask wasm
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
step "compiling an MPI program"
mpicc -o "$work/mpi_hello" tests/mpi/hello.c
step "booting four brokers and running jobs"
PATH=$target/debug:$PATH WORK=$work flux start -s 4 sh -eu etc/build/demo-jobs.sh
step "shut down; all is well"
