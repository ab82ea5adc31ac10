use super::*;

use crate::helpers::parser::flatten;
use crate::helpers::schema;

/// What the parser makes of the two files.
fn both(imp: &str, sign: &str) -> Result<Config, String> {
    let kv = |text: &str| flatten(&[("f".to_owned(), text.as_bytes().to_vec())]);
    schema::check(&kv(imp)?, &kv(sign)?).map(Config)
}

fn config(text: &str) -> Result<Config, String> {
    both(text, "")
}

#[test]
fn the_guides_example() {
    let config = config(
        r#"
        [exec]
        allowed-users = [ "flux" ]
        allowed-shells = [ "/usr/libexec/flux/flux-shell" ]
        pam-support = true
        [run.prolog]
        allowed-users = [ "flux" ]
        path = "/etc/flux/system/prolog"
        allowed-environment = [ "FLUX_*" ]
        "#,
    )
    .unwrap();
    assert_eq!(config.list("exec.user").collect::<Vec<_>>(), ["flux"]);
    assert!(config.has("exec.shell", "/usr/libexec/flux/flux-shell"));
    assert!(!config.has("exec.shell", "/usr/libexec/flux") && !config.has("exec", "flux"));
    assert_eq!(config.flag("exec.pam"), Ok(true));
    assert_eq!(config.flag("exec.refuse-replay"), Ok(false));
    assert_eq!(
        (config.cgroup(), config.number("exec.min-uid")),
        (Ok(UseCgroup::Auto), Ok(1))
    );
    assert_eq!(config.run_path("prolog"), Ok("/etc/flux/system/prolog"));
    assert!(config.has("run.prolog.user", "flux") && config.has("run.prolog.environment", "FLUX_*"));
    for other in ["epilog", "prolog.path", "prolog.user", "", "."] {
        let want = format!("{other}: no configuration found");
        assert_eq!(config.run_path(other), Err(want));
    }
}

#[test]
fn what_is_not_there_is_an_error() {
    let config = Config(Kv::new());
    let wrong = "configuration: exec.pam is missing or wrong";
    assert_eq!(config.flag("exec.pam"), Err(wrong.to_owned()));
    assert!(config.number("log-level").is_err() && config.cgroup().is_err());
    let mut kv = Kv::new();
    kv.put("exec.cgroup", flux_sign::kv::Value::Int(3)).unwrap();
    kv.put("exec.pam", flux_sign::kv::Value::Int(1)).unwrap();
    let config = Config(kv);
    assert!(config.cgroup().is_err() && config.flag("exec.pam").is_err());
}

#[test]
fn signatures_are_passed_on() {
    let sign = "[sign]\nmax-ttl = 7\ndefault-type = \"munge\"\nallowed-types = [\"munge\"]\n[exec]\npam-support = true\n";
    let config = both("", sign).unwrap();
    assert_eq!(flux_sign::Config::from_kv(&config.0).unwrap().max_ttl, 7);
    // Each directory speaks for its own tables only.
    assert_eq!(
        (config.flag("exec"), config.flag("exec.pam").is_err()),
        (Ok(false), true)
    );
    let config = both("[sign]\nmax-ttl = 7\n", "").unwrap();
    assert!(flux_sign::Config::from_kv(&config.0).is_err());
}

#[test]
fn mistakes_are_named() {
    let cases = [
        ("[exec]\npam-suport = true", "exec.pam-suport is unknown"),
        (
            "[exec]\npam-support = 1",
            "exec.pam-support must be true or false",
        ),
        (
            "[exec]\nallowed-users = \"flux\"",
            "exec.allowed-users must be an array of strings",
        ),
        (
            "[exec]\nallowed-users = [1]",
            "exec.allowed-users must be an array of strings",
        ),
        (
            "[exec]\nallowed-users = {a = 1}",
            "exec.allowed-users must be an array of strings",
        ),
        (
            "[exec]\ncgroup = \"yes\"",
            "exec.cgroup must be auto, require or off",
        ),
        ("[exec]\ncgroup = [\"off\"]", "exec.cgroup must be a string"),
        ("[exec]\nreplay = \"no\"", "exec.replay must be allow or refuse"),
        ("[exec]\nmin-uid = -1", "exec.min-uid is no user id"),
        ("[exec]\nmin-uid = \"1\"", "exec.min-uid must be a number"),
        ("log-level = \"loud\"", "log-level must be debug, info or warning"),
        ("allow-sudo = true", "allow-sudo is not supported: remove it"),
    ];
    for (text, want) in cases {
        assert_eq!(config(text).map(drop), Err(want.to_owned()), "{text}");
    }
    assert_eq!(config("").unwrap().flag("exec"), Ok(false));
    assert_eq!(config("exec = 1").unwrap().flag("exec"), Ok(false));
    let many = format!("[exec]\nallowed-users = [{}]", "\"a\",".repeat(300));
    assert!(
        config(&many)
            .unwrap_err()
            .contains("exec.allowed-users has more than 256")
    );
    for (text, want) in [
        ("[run.a]\nallowed-users = []", "a: path is missing or invalid"),
        (
            "[run.a]\npath = \"/x\"\nallowed-usrs = []",
            "run.a.allowed-usrs is unknown",
        ),
    ] {
        // Whoever does not want this one is not disturbed.
        let config = config(&format!("{text}\n[run.b]\npath = \"/y\"\n[exec]\n")).unwrap();
        assert_eq!(config.run_path("a"), Err(want.to_owned()));
        assert_eq!((config.run_path("b"), config.flag("exec")), (Ok("/y"), Ok(true)));
    }
}
