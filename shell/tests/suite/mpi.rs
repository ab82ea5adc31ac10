//! PMI-1 through the shell: our own client, and MPICH where it is installed.

use std::process::Command;

use serde_json::json;

use super::job::{command, sh};

/// Speaks PMI-1 from a shell script: put, barrier, get of the next rank's value.
const SCRIPT: &str = r#"

say() { echo "$1" >&$PMI_FD; IFS= read -r answer <&$PMI_FD; }
say "cmd=init pmi_version=1 pmi_subversion=1"
say "cmd=get_my_kvsname"
say "cmd=put kvsname=ƒuZZybuNNy key=k$PMI_RANK value=v$PMI_RANK"
say "cmd=barrier_in"
say "cmd=get kvsname=ƒuZZybuNNy key=k$(( (PMI_RANK + 1) % PMI_SIZE ))"
echo "$answer"
say "cmd=get kvsname=ƒuZZybuNNy key=flux.instance-level"
echo "$answer"
say "cmd=get kvsname=ƒuZZybuNNy key=PMI_process_mapping"
echo "$answer"
say "cmd=barrier_in"
say "cmd=finalize"
"#;

#[test]
fn values_cross_between_shells() {
    for (nodes, ntasks, map) in [
        (1, 3, "(vector,(0,1,3))"),
        (2, 4, "(vector,(0,2,2))"),
        (5, 5, "(vector,(0,5,1))"),
    ] {
        let (broker, exits) = sh(SCRIPT).nodes(nodes, ntasks).run();
        assert!(
            exits.iter().all(|status| *status == 0),
            "{exits:?} {:?}",
            broker.log_lines()
        );
        for rank in 0..ntasks {
            let text = broker.data("stdout", &rank.to_string());
            let next = (rank + 1) % ntasks;
            let expected = format!(
                "cmd=get_result rc=0 value=v{next}\ncmd=get_result rc=0 value=3\ncmd=get_result rc=0 value={map}\n"
            );
            assert_eq!(text, expected, "{nodes} {rank}");
        }
    }
}

#[test]
fn the_server_may_be_off_or_without_map() {
    let (broker, _) = sh("echo fd=$PMI_FD").options(json!({"pmi": "off"})).run();
    assert_eq!(broker.data("stdout", "0"), "fd=\n");
    let script = r#"echo "cmd=get kvsname=ƒuZZybuNNy key=PMI_process_mapping" >&$PMI_FD; head -n1 <&$PMI_FD"#;
    let (broker, _) = sh(script).options(json!({"pmi-simple": {"nomap": 1}})).run();
    assert_eq!(broker.data("stdout", "0"), "cmd=get_result rc=-1\n");
}

#[test]
fn an_abort_raises_an_exception() {
    let script = r#"echo "cmd=abort exitcode=7 error_msg=no more" >&$PMI_FD; sleep 0.05"#;
    let (broker, exits) = sh(script).run();
    assert_eq!(exits, [7 << 8]);
    assert_eq!(broker.raised()[0]["note"], "MPI_Abort: task 0: no more");
}

#[test]
fn the_trace_reads_as_the_manual_shows() {
    let (broker, _) = sh(SCRIPT).options(json!({"verbose": 2})).run();
    let lines = broker.log_lines();
    for text in [
        "7 pmi-simple: 0: C: cmd=init pmi_version=1 pmi_subversion=1",
        "7 pmi-simple: 0: S: cmd=response_to_init rc=0 pmi_version=1 pmi_subversion=1",
        "7 pmi-simple: 0: S: cmd=barrier_out rc=0",
        "7 pmi-simple: 0: S: pmi finalized",
        "7 pmi-simple: 0: C: pmi EOF",
    ] {
        assert!(lines.iter().any(|line| line == text), "no {text} in {lines:#?}");
    }
}

const HELLO: &str = r#"
#include <mpi.h>
#include <stdio.h>
int main(int argc, char **argv) {
    int rank, size, sum;
    MPI_Init(&argc, &argv);
    MPI_Comm_rank(MPI_COMM_WORLD, &rank);
    MPI_Comm_size(MPI_COMM_WORLD, &size);
    MPI_Allreduce(&rank, &sum, 1, MPI_INT, MPI_SUM, MPI_COMM_WORLD);
    printf("%d of %d sum %d\n", rank, size, sum);
    MPI_Finalize();
    return 0;
}
"#;

#[test]
fn mpich_says_hello() {
    if Command::new("mpicc").arg("-v").output().is_err() {
        println!("skipped: mpicc is not installed");
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("hello.c"), HELLO).unwrap();
    let program = dir.path().join("hello");
    let status = Command::new("mpicc")
        .arg("-o")
        .arg(&program)
        .arg(dir.path().join("hello.c"))
        .status()
        .unwrap();
    assert!(status.success());
    for (nodes, ntasks, options) in [
        (1, 4, json!({})),
        (2, 4, json!({})),
        (2, 4, json!({"taskmap": {"scheme": "cyclic"}})),
    ] {
        let (broker, exits) = command(&[program.to_str().unwrap()])
            .nodes(nodes, ntasks)
            .options(options)
            .run();
        assert!(
            exits.iter().all(|status| *status == 0),
            "{exits:?} {:?}",
            broker.events("output")
        );
        for rank in 0..ntasks {
            assert_eq!(
                broker.data("stdout", &rank.to_string()),
                format!("{rank} of 4 sum 6\n")
            );
        }
    }
}
