# The initial program of `make demo`: what a user would type, shown and run.
run() { printf '\n$ %s\n' "$*"; "$@"; }
run flux uptime
run flux resource list
run flux run -N4 -n8 --label-io hostname
run flux submit --cc=1-4 --wait --quiet sh -c 'echo task $FLUX_JOB_CC'
run flux jobs -a
run flux job eventlog --time-format=offset "$(flux job last)"
run flux run -N4 -n4 "$WORK/mpi_hello"
