//! What does a connection carry? With `FLUX_HANDLE_TRACE` in the environment every message is shown on standard error.

use std::io::Write as _;
use std::time::Instant;

use flux_formats::msg::{Kind, Message, NODEID_ANY, NODEID_UPSTREAM, USERID_UNKNOWN, flags, role};

/// Bytes of a payload that is no text which are shown.
const BYTES_SHOWN: usize = 37;

/// Shows messages with the time since the connection was opened.
#[derive(Debug)]
pub(crate) struct Tracer {
    start: Instant,
}

impl Tracer {
    /// Returns a tracer when the environment asks for one.
    pub(crate) fn from_env() -> Option<Self> {
        std::env::var_os("FLUX_HANDLE_TRACE").map(|_| Tracer {
            start: Instant::now(),
        })
    }

    /// Shows one message.
    pub(crate) fn show(&self, msg: &Message) {
        let text = describe(msg, self.start.elapsed().as_secs_f64());
        // nobody to tell when standard error is closed
        drop(std::io::stderr().write_all(text.as_bytes()));
    }
}

fn describe(msg: &Message, seconds: f64) -> String {
    let prefix = match msg.kind {
        Kind::Request => ">",
        Kind::Response => "<",
        Kind::Event => "e",
        Kind::Control => "c",
    };
    let mut out = format!("--------------------------------------\n{prefix} {seconds:.5}\n");
    if !msg.topic.is_empty() {
        line(&mut out, &format!("{prefix} {}", msg.topic));
    }
    let user = match msg.userid {
        USERID_UNKNOWN => "unknown".to_owned(),
        userid => userid.to_string(),
    };
    let (names, roles) = (flag_names(msg.flags), role_names(msg.rolemask));
    let identity = format!("{prefix} flags={names} userid={user} rolemask={roles}");
    let numbers = match msg.kind {
        Kind::Request => {
            let node = match msg.nodeid() {
                NODEID_ANY => "any".to_owned(),
                NODEID_UPSTREAM => "upstream".to_owned(),
                rank => rank.to_string(),
            };
            format!("nodeid={node} matchtag={}", msg.matchtag())
        }
        Kind::Response => format!("errnum={} matchtag={}", msg.errnum(), msg.matchtag()),
        Kind::Event => format!("sequence={}", msg.sequence()),
        Kind::Control => format!("type={} status={}", msg.aux1, msg.aux2),
    };
    line(&mut out, &format!("{identity} {numbers}"));
    if !msg.routes.is_empty() {
        let hops: Vec<_> = msg
            .routes
            .iter()
            .rev()
            .map(|hop| String::from_utf8_lossy(hop))
            .collect();
        line(&mut out, &format!("{prefix} |{}|", hops.join("!")));
    }
    if let Some(payload) = &msg.payload {
        match msg.payload_str() {
            Ok(text) => line(&mut out, &format!("{prefix} {text}")),
            Err(_) => {
                let shown: String = payload
                    .iter()
                    .take(BYTES_SHOWN)
                    .map(|byte| format!("{byte:02X}"))
                    .collect();
                let more = if payload.len() > BYTES_SHOWN { "..." } else { "" };
                line(&mut out, &format!("{prefix} {shown}{more}"));
            }
        }
    }
    out
}

fn line(out: &mut String, text: &str) {
    out.push_str(text);
    out.push('\n');
}

fn flag_names(bits: u8) -> String {
    join(
        u32::from(bits),
        &[
            (flags::TOPIC.into(), "topic"),
            (flags::PAYLOAD.into(), "payload"),
            (flags::NORESPONSE.into(), "noresponse"),
            (flags::ROUTE.into(), "route"),
            (flags::UPSTREAM.into(), "upstream"),
            (flags::PRIVATE.into(), "private"),
            (flags::STREAMING.into(), "streaming"),
            (flags::USER1.into(), "user1"),
        ],
    )
}

fn role_names(mask: u32) -> String {
    match mask {
        role::NONE => "none".to_owned(),
        role::ALL => "all".to_owned(),
        mask => join(
            mask,
            &[
                (role::OWNER, "owner"),
                (role::USER, "user"),
                (role::LOCAL, "local"),
                (role::ADMIN, "admin"),
            ],
        ),
    }
}

fn join(mask: u32, names: &[(u32, &str)]) -> String {
    let set: Vec<&str> = names
        .iter()
        .filter(|(bit, _)| mask & bit != 0)
        .map(|(_, name)| *name)
        .collect();
    if set.is_empty() {
        "none".to_owned()
    } else {
        set.join(",")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_request_and_its_response() {
        let mut request = Message::request("attr.get", NODEID_ANY, Some("{}\0".into()));
        request.aux2 = 7;
        let text = describe(&request, 0.5);
        assert!(text.contains("> 0.50000\n> attr.get\n> flags="), "{text}");
        assert!(text.contains(" nodeid=any matchtag=7\n> {}\n"), "{text}");
        let mut response = request.error_response(2, "");
        response.payload = Some(vec![0xff; 50].into());
        response.routes.push("abc".into());
        let text = describe(&response, 1.0);
        assert!(
            text.contains("< errnum") || text.contains(" errnum=2 matchtag=7\n< |abc|\n< FFFF"),
            "{text}"
        );
        assert!(text.ends_with("FF...\n"), "{text}");
    }
}
