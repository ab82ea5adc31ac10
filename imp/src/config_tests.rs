use super::*;

fn config(text: &str) -> Result<Config, String> {
    Config::from_kv(crate::parser::flatten(&[(
        "f".to_owned(),
        text.as_bytes().to_vec(),
    )])?)
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
    let exec = config.exec.clone().unwrap();
    assert_eq!(exec.allowed_users, ["flux"]);
    assert_eq!(exec.allowed_shells, ["/usr/libexec/flux/flux-shell"]);
    assert!(exec.pam && !exec.refuse_replay);
    assert_eq!((exec.cgroup, exec.uid_min), (UseCgroup::Auto, 1));
    let run = config.run("prolog").unwrap();
    assert_eq!(
        (run.path.as_str(), run.allowed_environment.len()),
        ("/etc/flux/system/prolog", 1)
    );
    assert_eq!(
        config.run("epilog").unwrap_err(),
        "run: epilog: no configuration found"
    );
    assert_eq!(
        config.run("prolog.path").unwrap_err(),
        "run: prolog.path: no configuration found"
    );
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
    assert_eq!(config("").unwrap().exec, None);
    assert_eq!(config("exec = 1").unwrap().exec, None);
    let run = config("[run.a]\nallowed-users = []").unwrap();
    assert_eq!(run.run("a").unwrap_err(), "run: a: path is missing or invalid");
    let run = config("[run.a]\npath = \"/x\"\nallowed-usrs = []").unwrap();
    assert_eq!(run.run("a").unwrap_err(), "run.a.allowed-usrs is unknown");
}

#[test]
fn patterns() {
    for (pattern, name, want) in [
        ("FLUX_*", "FLUX_JOB", true),
        ("FLUX_*", "XFLUX_JOB", false),
        ("*", "", true),
        ("", "", true),
        ("", "a", false),
        ("a?c", "abc", true),
        ("a?c", "ac", false),
        ("*a*b", "xxayyab", true),
        ("*a*b", "xxayya", false),
        ("a**", "a", true),
    ] {
        assert_eq!(matches(pattern, name), want, "{pattern} {name}");
    }
    let (pattern, name) = ("*a".repeat(2000), "a".repeat(4000) + "b");
    assert!(!matches(&pattern, &name));
}
