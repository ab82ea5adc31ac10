//! What do two brokers tell each other first? `overlay.hello`, with a check of version and place in the tree.

use flux_formats::msg::{self, Message, Topic};
use serde::{Deserialize, Serialize};

/// Version of flux-core whose wire we speak, as `0xMMmmpp`.
pub(super) const WIRE_VERSION: u32 = 0x00_5800;

/// A child's first request.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct HelloRequest {
    pub(super) rank: u32,
    pub(super) version: u32,
    pub(super) uuid: String,
    pub(super) status: u32,
    #[serde(default)]
    pub(super) hostname: String,
    /// Our own build, so that two builds with the same wire version do not mix.
    #[serde(default)]
    pub(super) build: String,
}

/// The parent's answer.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct HelloResponse {
    pub(super) uuid: String,
    /// Host names of all ranks, as a hostlist.
    #[serde(default)]
    pub(super) hostlist: String,
}

/// Returns this build's identity.
pub(super) fn build_id() -> &'static str {
    env!("CARGO_PKG_VERSION")
}

fn version_text(version: u32) -> String {
    format!(
        "{}.{}.{}",
        version >> 16 & 0xff,
        version >> 8 & 0xff,
        version & 0xff
    )
}

/// Returns why a hello is refused, `None` when it is welcome. `claimed` is the identity that CURVE has proven.
pub(super) fn refusal(hello: &HelloRequest, claimed: &[u8], children: &[u32]) -> Option<String> {
    if hello.version != WIRE_VERSION || hello.build != build_id() {
        return Some(format!(
            "client ({} build {}) version mismatched with server ({} build {})",
            version_text(hello.version),
            hello.build,
            version_text(WIRE_VERSION),
            build_id()
        ));
    }
    if claimed != hello.rank.to_string().as_bytes() {
        return Some(format!("rank {} is not what the certificate proves", hello.rank));
    }
    if !children.contains(&hello.rank) {
        return Some(format!(
            "rank {} is not a peer in the configured topology",
            hello.rank
        ));
    }
    None
}

/// Builds the request.
pub(super) fn request(hello: &HelloRequest) -> Message {
    let payload = msg::json_payload(hello).ok();
    let mut req = Message::request(Topic::from_static("overlay.hello"), msg::NODEID_ANY, payload);
    req.aux2 = 1;
    req
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hello() -> HelloRequest {
        HelloRequest {
            rank: 3,
            version: WIRE_VERSION,
            uuid: "u".into(),
            status: 1,
            hostname: "h".into(),
            build: build_id().into(),
        }
    }

    #[test]
    fn only_the_right_child_is_welcome() {
        assert_eq!(refusal(&hello(), b"3", &[3, 4]), None);
        assert!(refusal(&hello(), b"4", &[3, 4]).unwrap().contains("certificate"));
        assert!(refusal(&hello(), b"3", &[4]).unwrap().contains("not a peer"));
        let old = HelloRequest {
            version: 0x00_4b00,
            ..hello()
        };
        assert!(refusal(&old, b"3", &[3]).unwrap().contains("client (0.75.0 "));
    }
}
