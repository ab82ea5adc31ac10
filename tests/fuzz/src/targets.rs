//! Which decoders are fuzzed, and what must hold beside not panicking?
//!
//! What decodes must encode to something that decodes to the same; that is asserted where the form is canonical.

use bytes::Bytes;
use flux_formats::blobref::BlobRef;
use flux_formats::constraint::{Constraint, query};
use flux_formats::eventlog;
use flux_formats::fsd::Fsd;
use flux_formats::hostlist::Hostlist;
use flux_formats::idset::IdSet;
use flux_formats::ioencode;
use flux_formats::jobid::{Encoding, JobId};
use flux_formats::jobspec::Jobspec;
use flux_formats::msg::{FrameDecoder, Message};
use flux_formats::pmi;
use flux_formats::resource_set::{ResourceKind, ResourceSet};
use flux_formats::taskmap::Taskmap;
use flux_formats::treeobj::{TreeObj, normalize_key};
use flux_formats::{mustache, signal, size};
use flux_imp::helpers::{parser, schema};
use flux_imp::relay::{ask, input, report};
use flux_imp::{config, device, log, wire};
use flux_sign::kv::Kv;

/// A decoder under test.
#[derive(Clone, Copy, Debug)]
pub struct Target {
    /// Name, also of the corpus directory.
    pub name: &'static str,
    /// Decodes one input; a panic is a failure.
    pub run: fn(&[u8]),
    /// Bytes of memory allowed for each byte of input.
    pub memory_factor: usize,
}

const fn target(name: &'static str, run: fn(&[u8]), memory_factor: usize) -> Target {
    Target {
        name,
        run,
        memory_factor,
    }
}

/// All targets. Factors above 100 belong to `serde_json::Value`, whose smallest object takes about 200 bytes.
pub const TARGETS: &[Target] = &[
    target("idset", idset, 24),
    target("jobid", jobid, 24),
    target("fsd", fsd, 24),
    target("hostlist", hostlist, 96),
    target("eventlog", events, 96),
    target("blobref", blobref, 24),
    target("treeobj", treeobj, 48),
    target("jobspec", jobspec, 128),
    target("resource_set", resource_set, 128),
    target("constraint", constraint, 320),
    target("query", constraint_query, 400),
    target("ioencode", io, 48),
    target("taskmap", taskmap, 160), // `[4],` is a list of its own
    target("pmi", pmi_lines, 24),
    target("text", text, 24),
    target("msg", message, 48),
    target("frame", frame, 48),
    target("kv", kv, 96),
    target("token", token, 96),
    target("munge", munge, 24),
    target("sign_config", sign_config, 400),
    target("imp_message", imp_message, 192),
    target("imp_config", imp_config, 480),
    target("imp_input", imp_input, 400),
];

fn utf8(bytes: &[u8]) -> &str {
    std::str::from_utf8(bytes).unwrap_or("")
}

fn idset(bytes: &[u8]) {
    if let Ok(set) = utf8(bytes).parse::<IdSet>() {
        assert_eq!(set.to_string().parse(), Ok(set.clone()));
        assert_eq!(
            set.iter().take(100).last(),
            set.nth(set.count().min(100).wrapping_sub(1))
        );
    }
}

fn jobid(bytes: &[u8]) {
    if let Ok(id) = utf8(bytes).parse::<JobId>() {
        for encoding in Encoding::ALL {
            assert_eq!(id.encode(encoding).parse(), Ok(id));
        }
    }
}

fn fsd(bytes: &[u8]) {
    if let Ok(duration) = utf8(bytes).parse::<Fsd>() {
        assert!(duration.to_string().parse::<Fsd>().is_ok(), "{duration}");
    }
}

fn hostlist(bytes: &[u8]) {
    if let Ok(list) = utf8(bytes).parse::<Hostlist>() {
        let again: Result<Hostlist, _> = list.to_string().parse();
        let again = again.unwrap_or_default();
        assert_eq!(again.count(), list.count());
        assert!(list.iter().take(50).eq(again.iter().take(50)));
        if let Some(host) = list.nth(list.count() / 2) {
            assert!(list.contains(&host), "{host}");
        }
    }
}

fn events(bytes: &[u8]) {
    if let Ok(events) = eventlog::decode_log(utf8(bytes)) {
        let mut log = String::new();
        events.iter().for_each(|event| event.append_to(&mut log));
        let again = eventlog::decode_log(&log).unwrap_or_default();
        assert_eq!(again.len(), events.len());
    }
}

fn blobref(bytes: &[u8]) {
    if let Ok(blobref) = utf8(bytes).parse::<BlobRef>() {
        assert_eq!(blobref.to_string(), utf8(bytes));
    }
}

fn treeobj(bytes: &[u8]) {
    if let Ok(object) = TreeObj::decode(bytes) {
        assert!(TreeObj::decode(&object.encode()).is_ok_and(|again| again == object));
    }
    drop(normalize_key(utf8(bytes)));
}

fn jobspec(bytes: &[u8]) {
    if let Ok(spec) = Jobspec::parse(bytes) {
        assert!(Jobspec::parse(spec.encode().as_bytes()).is_ok_and(|again| again == spec));
        assert!(!spec.command().is_empty());
        let _ntasks = spec.ntasks();
        let _dependencies = spec.dependencies().count();
    }
}

fn resource_set(bytes: &[u8]) {
    if let Ok(set) = ResourceSet::decode(bytes) {
        assert!(ResourceSet::decode(set.encode().as_bytes()).is_ok_and(|again| again == set));
        assert!(set.difference(&set).is_empty());
        assert_eq!(
            set.copy_ranks(&set.ranks()).count(ResourceKind::Core),
            set.count(ResourceKind::Core)
        );
        let _short = set.to_string();
        let _remapped = set.remap();
    }
}

fn constraint(bytes: &[u8]) {
    if let Ok(json) = serde_json::from_slice(bytes)
        && let Ok(constraint) = Constraint::from_value(&json)
    {
        let again = Constraint::from_value(&constraint.to_value()).map(|again| again.to_value());
        assert_eq!(again, Ok(constraint.to_value()));
    }
}

fn constraint_query(bytes: &[u8]) {
    if let Ok(json) = query::parse(utf8(bytes), &query::REQUIRES) {
        drop(Constraint::from_value(&json));
    }
}

fn io(bytes: &[u8]) {
    if let Ok(data) = serde_json::from_slice::<ioencode::Data>(bytes) {
        drop(data.decode(None));
    }
    drop(serde_json::from_slice::<ioencode::Header>(bytes));
    drop(serde_json::from_slice::<ioencode::Log>(bytes));
    let encoded = ioencode::Data::encode("stdout", "0", bytes, true);
    assert_eq!(encoded.decode(None).unwrap_or_default(), bytes);
    assert!(ioencode::utf8_boundary(bytes) <= bytes.len());
}

fn taskmap(bytes: &[u8]) {
    if let Ok(map) = utf8(bytes).parse::<Taskmap>() {
        let json = map.to_value();
        assert!(Taskmap::from_value(&json).is_ok_and(|again| again == map));
        if let Some(last) = map.ntasks().checked_sub(1) {
            assert!(map.nodeid(last).is_some_and(|node| map.task_count(node) > 0));
        }
    }
}

fn pmi_lines(bytes: &[u8]) {
    let line = utf8(bytes);
    if let Ok(request) = pmi::Request::parse(line) {
        let again = request.to_string();
        // numbers may be written shorter, so only the meaning is the same
        assert_eq!(pmi::Request::parse(&again), Ok(request));
    }
    if let Ok(response) = pmi::Response::parse(line) {
        let again = response.to_string();
        assert_eq!(pmi::Response::parse(&again), Ok(response));
    }
}

fn text(bytes: &[u8]) {
    let text = utf8(bytes);
    assert_eq!(mustache::expand(text, |_| None), text);
    drop(mustache::expand(text, |_| Some(String::new())));
    let _signal = signal::number(text);
    let _size = size::parse_size(text);
}

fn message(bytes: &[u8]) {
    if let Ok(message) = Message::decode(&Bytes::copy_from_slice(bytes)) {
        // an empty topic or payload may lose its flag, so the second generation is compared
        let bytes = message.encode();
        assert_eq!(bytes.len(), message.encoded_size());
        let Ok(mut again) = Message::decode(&bytes) else {
            panic!("encoded message does not decode");
        };
        assert!(Message::decode(&again.encode()).is_ok_and(|third| third == again));
        again.flags = message.flags;
        assert_eq!((&again.topic, &again.routes), (&message.topic, &message.routes));
        let _text = message.payload_str().is_ok();
    }
}

fn frame(bytes: &[u8]) {
    let mut decoder = FrameDecoder::new(1 << 20);
    for chunk in bytes.chunks(7) {
        decoder.buffer.extend_from_slice(chunk);
        while let Ok(Some(message)) = decoder.next_message() {
            drop(message);
        }
    }
}

fn kv(bytes: &[u8]) {
    if let Ok(list) = Kv::decode(bytes) {
        // a fraction keeps six digits, so the second generation is compared
        let bytes = list.encode();
        assert!(Kv::decode(&bytes).is_ok_and(|again| again.encode() == bytes));
    }
}

fn token(bytes: &[u8]) {
    let text = utf8(bytes);
    // the header alone, so that mutations need not keep base64 intact
    let mut wrapped = String::new();
    flux_sign::base64_encode(bytes, &mut wrapped);
    for token in [text, &format!("{wrapped}..none")] {
        if let Ok(unwrapped) = flux_sign::unwrap_noverify(token) {
            let mut payload = String::new();
            flux_sign::base64_encode(&unwrapped.payload, &mut payload);
            assert_eq!(token.split('.').nth(1), Some(payload.as_str()));
            assert_ne!(unwrapped.userid, u32::MAX);
        }
        if let Err(err) = flux_sign::unwrap(token, 0) {
            assert!(!err.to_string().contains(char::is_control));
        }
    }
}

fn munge(bytes: &[u8]) {
    if let Ok(credential) = flux_sign::munge::parse_encoded(bytes) {
        assert!(!credential.contains(['.', '\0', '\n']));
    }
    for err in [
        flux_sign::munge::parse_encoded(bytes).err(),
        flux_sign::munge::parse_decoded(bytes).err(),
    ] {
        assert!(!err.is_some_and(|err| err.to_string().contains(char::is_control)));
    }
}

fn sign_config(bytes: &[u8]) {
    let mut list = Kv::new();
    if flux_sign::flatten(utf8(bytes), &mut list).is_ok() {
        assert!(Kv::decode(&list.encode()).is_ok());
        if let Ok(config) = flux_sign::Config::from_kv(&list) {
            assert!(!config.allowed_types.is_empty() && config.max_ttl != 0);
        }
    }
}

/// What the relay, which belongs to its caller, may send to the monitor; and the other way.
fn imp_message(bytes: &[u8]) {
    let Ok(kv) = Kv::decode(bytes) else { return };
    if let Some(request) = wire::Request::decode(&kv) {
        let again = request.encode().ok().and_then(|kv| wire::Request::decode(&kv));
        assert_eq!(again, Some(request.clone()));
        if let wire::Request::Exec(exec) = request {
            let rules = exec.devices.iter().flatten();
            assert!(
                rules
                    .filter_map(|rule| device::Rule::parse(rule))
                    .all(|rule| rule.access < 8)
            );
        }
    }
    if let Some(number) = wire::decode_signal(&kv) {
        assert_eq!(ask::signal(number), kv);
    }
    drop((
        ask::decode_ended(&kv),
        report::decode(&kv).map(|(_, text)| log::plain(text)),
    ));
}

/// The same bytes as `imp/conf.d` and as `security/conf.d`, through the sandbox's work and the monitor's look at the answer.
fn imp_config(bytes: &[u8]) {
    let Ok(kv) = parser::flatten(&[(String::new(), bytes.to_vec())]) else {
        return;
    };
    let Ok(answer) = schema::check(&kv, &kv) else {
        return;
    };
    assert!(answer.get("mistake").is_none() && Kv::decode(&answer.encode()).is_ok());
    let config = config::Config(answer);
    assert!(config.number("log-level").is_ok());
    if config.flag("exec") == Ok(true) {
        assert!(config.cgroup().is_ok() && config.flag("exec.pam").is_ok());
        let uid_min = config.number("exec.min-uid").ok();
        assert!(uid_min.is_some_and(|uid| u32::try_from(uid).is_ok()));
        assert!(config.list("exec.user").count() <= wire::LIST_MAX);
    }
    if config.run_path("prolog").is_ok() {
        let mut patterns = config.list("run.prolog.environment");
        let _allowed = patterns.any(|pattern| flux_imp::sys::matches(pattern, "FLUX_JOB_ID"));
    }
}

fn imp_input(bytes: &[u8]) {
    if let Ok(input) = input::parse(bytes) {
        assert!(input.allow.len() <= bytes.len());
    }
}
