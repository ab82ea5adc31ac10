//! Does the client get along with another launcher's server, MPICH's hydra?

use std::process::Command;

use super::*;

/// Marks a process of this test program as a rank started by hydra.
const MARK: &str = "FLUX_TEST_PMI_CLIENT";

/// What each rank does; nothing unless hydra started it.
#[test]
fn rank_under_hydra() {
    if std::env::var_os(MARK).is_none() {
        return;
    }
    let mut client = Client::from_env(None).unwrap().unwrap();
    let (rank, size) = (client.rank(), client.size());
    client
        .put(&format!("key{rank}"), &format!("value{rank}"))
        .unwrap();
    client.barrier().unwrap();
    for other in 0..size {
        assert_eq!(
            client.get(&format!("key{other}")).unwrap(),
            Some(format!("value{other}"))
        );
    }
    assert_eq!(client.get("no-such-key").unwrap(), None);
    assert!(!client.kvsname().is_empty());
    client.barrier().unwrap();
    client.finalize().unwrap();
    println!("rank {rank} of {size} is done");
}

#[test]
fn three_ranks_under_hydra() {
    let mut hydra = Command::new("mpiexec.hydra");
    hydra.arg("-n").arg("3").arg(std::env::current_exe().unwrap());
    hydra
        .args(["--exact", "pmi::client::tests::rank_under_hydra", "--nocapture"])
        .env(MARK, "1");
    let Ok(output) = hydra.output() else {
        println!("skipped: mpiexec.hydra is not installed");
        return;
    };
    let text = String::from_utf8_lossy(&output.stdout);
    for rank in 0..3 {
        assert!(text.contains(&format!("rank {rank} of 3 is done")), "{text}");
    }
    assert!(output.status.success());
}

#[test]
fn answers_that_do_not_fit_are_errors() {
    let (ours, theirs) = crate::socketpair().unwrap();
    fd::write_all(
        &theirs,
        b"cmd=response_to_init rc=-1 pmi_version=1 pmi_subversion=1\n",
    )
    .unwrap();
    let error = Client::new(ours, 0, 1, None).unwrap_err();
    assert!(
        matches!(
            error,
            ClientError::Refused {
                operation: "init",
                rc: -1
            }
        ),
        "{error}"
    );
    for answer in [
        &b"cmd=maxes rc=0\n"[..],
        b"nonsense\n",
        b"cmd=put_result rc=0\n",
        b"",
    ] {
        let (ours, theirs) = crate::socketpair().unwrap();
        fd::write_all(&theirs, answer).unwrap();
        // Keeps the request from failing before the answer is read.
        let copy = theirs.try_clone().unwrap();
        let reader = std::thread::spawn(move || fd::read(&copy, &mut [0; 100]));
        reader_done(reader, theirs, ours);
    }
}

fn reader_done(reader: std::thread::JoinHandle<io::Result<usize>>, theirs: OwnedFd, ours: OwnedFd) {
    let client = std::thread::spawn(move || Client::new(ours, 0, 1, None));
    reader.join().unwrap().unwrap();
    drop(theirs);
    assert!(client.join().unwrap().is_err());
}
