use super::*;
use crate::kv::Kv;
use crate::munge::tests::Fake;

fn config(socket: Option<&Path>, max_ttl: i64) -> Config {
    Config {
        max_ttl,
        default_type: Mechanism::Munge,
        allowed_types: vec![Mechanism::Munge],
        munge_socket: socket.map(Path::to_owned),
        cluster: Some("alpha".to_owned()),
    }
}

const USER: u32 = 1000;

/// A token of `USER`, without a signature.
fn signed() -> String {
    token::signed_part(&token::header(Mechanism::Munge, USER).unwrap(), b"{}")
}

/// What a munged that decodes to `uid` and `payload` makes of the token.
fn verdict(uid: u32, payload: &[u8], max_ttl: i64) -> Result<Unwrapped, SignError> {
    let fake = Fake::deciding(uid, payload);
    Signer::new(config(Some(&fake.path), max_ttl)).unwrap(&format!("{}.MUNGE:x:", signed()), 7)
}

#[test]
fn a_good_credential() {
    let unwrapped = verdict(USER, &digest(&signed()), i64::MAX).unwrap();
    assert_eq!(
        (unwrapped.userid, unwrapped.payload.as_slice()),
        (USER, b"{}".as_slice())
    );
    assert_eq!(unwrapped.signed_at, Some(1_700_000_000));
}

#[test]
fn bad_credentials() {
    let good = digest(&signed());
    let mut other_hash = good.clone();
    other_hash[0] = 2;
    let mut flipped = good.clone();
    flipped[7] ^= 1;
    let mut longer = good.clone();
    longer.push(0);
    let cases = [
        (USER, other_hash.as_slice(), i64::MAX, SignError::HashType),
        (USER, &[], i64::MAX, SignError::HashType),
        (USER, &good[..32], i64::MAX, SignError::HashMismatch),
        (USER, &longer, i64::MAX, SignError::HashMismatch),
        (USER, &flipped, i64::MAX, SignError::HashMismatch),
        (USER + 1, &good, i64::MAX, SignError::UidMismatch),
        (0, &good, i64::MAX, SignError::UidMismatch),
        (USER, &good, 1, SignError::TtlExceeded),
        (USER, &good, -100, SignError::TtlExceeded),
    ];
    for (uid, payload, max_ttl, want) in cases {
        assert_eq!(verdict(uid, payload, max_ttl), Err(want.clone()), "{want}");
    }
    let texts = [
        (SignError::HashType, "sign-munge-verify: unknown hash type"),
        (SignError::HashMismatch, "sign-munge-verify: SHA256 hash mismatch"),
        (SignError::UidMismatch, "sign-munge-verify: uid mismatch"),
        (SignError::TtlExceeded, "sign-munge-verify: max-ttl exceeded"),
    ];
    for (err, text) in texts {
        assert_eq!(err.to_string(), text);
    }
}

#[test]
fn only_allowed_mechanisms_pass() {
    let signer = Signer::new(config(None, 10));
    let none = signer.wrap(b"{}", Some("none"), USER).unwrap();
    let err = signer.unwrap(&none, USER).unwrap_err();
    assert_eq!(err.to_string(), "sign-unwrap: header mechanism=none not allowed");
    assert!(signer.unwrap_any_mechanism(&none, USER).is_ok());
    let err = signer.wrap(b"{}", Some("fo\x1bo"), USER).unwrap_err();
    assert_eq!(err.to_string(), "sign-wrap: unknown mechanism: fo\\u{1b}o");
    let curve = token::signed_part(&token::header(Mechanism::Curve, USER).unwrap(), b"");
    let err = signer.unwrap_any_mechanism(&format!("{curve}.x"), USER);
    assert_eq!(err, Err(SignError::MechanismUnavailable(Mechanism::Curve)));
}

#[test]
fn munged_is_not_there() {
    let signer = Signer::new(config(Some(Path::new("/nonexistent")), 10));
    let err = signer.wrap(b"{}", None, USER).unwrap_err().to_string();
    assert!(err.starts_with("sign-munge-sign: cannot talk to munged"), "{err}");
    let err = signer
        .unwrap(&format!("{}.x", signed()), USER)
        .unwrap_err()
        .to_string();
    assert!(
        err.starts_with("sign-munge-verify: munge_decode: cannot talk to munged"),
        "{err}"
    );
}

fn kv(entries: &[(&str, Value)]) -> Kv {
    let mut kv = Kv::new();
    for (key, value) in entries {
        kv.put(key, value.clone()).unwrap();
    }
    kv
}

fn text(word: &str) -> Value {
    Value::String(word.to_owned())
}

#[test]
fn configuration() {
    let good = kv(&[
        ("sign/", Value::Bool(true)),
        ("sign.max-ttl", Value::Int(60)),
        ("sign.default-type", text("munge")),
        ("sign.allowed-types#", Value::Int(2)),
        ("sign.allowed-types.0", text("munge")),
        ("sign.allowed-types.1", text("none")),
        ("sign.curve/", Value::Bool(true)),
        ("sign.curve.require-ca", Value::Bool(true)),
        ("sign.munge/", Value::Bool(true)),
        ("sign.munge.socket-path", text("/x")),
        ("sign.replay/", Value::Bool(true)),
        ("sign.replay.cluster", text("alpha")),
        ("ca/", Value::Bool(true)),
    ]);
    let config = Config::from_kv(&good).unwrap();
    assert_eq!(config.allowed_types, [Mechanism::Munge, Mechanism::None]);
    assert_eq!(config.cluster.as_deref(), Some("alpha"));
    let change = |key: &str, value: Value| {
        let mut bad = good.clone();
        bad.put(key, value).unwrap();
        Config::from_kv(&bad).unwrap_err().to_string()
    };
    let cases = [
        (
            "sign.max-ttl",
            Value::Int(0),
            "sign: max-ttl should be greater than zero",
        ),
        (
            "sign.max-ttl",
            Value::Int(-99),
            "sign: max-ttl should be greater than zero",
        ),
        (
            "sign.max-ttl",
            text("1"),
            "sign: config error: 'max-ttl' must be of type integer",
        ),
        (
            "sign.default-type",
            Value::Int(1),
            "sign: config error: 'default-type' must be of type string",
        ),
        ("sign.default-type", text("foo"), "sign: unknown mechanism=foo"),
        (
            "sign.allowed-types#",
            Value::Int(0),
            "sign: allowed-types array is empty",
        ),
        (
            "sign.allowed-types#",
            text("x"),
            "sign: config error: 'allowed-types' must be of type array",
        ),
        (
            "sign.allowed-types.1",
            Value::Int(1),
            "sign: allowed-types[1] not a string",
        ),
        ("sign.allowed-types.0", text("foo"), "sign: unknown mechanism=foo"),
        (
            "sign.zip",
            Value::Int(1),
            "sign: config error: key 'zip' is unknown",
        ),
        (
            "sign.munge.zip",
            Value::Int(1),
            "sign-munge-init: key 'zip' is unknown",
        ),
        (
            "sign.munge.socket-path",
            Value::Int(1),
            "sign-munge-init: 'socket-path' must be of type string",
        ),
        (
            "sign.replay.cluster",
            text("a b"),
            "sign: replay.cluster must be a string of 1 to 64 letters, digits, '-', '_' or '.'",
        ),
    ];
    for (key, value, want) in cases {
        assert_eq!(change(key, value), want);
    }
    let err = Config::from_kv(&Kv::new()).unwrap_err();
    assert_eq!(err.to_string(), "configuration object 'sign' not found");
    let err = Config::from_kv(&kv(&[("sign/", Value::Bool(true))])).unwrap_err();
    assert_eq!(err.to_string(), "sign: config error: 'max-ttl' must be set");
    // The original accepts it, for tests.
    let mut expired = good.clone();
    expired.put("sign.max-ttl", Value::Int(-100)).unwrap();
    assert_eq!(Config::from_kv(&expired).unwrap().max_ttl, -100);
}
