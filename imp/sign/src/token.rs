//! How is a payload put into a token and taken out? RFC 39 `HEADER.PAYLOAD.SIGNATURE`; signatures other than `none` are
//! made and checked by [`Signer`](crate::Signer).

use std::fmt;

use crate::base64;
use crate::kv::{Kv, KvError, Value};

/// Header version that is written and understood.
const VERSION: i64 = 1;

/// A way to sign.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mechanism {
    /// No signature: the reader trusts that the connection's user is the signer.
    None,
    /// A MUNGE credential over the SHA-256 of `HEADER.PAYLOAD`.
    Munge,
    /// An ed25519 signature with a certificate. Known by name, not available yet.
    Curve,
}

impl Mechanism {
    /// Returns the name used in headers and configuration.
    pub fn name(self) -> &'static str {
        match self {
            Mechanism::None => "none",
            Mechanism::Munge => "munge",
            Mechanism::Curve => "curve",
        }
    }

    /// Returns the mechanism of a name.
    pub fn from_name(name: &str) -> Option<Self> {
        [Mechanism::None, Mechanism::Munge, Mechanism::Curve]
            .into_iter()
            .find(|mech| mech.name() == name)
    }
}

/// Why a token could not be made or is not valid. Texts are those of the original where it has one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SignError {
    /// A part is missing, or there are more than three.
    Shape,
    /// HEADER is not base64 of RFC 38 text.
    Header(Option<KvError>),
    /// HEADER has no integer `version`.
    VersionMissing,
    /// HEADER's version is not 1.
    VersionUnknown(i64),
    /// HEADER has no `mechanism`.
    MechanismMissing,
    /// The named mechanism does not exist.
    MechanismUnknown(String),
    /// The named mechanism exists, but the configuration does not allow it.
    MechanismNotAllowed(Mechanism),
    /// The mechanism needs more than the caller has: this build (curve) or a configuration (munge).
    MechanismUnavailable(Mechanism),
    /// The mechanism to sign with does not exist.
    WrapMechanism(String),
    /// HEADER has no integer `userid`.
    UseridMissing,
    /// HEADER's user id is out of range.
    UseridInvalid(i64),
    /// PAYLOAD is not base64.
    Payload,
    /// The signer is not the user who may use the mechanism `none`.
    UseridMismatch {
        /// User named by the header.
        header: u32,
        /// User who verifies.
        real: u32,
    },
    /// SIGNATURE is not what the mechanism `none` demands.
    Signature,
    /// munged made no credential.
    MungeSign(String),
    /// munged did not accept the credential.
    MungeDecode(String),
    /// The credential holds another kind of hash.
    HashType,
    /// The credential was made for another HEADER or PAYLOAD.
    HashMismatch,
    /// The credential was made by another user than HEADER says.
    UidMismatch,
    /// The credential is older than `max-ttl`.
    TtlExceeded,
    /// This machine's clock is before 1970.
    Clock,
}

impl fmt::Display for SignError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            SignError::Shape => f.write_str("sign-unwrap: token is not HEADER.PAYLOAD.SIGNATURE"),
            SignError::Header(None) => f.write_str("sign-unwrap: header decode error: invalid base64"),
            SignError::Header(Some(err)) => write!(f, "sign-unwrap: header decode error: {err}"),
            SignError::VersionMissing => f.write_str("sign-unwrap: header version missing"),
            SignError::VersionUnknown(version) => write!(f, "sign-unwrap: header version={version} unknown"),
            SignError::MechanismMissing => f.write_str("sign-unwrap: header mechanism missing"),
            SignError::MechanismUnknown(name) => {
                write!(f, "sign-unwrap: header mechanism={} unknown", name.escape_debug())
            }
            SignError::MechanismNotAllowed(mechanism) => {
                write!(
                    f,
                    "sign-unwrap: header mechanism={} not allowed",
                    mechanism.name()
                )
            }
            SignError::MechanismUnavailable(mechanism) => {
                write!(f, "sign: mechanism {} is not available here", mechanism.name())
            }
            SignError::WrapMechanism(name) => {
                write!(f, "sign-wrap: unknown mechanism: {}", name.escape_debug())
            }
            SignError::UseridMissing => f.write_str("sign-unwrap: header userid missing"),
            SignError::UseridInvalid(userid) => {
                write!(f, "sign-unwrap: header userid={userid} is no user id")
            }
            SignError::Payload => f.write_str("sign-unwrap: payload decode error: invalid base64"),
            SignError::UseridMismatch { header, real } => {
                write!(f, "sign-none-verify: header userid {header} != real {real}")
            }
            SignError::Signature => f.write_str("sign-none-verify: signature invalid"),
            SignError::MungeSign(why) => write!(f, "sign-munge-sign: {why}"),
            SignError::MungeDecode(why) => write!(f, "sign-munge-verify: munge_decode: {why}"),
            SignError::HashType => f.write_str("sign-munge-verify: unknown hash type"),
            SignError::HashMismatch => f.write_str("sign-munge-verify: SHA256 hash mismatch"),
            SignError::UidMismatch => f.write_str("sign-munge-verify: uid mismatch"),
            SignError::TtlExceeded => f.write_str("sign-munge-verify: max-ttl exceeded"),
            SignError::Clock => f.write_str("sign: the clock says that it is before 1970"),
        }
    }
}

impl std::error::Error for SignError {}

/// What a token holds.
#[derive(Clone, Debug, PartialEq)]
pub struct Unwrapped {
    /// The signed bytes, normally jobspec JSON.
    pub payload: Vec<u8>,
    /// Who signed, according to the header.
    pub userid: u32,
    /// How it was signed.
    pub mechanism: Mechanism,
    /// The whole header, with keys that this version does not know.
    pub header: Kv,
    /// When it was signed, in seconds since 1970; known after a MUNGE credential was checked.
    pub signed_at: Option<i64>,
}

/// Signs `payload` as `userid` by the mechanism `none`.
///
/// # Errors
/// [`SignError::MechanismUnavailable`] for every other mechanism: those need a [`Signer`](crate::Signer).
pub fn wrap_as(payload: &[u8], mechanism: Mechanism, userid: u32) -> Result<String, SignError> {
    if mechanism != Mechanism::None {
        return Err(SignError::MechanismUnavailable(mechanism));
    }
    let mut token = signed_part(&header(mechanism, userid)?, payload);
    token.push_str(".none");
    Ok(token)
}

/// Signs `payload` by the mechanism's name.
///
/// # Errors
/// [`SignError::WrapMechanism`], [`SignError::MechanismUnavailable`].
pub fn wrap(payload: &[u8], mechanism: &str, userid: u32) -> Result<String, SignError> {
    let known =
        Mechanism::from_name(mechanism).ok_or_else(|| SignError::WrapMechanism(mechanism.to_owned()))?;
    wrap_as(payload, known, userid)
}

/// Returns the keys that every header begins with.
pub(crate) fn header(mechanism: Mechanism, userid: u32) -> Result<Kv, SignError> {
    let mut header = Kv::new();
    let mut put =
        |key: &str, value: Value| header.put(key, value).map_err(|err| SignError::Header(Some(err)));
    put("version", Value::Int(VERSION))?;
    put("mechanism", Value::String(mechanism.name().to_owned()))?;
    put("userid", Value::Int(i64::from(userid)))?;
    Ok(header)
}

/// Returns `HEADER.PAYLOAD`.
pub(crate) fn signed_part(header: &Kv, payload: &[u8]) -> String {
    let mut token = String::with_capacity(512 + payload.len().div_ceil(3) * 4);
    base64::encode(&header.encode(), &mut token);
    token.push('.');
    base64::encode(payload, &mut token);
    token
}

/// Takes a token apart without checking the signature, as job-ingest does with what a stamped user sent.
///
/// # Errors
/// Every [`SignError`] except those of verifying.
pub fn unwrap_noverify(token: &str) -> Result<Unwrapped, SignError> {
    split(token, None).map(|parts| parts.unwrapped)
}

/// Takes a token apart and checks the signature `none`; `verifier` is the user id of the calling process.
///
/// # Errors
/// Any [`SignError`].
pub fn unwrap(token: &str, verifier: u32) -> Result<Unwrapped, SignError> {
    let parts = split(token, None)?;
    if parts.unwrapped.mechanism != Mechanism::None {
        return Err(SignError::MechanismUnavailable(parts.unwrapped.mechanism));
    }
    verify_none(&parts.unwrapped, parts.signature, verifier)?;
    Ok(parts.unwrapped)
}

/// The mechanism `none` trusts a user with that user's own requests only.
pub(crate) fn verify_none(unwrapped: &Unwrapped, signature: &str, real: u32) -> Result<(), SignError> {
    if unwrapped.userid != real {
        return Err(SignError::UseridMismatch {
            header: unwrapped.userid,
            real,
        });
    }
    match signature {
        "none" => Ok(()),
        _ => Err(SignError::Signature),
    }
}

/// A token's parts, not verified.
pub(crate) struct Parts<'a> {
    /// What HEADER and PAYLOAD say.
    pub unwrapped: Unwrapped,
    /// `HEADER.PAYLOAD`, which the signature covers.
    pub signed: &'a str,
    /// SIGNATURE.
    pub signature: &'a str,
}

/// Takes a token apart; only mechanisms in `allowed` pass.
pub(crate) fn split<'a>(token: &'a str, allowed: Option<&[Mechanism]>) -> Result<Parts<'a>, SignError> {
    let mut fields = token.split('.');
    let (Some(header), Some(payload), Some(signature), None) =
        (fields.next(), fields.next(), fields.next(), fields.next())
    else {
        return Err(SignError::Shape);
    };
    let signed = token
        .get(..header.len() + 1 + payload.len())
        .ok_or(SignError::Shape)?;
    let header = base64::decode(header).ok_or(SignError::Header(None))?;
    let header = Kv::decode(&header).map_err(|err| SignError::Header(Some(err)))?;
    match header.get_int("version") {
        None => return Err(SignError::VersionMissing),
        Some(VERSION) => {}
        Some(other) => return Err(SignError::VersionUnknown(other)),
    }
    let name = header.get_str("mechanism").ok_or(SignError::MechanismMissing)?;
    let mechanism = Mechanism::from_name(name).ok_or_else(|| SignError::MechanismUnknown(name.to_owned()))?;
    if allowed.is_some_and(|allowed| !allowed.contains(&mechanism)) {
        return Err(SignError::MechanismNotAllowed(mechanism));
    }
    let userid = header.get_int("userid").ok_or(SignError::UseridMissing)?;
    // The highest id stands for "no user".
    let userid = match u32::try_from(userid) {
        Ok(userid) if userid != u32::MAX => userid,
        _ => return Err(SignError::UseridInvalid(userid)),
    };
    let payload = base64::decode(payload).ok_or(SignError::Payload)?;
    Ok(Parts {
        unwrapped: Unwrapped {
            payload,
            userid,
            mechanism,
            header,
            signed_at: None,
        },
        signed,
        signature,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A token as flux-core 0.88 writes it for user 0 and the payload `{}`.
    const GOLDEN: &str = "dmVyc2lvbgBpMQBtZWNoYW5pc20Ac25vbmUAdXNlcmlkAGkwAA==.e30=.none";

    #[test]
    fn golden_token() {
        assert_eq!(wrap(b"{}", "none", 0).unwrap(), GOLDEN);
        let unwrapped = unwrap(GOLDEN, 0).unwrap();
        assert_eq!(
            (unwrapped.payload.as_slice(), unwrapped.userid),
            (b"{}".as_slice(), 0)
        );
        assert_eq!(
            unwrap(GOLDEN, 7),
            Err(SignError::UseridMismatch { header: 0, real: 7 })
        );
        assert_eq!(unwrap_noverify(GOLDEN).unwrap().mechanism, Mechanism::None);
    }

    #[test]
    fn the_fallback_header_order_is_read() {
        let mut token = String::new();
        base64::encode(b"version\0i1\0userid\0i5\0mechanism\0snone\0", &mut token);
        assert_eq!(unwrap(&format!("{token}..none"), 5).unwrap().payload, b"");
    }

    #[test]
    fn bad_tokens() {
        let header = |text: &[u8]| {
            let mut token = String::new();
            base64::encode(text, &mut token);
            format!("{token}.e30=.none")
        };
        let cases = [
            ("".to_owned(), SignError::Shape),
            ("a.b".to_owned(), SignError::Shape),
            (format!("{GOLDEN}.x"), SignError::Shape),
            ("!!.e30=.none".to_owned(), SignError::Header(None)),
            (header(b"x"), SignError::Header(Some(KvError::Truncated))),
            (header(b""), SignError::VersionMissing),
            (header(b"version\0i2\0"), SignError::VersionUnknown(2)),
            (header(b"version\0i1\0"), SignError::MechanismMissing),
            (
                header(b"version\0i1\0mechanism\0sx\0"),
                SignError::MechanismUnknown("x".to_owned()),
            ),
            (
                header(b"version\0i1\0mechanism\0snone\0"),
                SignError::UseridMissing,
            ),
            (
                header(b"version\0i1\0mechanism\0snone\0userid\0i-1\0"),
                SignError::UseridInvalid(-1),
            ),
            (
                header(b"version\0i1\0mechanism\0snone\0userid\0i4294967295\0"),
                SignError::UseridInvalid(4_294_967_295),
            ),
            (
                header(b"version\0i1\0mechanism\0snone\0userid\0i4294967296\0"),
                SignError::UseridInvalid(4_294_967_296),
            ),
            (
                header(b"version\0i1\0mechanism\0snone\0userid\0s0\0"),
                SignError::UseridMissing,
            ),
            (GOLDEN.replace("e30=", "e30"), SignError::Payload),
            (GOLDEN.replace(".none", ".some"), SignError::Signature),
        ];
        for (token, want) in cases {
            assert_eq!(unwrap(&token, 0), Err(want), "{token}");
        }
        let munge = header(b"version\0i1\0mechanism\0smunge\0userid\0i0\0");
        assert!(unwrap_noverify(&munge).is_ok());
        let err = unwrap(&munge, 0).unwrap_err();
        assert_eq!(err.to_string(), "sign: mechanism munge is not available here");
        assert_eq!(
            wrap(b"", "munge", 0),
            Err(SignError::MechanismUnavailable(Mechanism::Munge))
        );
        assert_eq!(
            wrap(b"", "foo", 0),
            Err(SignError::WrapMechanism("foo".to_owned()))
        );
    }
}
