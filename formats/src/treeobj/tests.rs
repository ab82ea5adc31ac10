//! Do tree objects round-trip, match flux-core's bytes, and refuse what RFC 11 refuses?

use super::*;
use proptest::prelude::*;

const REF: &str = "sha1-55ca6286e3e4f4fba5d0448333fa99fc5a404a73";

#[test]
fn golden_bytes() {
    for json in [
        r#"{"data":["sha1-e2a1f121d09664299805bd685dabb97a45935e8e"],"type":"dirref","ver":1}"#,
        r#"{"data":{"target":"foo"},"type":"symlink","ver":1}"#,
        r#"{"data":{"namespace":"a","target":"b.b"},"type":"symlink","ver":1}"#,
        r#"{"data":"NDIyCg==","type":"val","ver":1}"#,
        r#"{"data":"","type":"val","ver":1}"#,
        r#"{"data":[],"type":"valref","ver":1}"#,
        r#"{"data":{},"type":"dir","ver":1}"#,
        r#"{"data":{"a":{"data":{"b":{"data":"MQ==","type":"val","ver":1}},"type":"dir","ver":1}},"type":"dir","ver":1}"#,
    ] {
        let object = TreeObj::decode(json.as_bytes()).unwrap();
        assert_eq!(String::from_utf8(object.encode()).unwrap(), json);
        assert_eq!(serde_json::to_string(&object).unwrap(), json);
    }
    // the root of a new namespace, as flux-core names it
    assert_eq!(
        TreeObj::empty_dir().blobref(HashType::Sha1).to_string(),
        BlobRef::compute(HashType::Sha1, br#"{"data":{},"type":"dir","ver":1}"#).to_string()
    );
    let rfc_order = format!(r#" {{ "ver":1, "type":"valref", "data":["{REF}","{REF}"] }} "#);
    assert!(
        matches!(TreeObj::decode(rfc_order.as_bytes()).unwrap(), TreeObj::ValRef(refs) if refs.len() == 2)
    );
}

#[test]
fn refused() {
    let deep = format!(
        "{}1{}",
        r#"{"ver":1,"type":"dir","data":{"a":"#.repeat(5000),
        "}}".repeat(5000)
    );
    for bad in [
        "",
        "{}",
        "[]",
        r#"{"ver":2,"type":"val","data":""}"#,
        r#"{"ver":1,"type":"val","data":"!"}"#,
        r#"{"ver":1,"type":"val","data":"NDIyCg"}"#,
        r#"{"ver":1,"type":"val","data":[]}"#,
        r#"{"ver":1,"type":"val"}"#,
        r#"{"ver":1,"type":"val","data":"","more":1}"#,
        r#"{"ver":1,"type":"dirref","data":[]}"#,
        r#"{"ver":1,"type":"valref","data":["x"]}"#,
        r#"{"ver":1,"type":"dir","data":{"a.b":{"ver":1,"type":"val","data":""}}}"#,
        r#"{"ver":1,"type":"dir","data":{"":{"ver":1,"type":"val","data":""}}}"#,
        r#"{"ver":1,"type":"dir","data":{"a":1}}"#,
        r#"{"ver":1,"type":"dir","data":{"target":"a"}}"#,
        r#"{"ver":1,"type":"symlink","data":{"namespace":"a"}}"#,
        r#"{"ver":1,"type":"symlink","data":{}}"#,
        r#"{"ver":1,"type":"symlink","data":"a"}"#,
        r#"{"ver":1,"type":"hdir","data":{}}"#,
        deep.as_str(),
    ] {
        assert!(
            TreeObj::decode(bad.as_bytes()).is_err(),
            "{}",
            bad.get(..60).unwrap_or(bad)
        );
    }
    assert!(TreeObj::decode_dir(br#"{"ver":1,"type":"val","data":""}"#).is_err());
}

#[test]
fn keys() {
    for (key, clean, wants_dir) in [
        ("a", "a", false),
        ("a.b", "a.b", false),
        ("a.", "a", true),
        (".a", "a", false),
        ("a..b...c.", "a.b.c", true),
        (".", ".", true),
        ("...", ".", true),
    ] {
        assert_eq!(normalize_key(key), Ok((clean.into(), wants_dir)), "{key}");
    }
    assert_eq!(normalize_key(""), Err(KeyError::Empty));
    assert_eq!(components(".").count(), 0);
    assert_eq!(components("a.b").collect::<Vec<_>>(), ["a", "b"]);
    assert_eq!(join_key(".", "a"), "a");
    assert_eq!(join_key("a.b", "c"), "a.b.c");
    assert_eq!(
        Dir::new().insert("a.b", TreeObj::empty_dir()),
        Err(KeyError::Name)
    );
}

fn object() -> impl Strategy<Value = TreeObj> {
    let blobref = any::<[u8; 4]>().prop_map(|seed| BlobRef::compute(HashType::Sha1, &seed));
    let leaf = prop_oneof![
        any::<Vec<u8>>().prop_map(|value| TreeObj::Val(value.into())),
        prop::collection::vec(blobref.clone(), 0..4).prop_map(TreeObj::ValRef),
        blobref.prop_map(TreeObj::DirRef),
        (any::<String>(), prop::option::of(any::<String>()))
            .prop_map(|(target, namespace)| TreeObj::Symlink(Symlink { target, namespace })),
    ];
    leaf.prop_recursive(4, 32, 6, |inner| {
        prop::collection::btree_map("[^.]{1,6}", inner, 0..6)
            .prop_map(|entries| TreeObj::Dir(Dir { entries }))
    })
}

proptest! {
    #[test]
    fn round_trip(object in object()) {
        let json = object.encode();
        prop_assert_eq!(&TreeObj::decode(&json).unwrap(), &object);
        prop_assert_eq!(serde_json::to_vec(&object).unwrap(), json);
    }

    #[test]
    fn normalized_keys_are_stable(key in "[a.]{1,12}") {
        let (clean, _) = normalize_key(&key).unwrap();
        prop_assert_eq!(normalize_key(&clean).unwrap().0, clean.clone());
        prop_assert_eq!(components(&key).collect::<Vec<_>>(), components(&clean).collect::<Vec<_>>());
    }
}
