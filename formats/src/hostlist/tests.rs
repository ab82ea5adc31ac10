//! Do hostlists hold exactly the hosts that RFC 29 says?

use super::*;
use proptest::prelude::*;

fn list(text: &str) -> Hostlist {
    text.parse().unwrap()
}

fn hosts(text: &str) -> Vec<String> {
    list(text).expand().unwrap()
}

#[test]
fn rfc_vectors() {
    for (text, expanded) in [
        ("", ""),
        ("foox,fooy,fooz", "foox,fooy,fooz"),
        ("[1-3,5-6]", "1,2,3,5,6"),
        ("foo[1-5]", "foo1,foo2,foo3,foo4,foo5"),
        (
            "foo[0-4]-eth2",
            "foo0-eth2,foo1-eth2,foo2-eth2,foo3-eth2,foo4-eth2",
        ),
        ("foo1,foo1,foo1", "foo1,foo1,foo1"),
        ("[00-02]", "00,01,02"),
        ("[00-2]", "00,01,02"),
        ("foo[1,1,2,1]", "foo1,foo1,foo2,foo1"),
        ("[005,4,11-13]", "005,004,011,012,013"),
        ("a,b[1],,c", "a,b1,c"),
    ] {
        assert_eq!(hosts(text).join(","), expanded, "{text}");
        assert_eq!(hosts(&list(text).to_string()).join(","), expanded, "{text}");
    }
}

#[test]
fn encodes_compactly() {
    for (text, encoded) in [
        ("foo1,foo2,foo3,foo5", "foo[1-3,5]"),
        ("foo1,foo1,foo2,foo1", "foo[1,1-2,1]"),
        ("foo08,foo09,foo10", "foo[08-10]"),
        ("foo8,foo9,foo10", "foo[8-10]"),
        ("foo1,foo02", "foo1,foo02"),
        ("foo01,foo2", "foo01,foo2"),
        ("vm,vm,vm", "vm,vm,vm"),
        ("a[1-2]-x,b", "a[1-2]-x,b"),
        ("n20240101123,n20240101124", "n20240101123,n20240101124"),
        ("foo[0-4294967295]", "foo[0-4294967295]"),
    ] {
        assert_eq!(list(text).to_string(), encoded);
        assert_eq!(list(encoded), list(text));
    }
}

#[test]
fn lookups_do_not_expand() {
    let big = list("x,node[0-4294967295],y");
    assert_eq!(big.count(), (1 << 32) + 2);
    assert_eq!(big.nth(1_000_001).as_deref(), Some("node1000000"));
    assert_eq!(big.nth((1 << 32) + 1).as_deref(), Some("y"));
    assert_eq!(big.find("node77"), Some(78));
    assert_eq!(big.find("node077"), None);
    assert_eq!(big.find("node"), None);
    assert!(big.contains("y") && !big.contains("z"));
    assert_eq!(big.expand(), Err(HostlistError::TooManyHosts));
    assert_eq!(list("foo1[0-3]").find("foo12"), Some(2));
    assert_eq!(list("foo[0-4]-eth2").find("foo3-eth2"), Some(3));
    assert_eq!(
        list("n[0-9],x,n[20-29]")
            .select(&"2-3,10-11,29".parse().unwrap())
            .to_string(),
        "n[2-3],x,n20"
    );
}

#[test]
fn operations() {
    assert_eq!(
        list("b2,a10,a9,b,a9").sorted().unwrap().to_string(),
        "a[9,9-10],b,b2"
    );
    assert_eq!(list("a1,a1,a2,a1").unique().unwrap().to_string(), "a[1-2]");
    assert_eq!(
        list("a[1-3]").union(&list("a[2-5]")).unwrap().to_string(),
        "a[1-5]"
    );
    assert_eq!(
        list("a[1-3,1]")
            .intersection(&list("a[1,3-5]"))
            .unwrap()
            .to_string(),
        "a[1,3]"
    );
    assert_eq!(
        list("a[1-3,1]").difference(&list("a1")).unwrap().to_string(),
        "a[2-3]"
    );
    assert_eq!(
        list("a[1-3]")
            .symmetric_difference(&list("a[3-4]"))
            .unwrap()
            .to_string(),
        "a[1-2,4]"
    );
    let mut some = list("a[1-5],a3");
    assert!(some.remove("a3") && !some.remove("b"));
    assert_eq!(some.to_string(), "a[1-2,4-5,3]");
    assert_eq!(some.delete(&list("a[1-3]")), Ok(3));
    assert_eq!(some.to_string(), "a[4-5]");
    some.append("a6,b").unwrap();
    some.push("c").unwrap();
    assert_eq!(some.to_string(), "a[4-6],b,c");
    assert_eq!(some.index().unwrap().get("b"), Some(&vec![3]));
}

#[test]
fn refused() {
    for bad in [
        "[",
        "]",
        "a[",
        "a]",
        "a[]",
        "a[1",
        "a[1]]",
        "a[1][2]",
        "a[[1]]",
        "a[2-1]",
        "a[1-2-3]",
        "a[x]",
        "a[-1]",
        "a[1,]",
        "a b",
        "a\n",
        "é",
        "a[4294967296]",
        "a[1]b[2]",
        "a,[",
        "a[00000000000000000000000000000000000000001]",
    ] {
        assert!(bad.parse::<Hostlist>().is_err(), "{bad}");
    }
    assert!(list("a").push("b,c").is_err() && list("a").push("").is_err());
}

proptest! {
    #[test]
    fn round_trip(names in prop::collection::vec("[a-c-]{0,2}[0-9]{1,3}[x-]{0,1}", 0..20)) {
        let mut all = Hostlist::new();
        for name in &names {
            all.push(name).unwrap();
        }
        prop_assert_eq!(all.expand().unwrap(), names.clone());
        prop_assert_eq!(list(&all.to_string()).expand().unwrap(), names.clone());
        for (index, name) in names.iter().enumerate() {
            prop_assert_eq!(&all.nth(index as u64).unwrap(), name);
            let first = names.iter().position(|other| other == name).map(|at| at as u64);
            prop_assert_eq!(all.find(name), first);
        }
        for name in names {
            prop_assert!(all.remove(&name));
        }
        prop_assert!(all.is_empty());
    }

    #[test]
    fn text_round_trip(text in "[ab0-3,\\[\\]-]{0,24}") {
        if let Ok(parsed) = text.parse::<Hostlist>() && parsed.count() < 1000 {
            let again = list(&parsed.to_string());
            prop_assert_eq!(again.expand().unwrap(), parsed.expand().unwrap());
        }
    }
}
