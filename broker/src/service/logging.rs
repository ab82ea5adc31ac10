//! Where does a log entry go? Followers of `flux dmesg`, stderr, rank 0.

use super::core::Core;
use crate::log::Entry;
use flux_formats::msg::{self, Message, NODEID_ANY, flags, role};
use std::io::Write;

impl Core {
    /// Sends an entry to everyone who wants it besides the ring, which has it already.
    pub fn log_dispatch(&mut self, entry: &Entry) {
        let payload = msg::string_payload(&entry.line);
        for follower in self.log.followers.clone() {
            let mut resp = follower.response(Some(payload.clone()));
            self.sign_response(&mut resp);
            self.route_response(resp);
        }
        let level = i8::try_from(entry.level).unwrap_or(7);
        let config = &self.log.config;
        let leader = self.rank() == 0;
        if level <= config.stderr_level && (leader || config.stderr_local) {
            // stderr may be gone; there is nowhere left to report that
            drop(writeln!(std::io::stderr(), "{}", entry.for_stderr()));
        }
        if !leader && level <= config.forward_level && self.parent.is_some() {
            let mut req = Message::request(
                msg::Topic::from_static("log.append"),
                NODEID_ANY,
                Some(bytes::Bytes::copy_from_slice(entry.line.as_bytes())),
            );
            req.aux1 = self.rank();
            req.flags |= flags::NORESPONSE | flags::UPSTREAM;
            req.userid = self.owner;
            req.rolemask = role::OWNER;
            self.route_request(req);
        }
    }
}
