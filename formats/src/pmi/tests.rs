//! Do both directions of PMI-1 match RFC 13?

use super::*;
use proptest::prelude::*;

#[test]
fn requests() {
    for (line, request) in [
        (
            "cmd=init pmi_version=1 pmi_subversion=1\n",
            Request::Init {
                version: 1,
                subversion: 1,
            },
        ),
        ("cmd=get_maxes\n", Request::GetMaxes),
        (
            "cmd=abort\n",
            Request::Abort {
                exitcode: None,
                error_msg: None,
            },
        ),
        (
            "cmd=abort exitcode=1 error_msg=a b\n",
            Request::Abort {
                exitcode: Some(1),
                error_msg: Some("a b"),
            },
        ),
        ("cmd=finalize\n", Request::Finalize),
        ("cmd=get_universe_size\n", Request::GetUniverseSize),
        ("cmd=get_appnum\n", Request::GetAppnum),
        ("cmd=get_my_kvsname\n", Request::GetMyKvsname),
        (
            "cmd=put kvsname=k key=a value=b c=d\n",
            Request::Put {
                kvsname: "k",
                key: "a",
                value: "b c=d",
            },
        ),
        (
            "cmd=get kvsname=k key=a\n",
            Request::Get {
                kvsname: "k",
                key: "a",
            },
        ),
        ("cmd=barrier_in\n", Request::BarrierIn),
        (
            "cmd=publish_name service=s port=p\n",
            Request::PublishName {
                service: "s",
                port: "p",
            },
        ),
        (
            "cmd=unpublish_name service=s\n",
            Request::UnpublishName { service: "s" },
        ),
        (
            "cmd=lookup_name service=s\n",
            Request::LookupName { service: "s" },
        ),
        ("mcmd=spawn\n", Request::Spawn),
        ("endcmd\n", Request::EndSpawn),
    ] {
        assert_eq!(Request::parse(line), Ok(request.clone()));
        assert_eq!(request.to_string(), line);
    }
    // other order, more white space, more keys
    let odd = "key=a \t kvsname=k  cmd=get extra=1";
    assert_eq!(
        Request::parse(odd),
        Ok(Request::Get {
            kvsname: "k",
            key: "a"
        })
    );
    let long = "x".repeat(VALLEN_MAX);
    for (bad, error) in [
        ("", PmiError::Missing("cmd")),
        ("cmd=nope", PmiError::Command),
        ("mcmd=nope", PmiError::Command),
        ("xcmd=init", PmiError::Missing("cmd")),
        (
            "cmd=init pmi_version=x pmi_subversion=1",
            PmiError::Number("pmi_version"),
        ),
        ("cmd=init pmi_version=1", PmiError::Missing("pmi_subversion")),
        ("cmd=get kvsname=k", PmiError::Missing("key")),
        ("cmd=get\0", PmiError::Character),
        (&format!("cmd=put kvsname=k key=a value={long}"), PmiError::Limit),
        (
            &format!("cmd=put kvsname=k key=a value={long}{long}"),
            PmiError::TooLong,
        ),
    ] {
        assert_eq!(Request::parse(bad), Err(error), "{bad}");
    }
    assert_eq!(Request::EndSpawn.unsupported(), Some(Response::Spawn { rc: -1 }));
    assert_eq!(Request::GetMaxes.unsupported(), None);
}

#[test]
fn responses() {
    for (line, response) in [
        (
            "cmd=response_to_init rc=0 pmi_version=1 pmi_subversion=1\n",
            Response::Init {
                rc: 0,
                version: 1,
                subversion: 1,
            },
        ),
        (
            "cmd=maxes rc=0 kvsname_max=64 keylen_max=64 vallen_max=1024\n",
            Response::maxes(),
        ),
        ("\n", Response::Abort),
        ("cmd=finalize_ack rc=0\n", Response::Finalize { rc: 0 }),
        (
            "cmd=universe_size rc=0 size=4\n",
            Response::UniverseSize { rc: 0, size: 4 },
        ),
        (
            "cmd=appnum rc=0 appnum=0\n",
            Response::Appnum { rc: 0, appnum: 0 },
        ),
        (
            "cmd=my_kvsname rc=0 kvsname=f1\n",
            Response::MyKvsname { rc: 0, kvsname: "f1" },
        ),
        ("cmd=put_result rc=-1\n", Response::Put { rc: -1 }),
        (
            "cmd=get_result rc=0 value=a b\n",
            Response::Get {
                rc: 0,
                value: Some("a b"),
            },
        ),
        (
            "cmd=get_result rc=0 value=\n",
            Response::Get {
                rc: 0,
                value: Some(""),
            },
        ),
        ("cmd=get_result rc=-1\n", Response::Get { rc: -1, value: None }),
        ("cmd=barrier_out rc=0\n", Response::BarrierOut { rc: 0 }),
        ("cmd=publish_result rc=-1\n", Response::Publish { rc: -1 }),
        ("cmd=unpublish_result rc=-1\n", Response::Unpublish { rc: -1 }),
        (
            "cmd=lookup_result rc=-1\n",
            Response::Lookup { rc: -1, port: None },
        ),
        ("cmd=spawn_result rc=-1\n", Response::Spawn { rc: -1 }),
    ] {
        assert_eq!(Response::parse(line), Ok(response.clone()));
        assert_eq!(response.to_string(), line);
        assert!(response.rc() <= 0);
    }
    // "The rc key MAY be omitted on success."
    assert_eq!(
        Response::parse("cmd=barrier_out\n"),
        Ok(Response::BarrierOut { rc: 0 })
    );
    assert_eq!(
        Response::parse("cmd=maxes rc=-1"),
        Ok(Response::Maxes {
            rc: -1,
            kvsname_max: 0,
            keylen_max: 0,
            vallen_max: 0
        })
    );
    for bad in [
        "cmd=maxes rc=0",
        "cmd=x",
        "rc=0",
        "cmd=my_kvsname",
        "cmd=appnum appnum=-1",
        "cmd=get_result rc=0",
    ] {
        assert!(Response::parse(bad).is_err(), "{bad}");
    }
}

proptest! {
    #[test]
    fn put_and_get_round_trip(key in "[!-~]{1,63}", value in "[ -~]{0,1023}") {
        let put = Request::Put { kvsname: "f1", key: &key, value: &value };
        let line = put.to_string();
        prop_assert_eq!(Request::parse(&line).unwrap(), put);
        let get = Response::Get { rc: 0, value: Some(&value) };
        let line = get.to_string();
        prop_assert_eq!(Response::parse(&line).unwrap(), get);
    }

    #[test]
    fn never_panics(text in "(cmd|rc|value|key|=|put|get| |1|-){0,20}") {
        drop(Request::parse(&text));
        drop(Response::parse(&text));
    }
}
