//! Is a submission well formed, and may this user make it? Pure; the order and texts of the checks are flux-core's.

use crate::service::RpcError;
use flux_formats::errno;
use flux_formats::jobspec::Apart;
use flux_formats::msg::{Message, role};
use flux_formats::rpc::job_ingest::{SubmitRequest, flags};
use flux_sign::{Mechanism, SignError};
use std::rc::Rc;
use std::sync::Arc;

/// Urgency up to which guests may submit.
const URGENCY_GUEST_MAX: i64 = 16;
/// Highest urgency.
const URGENCY_MAX: i64 = 31;

/// A submission that passed the checks.
#[derive(Debug)]
pub(super) struct Checked {
    pub(super) urgency: u8,
    pub(super) flags: u32,
    pub(super) userid: u32,
    pub(super) rolemask: u32,
    /// How it was signed; of `none` nothing is left to check.
    pub(super) mechanism: Mechanism,
    /// The signed jobspec as it came.
    pub(super) j: Rc<str>,
    /// The jobspec's text as it was signed.
    pub(super) text: Arc<str>,
    pub(super) jobspec: Apart,
}

/// Checks a request.
///
/// # Errors
/// errnum and text for the user.
pub(super) fn check(req: &Message, owner: u32, allow_root: bool) -> Result<Checked, RpcError> {
    let is_owner = req.rolemask & role::OWNER != 0;
    let body: SubmitRequest = req
        .payload_json()
        .map_err(|_| RpcError::new(errno::EPROTO, "error decoding job request: Protocol error"))?;
    let bits = u32::try_from(body.flags)
        .ok()
        .filter(|bits| bits & !flags::ALL == 0);
    let Some(bits) = bits else {
        return Err(RpcError::new(errno::EPROTO, "invalid job flags"));
    };
    if !is_owner && bits & flags::NOVALIDATE != 0 {
        return Err(RpcError::new(
            errno::EPERM,
            "only the instance owner can submit with FLUX_JOB_NOVALIDATE",
        ));
    }
    let inval = |text: String| RpcError::new(errno::EINVAL, text);
    let urgency = u8::try_from(body.urgency)
        .ok()
        .filter(|urgency| i64::from(*urgency) <= URGENCY_MAX);
    let Some(urgency) = urgency else {
        return Err(inval(format!("urgency range is [0:{URGENCY_MAX}]")));
    };
    if !is_owner && body.urgency > URGENCY_GUEST_MAX {
        return Err(inval(format!(
            "only the instance owner can submit with urgency >{URGENCY_GUEST_MAX}"
        )));
    }
    if !is_owner && bits & flags::WAITABLE != 0 {
        return Err(inval(
            "only the instance owner can submit with FLUX_JOB_WAITABLE".to_owned(),
        ));
    }
    let token = flux_sign::unwrap_noverify(&body.j).map_err(|err| inval(err.to_string()))?;
    let perm = |text: String| RpcError::new(errno::EPERM, text);
    if token.userid != req.userid {
        return Err(perm(format!(
            "signer={} != requestor={}",
            token.userid, req.userid
        )));
    }
    match token.mechanism {
        Mechanism::None if !is_owner => {
            return Err(perm("only instance owner can use sign-type=none".to_owned()));
        }
        // munged is asked later about the signature: that takes longer than this may
        Mechanism::None | Mechanism::Munge => {}
        other => return Err(inval(SignError::MechanismUnavailable(other).to_string())),
    }
    let text = String::from_utf8(token.payload)
        .map_err(|_| inval("jobspec: invalid JSON: not UTF-8 text".to_owned()))?;
    let jobspec = Apart::read(&text).map_err(|err| inval(format!("jobspec: invalid JSON: {err}")))?;
    if owner != 0 && !allow_root && req.userid == 0 {
        return Err(inval("submission of jobs as user root not supported".to_owned()));
    }
    Ok(Checked {
        urgency,
        flags: bits,
        userid: req.userid,
        rolemask: req.rolemask,
        mechanism: token.mechanism,
        j: Rc::from(body.j),
        text: Arc::from(text),
        jobspec,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::service::testing::request;
    use serde_json::json;

    const OWNER: u32 = 1000;

    fn submit(userid: u32, owner: bool, urgency: i64, bits: i64, j: &str) -> Result<Checked, (u32, String)> {
        let mut req = request(
            "job-ingest.submit",
            &json!({"J": j, "urgency": urgency, "flags": bits}),
        );
        req.userid = userid;
        req.rolemask = if owner { role::OWNER } else { role::USER };
        check(&req, OWNER, false).map_err(|err| (err.errnum, err.text))
    }

    fn signed(payload: &str, userid: u32) -> String {
        flux_sign::wrap(payload.as_bytes(), "none", userid).unwrap()
    }

    #[test]
    fn order_and_texts() {
        let (own, guests) = (signed("{}", OWNER), signed("{}", 5));
        let checked = submit(OWNER, true, 31, 14, &own).unwrap();
        assert_eq!((checked.urgency, checked.flags, &*checked.text), (31, 14, "{}"));
        for (result, errnum, text) in [
            (
                submit(OWNER, true, 16, 1, &own),
                errno::EPROTO,
                "invalid job flags",
            ),
            (
                submit(OWNER, true, 16, -1, &own),
                errno::EPROTO,
                "invalid job flags",
            ),
            (
                submit(5, false, 99, 8, &guests),
                errno::EPERM,
                "only the instance owner can submit with FLUX_JOB_NOVALIDATE",
            ),
            (
                submit(5, false, 32, 4, &guests),
                errno::EINVAL,
                "urgency range is [0:31]",
            ),
            (
                submit(5, false, -1, 4, &guests),
                errno::EINVAL,
                "urgency range is [0:31]",
            ),
            (
                submit(5, false, 17, 4, &guests),
                errno::EINVAL,
                "only the instance owner can submit with urgency >16",
            ),
            (
                submit(5, false, 16, 4, "x"),
                errno::EINVAL,
                "only the instance owner can submit with FLUX_JOB_WAITABLE",
            ),
            (
                submit(5, false, 16, 0, "x"),
                errno::EINVAL,
                "sign-unwrap: token is not HEADER.PAYLOAD.SIGNATURE",
            ),
            (
                submit(5, false, 16, 0, &own),
                errno::EPERM,
                "signer=1000 != requestor=5",
            ),
            (
                submit(5, false, 16, 0, &guests),
                errno::EPERM,
                "only instance owner can use sign-type=none",
            ),
            (
                submit(OWNER, true, 16, 0, &signed("{", OWNER)),
                errno::EINVAL,
                "jobspec: invalid JSON: EOF while parsing an object at line 1 column 1",
            ),
            (
                submit(0, true, 16, 0, &signed("{}", 0)),
                errno::EINVAL,
                "submission of jobs as user root not supported",
            ),
        ] {
            assert_eq!(result.unwrap_err(), (errnum, text.to_owned()));
        }
        let mut bad = request("job-ingest.submit", &json!({"J": 1}));
        bad.userid = OWNER;
        assert_eq!(check(&bad, OWNER, false).unwrap_err().errnum, errno::EPROTO);
    }
}
