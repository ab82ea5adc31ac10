//! Cases 39 to 49: signatures and who made them.

use std::fs;
use std::io::{Read, Write};
use std::os::unix::net::UnixListener;
use std::process::Command;
use std::time::{Duration, Instant};

use sha2::{Digest, Sha256};

use crate::world::*;

fn header(uid: u32) -> Vec<u8> {
    format!("version\0i1\0mechanism\0smunge\0userid\0i{uid}\0").into_bytes()
}

fn covered(signed: &[u8]) -> Vec<u8> {
    [&[1], Sha256::digest(signed).as_slice()].concat()
}

#[test]
fn case_039_one_bit_flipped() {
    let Some(world) = World::new() else { return };
    let token = world.token(ALI);
    let step = token.len() / 25;
    for at in (0..token.len()).step_by(step) {
        let mut bytes = token.clone().into_bytes();
        bytes[at] ^= if bytes[at] == b'.' { 1 } else { 2 };
        let flipped = String::from_utf8(bytes).unwrap().replace(['"', '\\'], "x");
        world.try_exec(&flipped, "").refused("sign-");
    }
}

#[test]
fn case_040_to_042_of_another_request_or_user() {
    let Some(world) = World::new() else { return };
    let one = world.raw_token(ALI, &header(ALI), covered);
    let two = world.token(ALI);
    let part = |token: &str, n: usize| token.splitn(3, '.').nth(n).unwrap().to_owned();
    for splice in [
        format!("{}.{}.{}", part(&one, 0), part(&two, 1), part(&one, 2)),
        format!("{}.{}.{}", part(&one, 0), part(&one, 1), part(&two, 2)),
        format!("{}.{}.{}", part(&two, 0), part(&one, 1), part(&one, 2)),
    ] {
        world.try_exec(&splice, "").refused("SHA256 hash mismatch");
    }
    for (signer, says) in [(BOB, ALI), (OWNER, ALI), (0, ALI), (ALI, BOB)] {
        world
            .try_exec(&world.token_for(signer, says, None), "")
            .refused("uid mismatch");
    }
}

#[test]
fn case_043_049_root_is_nobodys_target_and_no_caller() {
    let Some(world) = World::new() else { return };
    world
        .try_exec(&world.token(0), "")
        .refused("switching to user root not supported");
    world.exec_config("min-uid = 7003");
    world
        .try_exec(&world.token(ALI), "")
        .refused("userid 7002 is below exec.min-uid");
    world.try_exec(&world.token(BOB), "").ran();
    world.exec_config("");
    world.imp_config(format!(
        "[exec]\nallowed-users = [\"own\", \"root\"]\nallowed-shells = [\"{SHELL}\"]"
    ));
    let input = world.input(&world.token(ALI), "");
    let mut command = Command::new(IMP);
    command
        .args(["exec", SHELL, "1"])
        .stdin(fs::File::open(&input).unwrap());
    world.run(&mut command).refused("Refusing to run as root");
    // A user with root's group.
    let users = fs::read_to_string("/etc/passwd").unwrap();
    fs::write("/etc/passwd", users.replace("ali:x:7002:7002", "ali:x:7002:0")).unwrap();
    world
        .run(&mut world.exec(&input))
        .refused("the group of user ali is root's");
    fs::write("/etc/passwd", users.replace("ali:x:7002:7002", "ali:x:0:7002")).unwrap();
    world
        .run(&mut world.exec(&input))
        .refused("userid 7002 is not known");
}

#[test]
fn case_044_age() {
    let Some(world) = World::new() else { return };
    let token = world.token(ALI);
    world.sign_config("/mnt/munge/socket", -100, "");
    world.try_exec(&token, "").refused("max-ttl exceeded");
    world.sign_config("/mnt/munge/socket", i64::MAX, "");
    world.try_exec(&token, "").ran();
    for (ttl, why) in [(0, "max-ttl should be"), (i64::MIN, "max-ttl should be")] {
        world.sign_config("/mnt/munge/socket", ttl, "");
        world.try_exec(&token, "").refused(why);
    }
}

#[test]
fn case_045_069_the_same_request_again() {
    let Some(world) = World::new() else { return };
    let (token, other) = (world.token(ALI), world.token(ALI));
    // As the original: as often as max-ttl allows.
    world.try_exec(&token, "").ran();
    world.try_exec(&token, "").ran();
    world.exec_config("replay = \"refuse\"");
    world.try_exec(&token, "").ran();
    world
        .try_exec(&token, "")
        .refused("the request was used on this node before (replay)");
    world
        .run(
            world
                .imp(&["exec", SHELL, "77"])
                .stdin(fs::File::open(world.input(&token, "")).unwrap()),
        )
        .refused("(replay)");
    world.try_exec(&other, "").ran();
    // An hour may have begun between the two.
    let hours = fs::read_dir("/var/lib/flux-imp").unwrap().flatten();
    let remembered: usize = hours.map(|hour| fs::read_dir(hour.path()).unwrap().count()).sum();
    assert_eq!(remembered, 2);
    // Of another cluster, or of a Flux that does not say which; or signed without the time.
    world
        .try_exec(&world.token_for(ALI, ALI, Some("beta")), "")
        .refused("made for another cluster");
    world.sign_config("/mnt/munge/socket", 1000, "[sign.replay]\ncluster = \"alpha\"");
    world
        .try_exec(&world.token(ALI), "")
        .refused("made for another cluster");
    world
        .try_exec(&world.token_for(ALI, ALI, Some("alpha")), "")
        .ran();
    world
        .try_exec(&world.raw_token(ALI, &header(ALI), covered), "")
        .refused("has no nonce");
    let none = flux_sign::wrap(b"{}", "none", OWNER).unwrap();
    world
        .try_exec(&none, "")
        .refused("needs a mechanism that tells the time");
    // What is too old to be valid is forgotten; other things in the directory are left alone.
    for name in ["hour100", "other"] {
        fs::create_dir(format!("/var/lib/flux-imp/{name}")).unwrap();
        let path = format!("/var/lib/flux-imp/{name}");
        fs::set_permissions(&path, std::os::unix::fs::PermissionsExt::from_mode(0o700)).unwrap();
        fs::write(format!("{path}/hash"), "").unwrap();
    }
    world
        .try_exec(&world.token_for(ALI, ALI, Some("alpha")), "")
        .ran();
    assert!(
        !fs::exists("/var/lib/flux-imp/hour100").unwrap()
            && fs::exists("/var/lib/flux-imp/other/hash").unwrap()
    );
    // A store that others could change is no store.
    let open = std::os::unix::fs::PermissionsExt::from_mode(0o755);
    fs::set_permissions("/var/lib/flux-imp", open).unwrap();
    world
        .try_exec(&world.token_for(ALI, ALI, Some("alpha")), "")
        .refused("must belong to root, with mode 0700");
}

#[test]
fn case_046_credentials_with_restrictions() {
    let Some(world) = World::new() else { return };
    let mut signed = String::new();
    flux_sign::base64_encode(&header(ALI), &mut signed);
    signed.push_str(".e30=");
    let with = |option: &str| {
        let input = world.put("covered", covered(signed.as_bytes()), 0o644);
        let mut command = Command::new("munge");
        std::os::unix::process::CommandExt::uid(&mut command, ALI);
        command
            .args(["--socket=/mnt/munge/socket", option])
            .stdin(fs::File::open(input).unwrap());
        let output = run_within(&mut command, DEADLINE);
        format!("{signed}.{}", output.stdout.trim())
    };
    world.try_exec(&with("--no-output"), "").refused("sign-");
    world
        .try_exec(&with("--restrict-uid=7003"), "")
        .refused("munge_decode");
    world
        .try_exec(&with("--restrict-gid=7003"), "")
        .refused("munge_decode");
    world.try_exec(&with("--ttl=1000"), "").ran();
}

/// A munged of root's that answers with these bytes, or never.
fn fake(world: &World, answer: Option<Vec<u8>>) -> Output {
    let directory = format!("/mnt/fake{}", answer.as_ref().map_or(0, Vec::len));
    fs::create_dir(&directory).unwrap();
    let socket = format!("{directory}/socket");
    let listener = UnixListener::bind(&socket).unwrap();
    let token = world.token(ALI);
    world.sign_config(&socket, 1000, "");
    let thread = std::thread::spawn(move || {
        let (mut stream, _) = listener.accept().unwrap();
        match answer {
            Some(answer) => {
                // What is not read would end the connection before the answer is there.
                drop(stream.read(&mut [0; 8192]));
                drop(stream.write_all(&answer));
            }
            None => drop(stream.read_to_end(&mut Vec::new())),
        }
    });
    let output = world.try_exec(&token, "");
    if !is_foreign() {
        // another may not even connect
        thread.join().unwrap();
    }
    fs::remove_dir_all(&directory).unwrap();
    output
}

fn frame(kind: u8, body: &[u8]) -> Vec<u8> {
    let length = u32::try_from(body.len()).unwrap();
    [
        &0x0060_6D4Bu32.to_be_bytes(),
        [4, kind, 0].as_slice(),
        &length.to_be_bytes(),
        body,
    ]
    .concat()
}

#[test]
fn case_047_munged_misbehaves() {
    let Some(mut world) = World::new() else { return };
    let begun = Instant::now();
    fake(&world, None).refused("munged does not answer");
    assert!(begun.elapsed() < Duration::from_secs(10));
    fake(&world, Some(b"garbage garbage garbage".to_vec()))
        .refused("munged sent something that is not MUNGE");
    fake(&world, Some(frame(5, &[0; 3]))).refused("munged sent an answer that is cut short");
    fake(&world, Some(frame(3, &[0; 99]))).refused("munged sent an answer of the wrong type");
    let mut long = frame(5, &[]);
    long.splice(7..11, u32::MAX.to_be_bytes());
    fake(&world, Some(long)).refused("munged sent an answer that is too long");
    // It says that somebody else signed.
    let mut body = vec![0, 0, 1, 1, 1, 0, 0, 0, 0, 0, 0];
    for word in [0, 0, BOB, BOB, u32::MAX, u32::MAX, 33] {
        body.extend_from_slice(&word.to_be_bytes());
    }
    body.extend_from_slice(&[1; 33]);
    fake(&world, Some(frame(5, &body))).refused("SHA256 hash mismatch");
    // It has more callers than it lets wait.
    let token = world.token(ALI);
    fs::create_dir("/mnt/full").unwrap();
    let _listener = UnixListener::bind("/mnt/full/socket").unwrap();
    let waiting = crate::world::sys::fill("/mnt/full/socket");
    world.sign_config("/mnt/full/socket", 1000, "");
    let begun = Instant::now();
    world.try_exec(&token, "").refused("munged does not answer");
    assert!(waiting.len() > 10 && begun.elapsed() < Duration::from_secs(10));
    world.sign_config("/mnt/munge/socket", 1000, "");
    world.stop_munged();
    world
        .try_exec(&token, "")
        .refused("cannot talk to munged (is it running?)");
}

#[test]
fn case_048_other_hashes() {
    let Some(world) = World::new() else { return };
    let refused = |digest: &dyn Fn(&[u8]) -> Vec<u8>, why: &str| {
        world
            .try_exec(&world.raw_token(ALI, &header(ALI), digest), "")
            .refused(why);
    };
    refused(
        &|signed| [&[2], Sha256::digest(signed).as_slice()].concat(),
        "unknown hash type",
    );
    refused(&|_| Vec::new(), "unknown hash type");
    refused(&|signed| covered(signed)[..20].to_vec(), "hash mismatch");
    refused(&|_| vec![1], "hash mismatch");
    // With more behind it, of the digest or of the text.
    refused(&|signed| [covered(signed), vec![0]].concat(), "hash mismatch");
    refused(&|signed| covered(&[signed, b"\x80"].concat()), "hash mismatch");
}
