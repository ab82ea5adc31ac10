use super::*;
use crate::relay::ask::{decode_ended, signal};

fn exec() -> Exec {
    Exec {
        token: "a.b.c".to_owned(),
        shell: "/shell".to_owned(),
        jobid: "f1".to_owned(),
        reconnect: true,
        variables: [Some("local:///x".to_owned()), None, Some("UTC".to_owned()), None],
        devices: Some(vec!["c:1:3:rw".to_owned(), "c:136:*:r".to_owned()]),
    }
}

#[test]
fn requests_round_trip() {
    let run = Run {
        name: "prolog".to_owned(),
        variables: vec![("FLUX_JOB_ID".to_owned(), "1".to_owned())],
    };
    for request in [
        Request::Exec(exec()),
        Request::Exec(Exec::default()),
        Request::Run(run),
        Request::Run(Run::default()),
    ] {
        assert_eq!(Request::decode(&request.encode().unwrap()), Some(request));
    }
}

#[test]
fn what_is_out_of_order_or_unknown_is_refused() {
    let good = Request::Exec(exec()).encode().unwrap();
    let entries: Vec<(String, Value)> = good.iter().map(|(k, v)| (k.to_owned(), v.clone())).collect();
    let build = |entries: &[(String, Value)]| {
        let mut kv = Kv::new();
        entries
            .iter()
            .for_each(|(key, value)| kv.put(key, value.clone()).unwrap());
        Request::decode(&kv)
    };
    assert!(build(&entries).is_some());
    for at in 0..entries.len() - 1 {
        let mut swapped = entries.clone();
        swapped.swap(at, at + 1);
        // Two rules for devices may change places: they are a list.
        if !entries[at].0.starts_with("device.") {
            assert_eq!(
                build(&swapped),
                None,
                "{} and {}",
                entries[at].0,
                entries[at + 1].0
            );
        }
    }
    for at in 0..4 {
        let mut short = entries.clone();
        short.remove(at);
        assert_eq!(build(&short), None, "without {}", entries[at].0);
        let mut other = entries.clone();
        other[at].1 = Value::Int(1);
        assert_eq!(build(&other), None, "{} is a number", entries[at].0);
    }
    let mut more = entries.clone();
    more.push(("more".to_owned(), Value::Bool(true)));
    assert_eq!(build(&more), None);
    let mut long = entries;
    long[2].1 = Value::String("x".repeat(TEXT_MAX + 1));
    assert_eq!(build(&long), None);
}

#[test]
fn ends_and_signals() {
    for status in [Status::Exited(7), Status::Killed(9)] {
        assert_eq!(decode_ended(&ended(status)), Some(status));
    }
    assert_eq!(decode_signal(&signal(15)), Some(15));
    let mut two = signal(15);
    two.put("more", Value::Int(1)).unwrap();
    assert_eq!(decode_signal(&two), None);
}

#[test]
fn frames_are_bounded_in_size_and_time() {
    let (mut a, mut b) = UnixStream::pair().unwrap();
    send(&mut a, &signal(1)).unwrap();
    assert_eq!(receive(&mut b, Duration::from_secs(5)).unwrap(), Some(signal(1)));
    let slow = receive(&mut b, Duration::from_millis(20)).unwrap_err();
    assert_eq!(slow.kind(), io::ErrorKind::TimedOut);
    for bad in [0u32, u32::MAX, 5 << 20] {
        let (mut a, mut b) = UnixStream::pair().unwrap();
        a.write_all(&bad.to_ne_bytes()).unwrap();
        let err = receive(&mut b, Duration::from_secs(5)).unwrap_err();
        assert_eq!(err.kind(), io::ErrorKind::InvalidData, "{bad}");
    }
    a.write_all(&100u32.to_ne_bytes()).unwrap();
    a.write_all(b"short").unwrap();
    drop(a);
    let cut = receive(&mut b, Duration::from_secs(5)).unwrap_err();
    assert_eq!(cut.kind(), io::ErrorKind::UnexpectedEof);
    assert_eq!(receive(&mut b, Duration::from_secs(5)).unwrap(), None);
}
