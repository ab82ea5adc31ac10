//! Cases 34 to 38: the document on standard input and the header of J.

use std::fs;
use std::io::Write;
use std::process::Stdio;
use std::time::Duration;

use sha2::{Digest, Sha256};

use crate::world::*;

/// Feeds `exec` from a pipe, in parts.
fn feed(world: &World, parts: &[&[u8]], pause: Duration) -> Output {
    let (reader, mut writer) = std::io::pipe().unwrap();
    std::thread::scope(|scope| {
        scope.spawn(move || {
            for part in parts {
                // A refusal closes the pipe early.
                if writer.write_all(part).is_err() {
                    return;
                }
                std::thread::park_timeout(pause);
            }
        });
        world.run(world.imp(&["exec", SHELL, "1"]).stdin(reader))
    })
}

#[test]
fn case_034_input_of_any_length_and_speed() {
    let Some(world) = World::new() else { return };
    let document = format!("{{\"J\":\"{}\"}}", world.token(ALI));
    let nothing = Duration::ZERO;
    feed(&world, &[], nothing).refused("invalid json input");
    feed(&world, &[&document.as_bytes()[..100]], nothing).refused("invalid json input");
    feed(&world, &[document.as_bytes(), b"\n\n"], nothing);
    let bytes: Vec<&[u8]> = document.as_bytes().chunks(1).collect();
    let slow = feed(&world, &bytes, Duration::from_micros(500));
    assert_eq!(slow.code, Some(0), "{slow:?}");
    let endless = || fs::File::open("/dev/zero").unwrap();
    world
        .run(world.imp(&["exec", SHELL, "1"]).stdin(endless()))
        .refused("the input is longer than");
    let blanks = vec![b' '; 6 << 20];
    feed(&world, &[&blanks], nothing).refused("the input is longer than");
    // J as long as it may be, and longer.
    for (size, why) in [(4_100_000, "sign-unwrap"), (5_000_000, "")] {
        let long = format!("{{\"J\":\"{}\"}}", "a".repeat(size));
        feed(&world, &[long.as_bytes()], nothing).refused(why);
    }
    let sparse = world.put("sparse", "", 0o644);
    fs::OpenOptions::new()
        .write(true)
        .open(&sparse)
        .unwrap()
        .set_len(4 << 30)
        .unwrap();
    world
        .run(&mut world.exec(&sparse))
        .refused("the input is longer than");
    // A pipe that never comes to an end is left by a signal.
    let mut command = world.imp(&["exec", SHELL, "1"]);
    let mut child = command
        .stdin(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    std::thread::park_timeout(Duration::from_millis(30));
    crate::world::sys::kill(child.id().cast_signed(), libc::SIGTERM);
    assert_ne!(finish(&mut child, Duration::from_secs(5)).code, Some(0));
    world.nothing_is_left();
}

#[test]
fn case_035_json() {
    let Some(world) = World::new() else { return };
    let (ali, bob) = (world.token(ALI), world.token(BOB));
    let deep = format!("{{\"J\":\"{ali}\",\"x\":{}", "[".repeat(1_000_000));
    for document in [
        format!("{{\"J\":\"{ali}\",\"J\":\"{bob}\"}}"),
        deep,
        format!("{{\"J\":\"{ali}\",\"x\":1e400}}"),
        format!("{{\"J\":\"{ali}\",\"x\":\"\\ud800\"}}"),
        format!("{{\"J\":\"{ali}\"}}trailing"),
        format!("[\"{ali}\"]"),
        format!("{{\"j\":\"{ali}\"}}"),
        "{\"J\":0}".to_owned(),
        "{\"J\":\"a\\u0000b\"}".to_owned(),
    ] {
        world
            .run(&mut world.exec(&world.document(&document, "")))
            .refused("exec: ");
    }
    let document = format!("{{\"x\":[-0,1.5],\"J\":\"{ali}\"}}");
    world.run(&mut world.exec(&world.document(&document, ""))).ran();
}

fn covered(signed: &[u8]) -> Vec<u8> {
    [&[1], Sha256::digest(signed).as_slice()].concat()
}

fn header(userid: &str) -> Vec<u8> {
    format!("version\0i1\0mechanism\0smunge\0{userid}").into_bytes()
}

#[test]
fn case_036_user_ids() {
    let Some(world) = World::new() else { return };
    let run = |userid: &str| world.try_exec(&world.raw_token(ALI, &header(userid), covered), "");
    run(&format!("userid\0i{ALI}\0")).ran();
    for userid in [
        "userid\0i-1\0",
        "userid\0i4294967295\0",
        "userid\0i4294967296\0",
        "userid\0i4294974298\0",
        "userid\0i-4294960294\0",
        "userid\0i99999999999999999999\0",
        "userid\0s7002\0",
        "userid\0d7002.000000\0",
        "userid\0btrue\0",
        "userid\0i7002x\0",
        "userid\0i+7002\0",
        "userid\0i\0",
        "",
        "userid\0i7002\0userid\0i7003\0",
    ] {
        run(userid).refused("sign-unwrap: header");
    }
    run("userid\0i0\0").refused("uid mismatch");
    // 2^32 + 7002 must not become 7002.
    assert_eq!(4_294_974_298u64 - (1 << 32), u64::from(ALI));
}

#[test]
fn case_037_headers_and_their_base64() {
    let Some(world) = World::new() else { return };
    let token = world.token(ALI);
    let parts: Vec<&str> = token.splitn(3, '.').collect();
    let [head, payload, signature] = parts[..] else {
        panic!("{token}")
    };
    for bad in [
        String::new(),
        ".".to_owned(),
        "..".to_owned(),
        format!("{head}..{signature}"),
        format!(".{payload}.{signature}"),
        format!("{head}.{payload}"),
        format!("{head}.{payload}."),
        format!("{token}.x"),
        format!("{head} .{payload}.{signature}"),
        format!("{head}\\n.{payload}.{signature}"),
        format!("{head}=.{payload}.{signature}"),
        format!("{}.{payload}.{signature}", &head[..head.len() - 1]),
        format!("{head}.{}.{signature}", payload.replace('=', "")),
        format!("{head}.{payload}=.{signature}"),
        format!("-_{head}.{payload}.{signature}"),
        format!("{head}.{payload}.{signature}\\n"),
    ] {
        world.try_exec(&bad, "").refused("exec: sign-");
    }
    let refused = |header: &[u8], why: &str| {
        world
            .try_exec(&world.raw_token(ALI, header, covered), "")
            .refused(why);
    };
    refused(b"", "header version missing");
    refused(
        b"version\0i2\0mechanism\0smunge\0userid\0i7002\0",
        "header version=2 unknown",
    );
    refused(b"mechanism\0smunge\0userid\0i7002\0", "header version missing");
    refused(b"version\0i1\0userid\0i7002\0", "header mechanism missing");
    refused(
        b"version\0i1\0mechanism\0scurve\0userid\0i7002\0",
        "mechanism=curve not allowed",
    );
    refused(
        b"version\0i1\0mechanism\0smunge\0userid\0i7002",
        "header decode error",
    );
    refused(
        b"version\0i1\0\xff\0sx\0mechanism\0smunge\0userid\0i7002\0",
        "header decode error",
    );
    // `none` is allowed here, but serves the caller only.
    let none = |uid| flux_sign::wrap(b"{}", "none", uid).unwrap();
    world
        .try_exec(&none(ALI), "")
        .refused("sign-none-verify: header userid 7002 != real 7001");
    world.try_exec(&none(0), "").refused("sign-none-verify");
    world
        .try_exec(&none(OWNER).replace(".none", ".nobody"), "")
        .refused("signature invalid");
    assert!(
        world
            .try_exec(&none(OWNER), "id -un")
            .ran()
            .stdout
            .starts_with("own\n")
    );
}

#[test]
fn case_038_mechanism_with_control_characters() {
    let Some(world) = World::new() else { return };
    let header = b"version\0i1\0mechanism\0smu\x1b[2J\nflux-imp: forged\0userid\0i7002\0";
    let output = world.try_exec(&world.raw_token(ALI, header, covered), "");
    output.refused("header mechanism=mu\\u{1b}[2J\\nflux-imp: forged unknown");
}
