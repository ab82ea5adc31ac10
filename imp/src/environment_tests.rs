use flux_sign::kv::{Kv, Value};

use super::*;

fn user() -> User {
    User {
        uid: 7,
        name: "ali".to_owned(),
        gid: 7,
        groups: vec![7],
        home: "/home/ali".to_owned(),
        shell: "/bin/sh".to_owned(),
    }
}

fn shell(given: [Option<&str>; 4]) -> Result<Vec<String>, String> {
    let given = given.map(|value| value.map(str::to_owned));
    let (variables, _) = of_shell(&user(), &given)?;
    Ok(variables
        .iter()
        .map(|v| v.to_string_lossy().into_owned())
        .collect())
}

#[test]
fn a_shell_gets_exactly_these() {
    let given = [
        Some("local:///run/flux/local"),
        Some("job-1"),
        Some("Europe/Berlin"),
        Some("C.UTF-8"),
    ];
    assert_eq!(
        shell(given).unwrap(),
        [
            "PATH=/usr/local/bin:/usr/bin:/bin:/usr/local/sbin:/usr/sbin:/sbin",
            "HOME=/home/ali",
            "USER=ali",
            "LOGNAME=ali",
            "SHELL=/bin/sh",
            "FLUX_URI=local:///run/flux/local",
            "FLUX_KVS_NAMESPACE=job-1",
            "TZ=Europe/Berlin",
            "LANG=C.UTF-8",
        ]
    );
    assert_eq!(shell([None; 4]).unwrap().len(), 5);
}

#[test]
fn bad_values_are_refused_or_left_out() {
    let long = format!("local:///{}", "x".repeat(200));
    for uri in [
        "",
        "local://x",
        "ssh://host/x",
        "local:///a/../b",
        "local:///a\nb",
        "tcp:///x",
        long.as_str(),
    ] {
        assert!(shell([Some(uri), None, None, None]).is_err(), "{uri}");
    }
    assert!(shell([None, Some("a\nb"), None, None]).is_err());
    for tz in ["/etc/shadow", ":/etc/shadow", "../x", "a b", ""] {
        assert_eq!(shell([None, None, Some(tz), None]).unwrap().len(), 5, "{tz}");
    }
    assert_eq!(shell([None, None, None, Some("a/../b")]).unwrap().len(), 5);
}

#[test]
fn a_script_gets_what_is_allowed() {
    let mut kv = Kv::new();
    for (at, pattern) in ["FLUX_*", "LD_*", "PATH", "ENV"].iter().enumerate() {
        let key = format!("run.a.environment.{at}");
        kv.put(&key, Value::String((*pattern).to_owned())).unwrap();
    }
    let given = [
        ("FLUX_JOB_ID", "1"),
        ("FLUX_URI", "u"),
        ("FLUX_OWNER_USERID", "0"),
        ("LD_PRELOAD", "x"),
        ("PATH", "/tmp"),
        ("ENV", "x"),
        ("OTHER", "x"),
        ("BASH_FUNC_x", "x"),
    ];
    let run = |name: &str| wire::Run {
        name: name.to_owned(),
        variables: given
            .map(|(name, value)| (name.to_owned(), value.to_owned()))
            .to_vec(),
    };
    let config = Config(kv);
    let list = of_run(&config, &run("a"), 5).unwrap();
    let list: Vec<_> = list.iter().map(|variable| variable.to_string_lossy()).collect();
    assert_eq!(
        list,
        [
            "FLUX_JOB_ID=1",
            "FLUX_URI=u",
            "FLUX_OWNER_USERID=5",
            "HOME=/root",
            "USER=root",
            "PATH=/usr/sbin:/usr/bin:/sbin:/bin"
        ]
    );
    assert_eq!(of_run(&config, &run("b"), 5).unwrap().len(), 5);
}
