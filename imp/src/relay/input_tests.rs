use super::*;

#[test]
fn the_token_and_its_options() {
    let input = parse(
        br#"{"J":"a.b.c","options":{"DevicePolicy":"closed","DeviceAllow":[["/dev/x","rw"]]},"more":1}"#,
    );
    let input = input.unwrap();
    assert_eq!(
        (input.token.as_str(), input.policy),
        ("a.b.c", DevicePolicy::Closed)
    );
    assert_eq!(input.allow, [("/dev/x".to_owned(), "rw".to_owned())]);
    assert_eq!(parse(br#" {"J":""} "#).unwrap(), Input::default());
}

// Attack case 35.
#[test]
fn hostile_documents_are_refused() {
    let deep = format!("{{\"J\":{}", "[".repeat(1_000_000));
    for bad in [
        "",
        "{",
        "null",
        "[]",
        "{}",
        r#"{"J":1}"#,
        r#"{"J":"a"}x"#,
        r#"{"J":"a","J":"b"}"#,
        r#"{"J":"a","options":{"DevicePolicy":"auto","DevicePolicy":"auto"}}"#,
        r#"{"J":"a","x":{"y":1,"y":1}}"#,
        r#"{"J":"a","x":1e400}"#,
        r#"{"J":"\ud800"}"#,
        r#"{"J":"a","options":1}"#,
        r#"{"J":"a","options":{"DevicePolicy":1}}"#,
        r#"{"J":"a","options":{"DevicePolicy":"open"}}"#,
        r#"{"J":"a","options":{"DeviceAllow":1}}"#,
        r#"{"J":"a","options":{"DeviceAllow":[["a"]]}}"#,
        r#"{"J":"a","options":{"DeviceAllow":[["a",1]]}}"#,
        deep.as_str(),
    ] {
        let err = parse(bad.as_bytes()).unwrap_err();
        assert!(err.starts_with("exec: "), "{err}");
    }
    assert!(parse(b"{\"J\":\"\xff\"}").is_err());
    // Numbers that mean nothing here do no harm.
    assert!(parse(br#"{"J":"a","x":[-0,1.5,-7,18446744073709551615,true,null]}"#).is_ok());
}
