use std::io::{Read, Write};
use std::os::unix::net::UnixListener;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU32, Ordering};
use std::thread::JoinHandle;

use super::*;

/// The body of an answer to "decode".
fn decoded(status: u8, text: &[u8], address: &[u8], uid: u32, payload: &[u8]) -> Vec<u8> {
    let mut body = vec![status, u8::try_from(text.len()).unwrap()];
    body.extend_from_slice(text);
    body.extend_from_slice(&[4, 5, 0, 0]);
    body.extend_from_slice(&300u32.to_be_bytes());
    body.push(u8::try_from(address.len()).unwrap());
    body.extend_from_slice(address);
    for word in [1_700_000_000, 1_700_000_001, uid, 7, u32::MAX, u32::MAX] {
        body.extend_from_slice(&word.to_be_bytes());
    }
    body.extend_from_slice(&u32::try_from(payload.len()).unwrap().to_be_bytes());
    body.extend_from_slice(payload);
    body
}

fn frame(magic: u32, version: u8, kind: u8, body: &[u8]) -> Vec<u8> {
    let mut frame = magic.to_be_bytes().to_vec();
    frame.extend_from_slice(&[version, kind, 0]);
    frame.extend_from_slice(&u32::try_from(body.len()).unwrap().to_be_bytes());
    frame.extend_from_slice(body);
    frame
}

/// A munged that reads a request and answers with fixed bytes, `pause` telling after how many to flush and wait.
pub(crate) struct Fake {
    pub(crate) path: PathBuf,
    thread: Option<JoinHandle<()>>,
}

impl Fake {
    pub(crate) fn new(answers: Vec<Vec<u8>>) -> Self {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let name = format!(
            "munged-{}-{}",
            std::process::id(),
            COUNT.fetch_add(1, Ordering::Relaxed)
        );
        let path = std::env::temp_dir().join(name);
        let listener = UnixListener::bind(&path).unwrap();
        let thread = std::thread::spawn(move || {
            for answer in answers {
                let (mut stream, _) = listener.accept().unwrap();
                let mut header = [0; HEADER_SIZE];
                stream.read_exact(&mut header).unwrap();
                let size = u32::from_be_bytes(header[7..].try_into().unwrap());
                let mut body = vec![0; size as usize];
                stream.read_exact(&mut body).unwrap();
                if answer.is_empty() {
                    // Hangs until the client gives up.
                    let _closed = stream.read(&mut header);
                } else {
                    // The client may have seen enough before the last byte.
                    let _sent = answer.iter().try_for_each(|byte| stream.write_all(&[*byte]));
                }
            }
        });
        Fake {
            path,
            thread: Some(thread),
        }
    }

    /// Answers one "decode".
    pub(crate) fn deciding(uid: u32, payload: &[u8]) -> Self {
        Fake::new(vec![frame(
            MAGIC,
            VERSION,
            DECODE_RESPONSE,
            &decoded(0, b"", b"", uid, payload),
        )])
    }
}

impl Drop for Fake {
    fn drop(&mut self) {
        self.thread.take().unwrap().join().unwrap();
        std::fs::remove_file(&self.path).unwrap();
    }
}

#[test]
fn answers_are_read() {
    let body = decoded(0, b"Success\0", &[10, 0, 0, 1], 1000, b"abc");
    let want = Credential {
        uid: 1000,
        encode_time: 1_700_000_000,
        payload: b"abc".to_vec(),
    };
    assert_eq!(parse_decoded(&body).unwrap(), want);
    for status in [STATUS_EXPIRED, STATUS_REPLAYED] {
        assert_eq!(
            parse_decoded(&decoded(status, b"x", b"", 1000, b"abc")).unwrap(),
            want
        );
    }
    assert_eq!(
        parse_encoded(b"\0\0\0\0\0\x04a:b\0").unwrap(),
        "a:b",
        "the end of the C string goes"
    );
}

#[test]
fn refusals_name_the_reason() {
    let err = parse_decoded(&decoded(14, b"Invalid \x1b[2Jcredential\n\0", b"", 0, b"")).unwrap_err();
    assert_eq!(err.to_string(), "Invalid [2Jcredential");
    let err = parse_decoded(&decoded(16, b"", b"", 0, b"")).unwrap_err();
    assert_eq!(err.to_string(), "munged status 16");
    assert!(matches!(
        parse_encoded(b"\x05\0\0\0\0\0"),
        Err(MungeError::Status(5, _))
    ));
}

#[test]
fn bad_answers_are_refused() {
    let whole = decoded(0, b"Success", &[10, 0, 0, 1], 1000, b"abc");
    for len in 0..whole.len() {
        assert!(
            matches!(parse_decoded(&whole[..len]), Err(MungeError::Protocol(_))),
            "{len}"
        );
    }
    let mut longer = whole.clone();
    longer.push(0);
    assert!(parse_decoded(&longer).is_err());
    assert!(parse_decoded(&decoded(0, b"", &[1, 2, 3], 0, b"")).is_err());
    for bad in [
        b"\0\0\0\0\0\0".as_slice(),
        b"\0\0\0\0\0\x02a.",
        b"\0\0\0\0\0\x02a\n",
        b"\0\0\0\0\0\x01\0",
        b"\0\0\0\0\0\x01\xff",
        b"\0\0\xff\xff\xff\xffa",
    ] {
        assert!(
            matches!(parse_encoded(bad), Err(MungeError::Protocol(_))),
            "{bad:?}"
        );
    }
}

#[test]
fn a_bad_server_is_refused() {
    let body = decoded(0, b"", b"", 1, b"x");
    for (answer, words) in [
        (frame(MAGIC, VERSION, ENCODE_RESPONSE, &body), "wrong type"),
        (frame(MAGIC + 1, VERSION, DECODE_RESPONSE, &body), "not MUNGE"),
        (frame(MAGIC, 3, DECODE_RESPONSE, &body), "not MUNGE"),
        (
            frame(MAGIC, VERSION, DECODE_RESPONSE, &vec![0; BODY_MAX + 1]),
            "too long",
        ),
        (b"GET / HTTP/1.1\r\n".to_vec(), "not MUNGE"),
    ] {
        let fake = Fake::new(vec![answer]);
        let err = decode(&fake.path, connect, "MUNGE:x:").unwrap_err().to_string();
        assert!(err.contains(words), "{err}");
    }
}

#[test]
fn a_hung_server_costs_no_more_than_the_timeout() {
    let fake = Fake::new(vec![Vec::new()]);
    let started = Instant::now();
    let err = decode(&fake.path, connect, "MUNGE:x:").unwrap_err();
    assert_eq!(err.to_string(), "munged does not answer");
    assert!(started.elapsed() >= TIMEOUT);
}

#[test]
fn a_server_that_goes_away_is_tried_again() {
    let whole = frame(MAGIC, VERSION, DECODE_RESPONSE, &decoded(0, b"", b"", 5, b"x"));
    let cut = whole[..20].to_vec();
    let fake = Fake::new(vec![cut, whole]);
    assert_eq!(decode(&fake.path, connect, "MUNGE:x:").unwrap().uid, 5);
}

#[test]
fn nobody_listens() {
    let err = decode(Path::new("/nonexistent/munge"), connect, "x")
        .unwrap_err()
        .to_string();
    assert!(err.starts_with("cannot talk to munged (is it running?)"), "{err}");
    let long = "x".repeat(CREDENTIAL_MAX + 1);
    assert!(decode(Path::new("/nonexistent"), connect, &long).is_err());
}
