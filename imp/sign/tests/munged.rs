//! Do our credentials and MUNGE's own tools agree? A munged of the test's own, with its own key.

#![expect(clippy::unwrap_used, reason = "helpers of tests fail by panicking")]

use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use flux_sign::munge::{connect, decode, encode};
use flux_sign::{Config, Mechanism, SignError, Signer};

/// A running munged.
struct Munged {
    directory: PathBuf,
    child: Child,
}

impl Munged {
    /// Starts munged; `None`, with a note for the count of skipped cases, where it is not installed.
    fn start(name: &str, key: u8) -> Option<Self> {
        if Command::new("/usr/sbin/munged")
            .arg("--version")
            .stdout(Stdio::null())
            .status()
            .is_err()
        {
            if let Some(list) = std::env::var_os("FLUX_TEST_SKIPPED") {
                let mut list = std::fs::OpenOptions::new()
                    .append(true)
                    .create(true)
                    .open(list)
                    .unwrap();
                writeln!(list, "munged sign::munged::{name}").unwrap();
            }
            return None;
        }
        let directory = std::env::temp_dir().join(format!("flux-munged-{}-{name}", std::process::id()));
        std::fs::create_dir(&directory).unwrap();
        let at = |file: &str| directory.join(file);
        let key: Vec<u8> = (0..128u8).map(|byte| byte.wrapping_mul(key) ^ 0x5a).collect();
        std::fs::write(at("key"), key).unwrap();
        std::fs::set_permissions(at("key"), std::os::unix::fs::PermissionsExt::from_mode(0o600)).unwrap();
        let option = |name: &str, file: &str| format!("--{name}={}", at(file).display());
        let child = Command::new("/usr/sbin/munged")
            .args(["--foreground", "--force", "--num-threads=1"])
            .arg(option("socket", "socket"))
            .arg(option("key-file", "key"))
            .arg(option("log-file", "log"))
            .arg(option("pid-file", "pid"))
            .arg(option("seed-file", "seed"))
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let munged = Munged { directory, child };
        let deadline = Instant::now() + Duration::from_secs(20);
        while encode(&munged.socket(), connect, b"x").is_err() {
            assert!(Instant::now() < deadline, "munged does not come up");
            std::thread::park_timeout(Duration::from_millis(10));
        }
        Some(munged)
    }

    fn socket(&self) -> PathBuf {
        self.directory.join("socket")
    }

    fn signer(&self, max_ttl: i64) -> Signer {
        Signer::new(Config {
            max_ttl,
            default_type: Mechanism::Munge,
            allowed_types: vec![Mechanism::Munge],
            munge_socket: Some(self.socket()),
            cluster: Some("alpha".to_owned()),
        })
    }
}

impl Drop for Munged {
    fn drop(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
        std::fs::remove_dir_all(&self.directory).unwrap();
    }
}

fn own_uid() -> u32 {
    std::os::unix::fs::MetadataExt::uid(&std::fs::metadata("/proc/self").unwrap())
}

fn tool(name: &str, socket: &Path, arguments: &[&str], input: &[u8]) -> Vec<u8> {
    let mut child = Command::new(name)
        .arg(format!("--socket={}", socket.display()))
        .args(arguments)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    child.stdin.take().unwrap().write_all(input).unwrap();
    let output = child.wait_with_output().unwrap();
    assert!(output.status.success(), "{name}: {output:?}");
    output.stdout
}

#[test]
fn credentials_cross_over() {
    let Some(munged) = Munged::start("credentials", 37) else {
        return;
    };
    let payload: Vec<u8> = (0..=255).collect();
    let ours = encode(&munged.socket(), connect, &payload).unwrap();
    let read = tool(
        "unmunge",
        &munged.socket(),
        &["--metadata=/dev/null"],
        ours.as_bytes(),
    );
    assert_eq!(read, payload);
    let theirs = tool("munge", &munged.socket(), &[], &payload);
    let theirs = String::from_utf8(theirs).unwrap();
    let credential = decode(&munged.socket(), connect, theirs.trim_end()).unwrap();
    assert_eq!((credential.uid, credential.payload), (own_uid(), payload));
    // A second time it is a replay, which passes.
    assert!(decode(&munged.socket(), connect, theirs.trim_end()).is_ok());
    // So does one that has expired according to its own lifetime; it is older than a second soon.
    let short = String::from_utf8(tool("munge", &munged.socket(), &["--ttl=1"], b"y")).unwrap();
    let deadline = Instant::now() + Duration::from_secs(20);
    loop {
        let credential = decode(&munged.socket(), connect, short.trim_end()).unwrap();
        let now = std::time::SystemTime::now()
            .duration_since(std::time::UNIX_EPOCH)
            .unwrap()
            .as_secs();
        if now > u64::from(credential.encode_time) + 2 {
            break;
        }
        assert!(Instant::now() < deadline);
        std::thread::park_timeout(Duration::from_millis(200));
    }
}

#[test]
fn tokens_are_signed_and_checked() {
    let Some(munged) = Munged::start("tokens", 37) else {
        return;
    };
    let signer = munged.signer(60);
    let token = signer.wrap(b"{\"version\":1}", None, own_uid()).unwrap();
    let unwrapped = signer.unwrap(&token, 12345).unwrap();
    assert_eq!(unwrapped.payload, b"{\"version\":1}");
    assert_eq!(unwrapped.userid, own_uid());
    assert_eq!(unwrapped.header.get_str("cluster"), Some("alpha"));
    assert_eq!(unwrapped.header.get_str("nonce").map(str::len), Some(32));
    let keys: Vec<&str> = unwrapped.header.iter().map(|(key, _)| key).collect();
    assert_eq!(keys, ["version", "mechanism", "userid", "cluster", "nonce"]);
    assert_ne!(token, signer.wrap(b"{\"version\":1}", None, own_uid()).unwrap());

    // Whatever single character is changed, the token is refused.
    for at in (0..token.len()).step_by(7) {
        let mut bytes = token.clone().into_bytes();
        bytes[at] ^= 1;
        let Ok(flipped) = String::from_utf8(bytes) else {
            continue;
        };
        assert!(signer.unwrap(&flipped, 12345).is_err(), "{at}: {flipped}");
    }
    // The payload of one with the signature of another.
    let other = signer.wrap(b"{\"version\":2}", None, own_uid()).unwrap();
    let part = |token: &str, n: usize| token.split('.').nth(n).unwrap().to_owned();
    let splice = format!("{}.{}.{}", part(&token, 0), part(&other, 1), part(&token, 2));
    assert_eq!(signer.unwrap(&splice, 1), Err(SignError::HashMismatch));
    // In the name of another user.
    let forged = signer.wrap(b"{}", None, own_uid() + 1).unwrap();
    assert_eq!(signer.unwrap(&forged, 1), Err(SignError::UidMismatch));
    assert_eq!(munged.signer(-100).unwrap(&token, 1), Err(SignError::TtlExceeded));
}

#[test]
fn a_key_of_another_cluster_is_refused() {
    let (Some(munged), Some(other)) = (Munged::start("one", 37), Munged::start("another", 41)) else {
        return;
    };
    let token = munged.signer(60).wrap(b"{}", None, own_uid()).unwrap();
    let err = other.signer(60).unwrap(&token, 1).unwrap_err();
    assert_eq!(
        err.to_string(),
        "sign-munge-verify: munge_decode: Invalid credential"
    );
}
