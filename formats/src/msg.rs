//! How is a Flux message laid out in bytes? (RFC 3, as flux-core really encodes it.)
//!
//! A message is a stack of routes, an optional topic, an optional payload and a 20-byte PROTO part.
//! [`Message::encode`] gives the parts joined as the local connector and the overlay carry them;
//! [`frame`] and [`FrameDecoder`] add and remove the 8-byte stream header.
//! Where RFC 3 and flux-core differ, this follows flux-core (see `docs/compat/deviations.md`).

use bytes::{BufMut, Bytes, BytesMut};
use serde::Serialize;
use serde::de::DeserializeOwned;

/// Node id that lets the routing layer choose the rank.
pub const NODEID_ANY: u32 = 0xFFFF_FFFF;
/// Node id that means "the parent of the sender" (API only; on the wire it is a flag).
pub const NODEID_UPSTREAM: u32 = 0xFFFF_FFFE;
/// User id of a message that nobody has stamped yet.
pub const USERID_UNKNOWN: u32 = 0xFFFF_FFFF;
/// Returns the user id that a JSON integer stands for: C clients send ids above 2^31 as negative numbers.
pub fn userid_from_json(number: i64) -> Option<u32> {
    match i32::try_from(number) {
        Ok(signed) => Some(signed.cast_unsigned()),
        Err(_) => u32::try_from(number).ok(),
    }
}

/// Deserializes a user id as [`userid_from_json`] reads it.
///
/// # Errors
/// The number is no user id.
pub fn deserialize_userid<'de, D: serde::Deserializer<'de>>(deserializer: D) -> Result<u32, D::Error> {
    let number = <i64 as serde::Deserialize>::deserialize(deserializer)?;
    userid_from_json(number).ok_or_else(|| serde::de::Error::custom(format!("{number} is not a user id")))
}

/// Matchtag of a request that expects no matched response.
pub const MATCHTAG_NONE: u32 = 0;

/// Bits of the flags octet of PROTO.
pub mod flags {
    /// A topic part is present.
    pub const TOPIC: u8 = 0x01;
    /// A payload part is present.
    pub const PAYLOAD: u8 = 0x02;
    /// The sender of the request wants no response.
    pub const NORESPONSE: u8 = 0x04;
    /// Routes and their delimiter are present.
    pub const ROUTE: u8 = 0x08;
    /// The request skips the sender's own rank and goes to its parent.
    pub const UPSTREAM: u8 = 0x10;
    /// The event is only for its owner and the instance owner.
    pub const PRIVATE: u8 = 0x20;
    /// The request may get several responses.
    pub const STREAMING: u8 = 0x40;
    /// Free for the application.
    pub const USER1: u8 = 0x80;
}

/// Bits of the role mask (RFC 12).
pub mod role {
    /// No role.
    pub const NONE: u32 = 0;
    /// The instance owner.
    pub const OWNER: u32 = 1;
    /// A guest.
    pub const USER: u32 = 2;
    /// The message entered through this broker's local connector.
    pub const LOCAL: u32 = 4;
    /// A guest who is exempt from private mode.
    pub const ADMIN: u32 = 8;
    /// Every role.
    pub const ALL: u32 = 0xFFFF_FFFF;
}

/// Control message types (aux1) on the overlay.
pub mod control {
    /// Keeps a quiet connection alive.
    pub const HEARTBEAT: u32 = 0;
    /// Carries the sender's subtree status in aux2.
    pub const STATUS: u32 = 1;
    /// Asks the peer to disconnect.
    pub const DISCONNECT: u32 = 2;
}

const PROTO_MAGIC: u8 = 0x8e;
const PROTO_VERSION: u8 = 1;
const PROTO_SIZE: usize = 20;
const FRAME_MAGIC: u32 = 0xffee_0012;
/// Size in bytes of the header before each message on a stream socket.
pub const FRAME_HEADER_SIZE: usize = 8;
/// Most routes that a decoded message may carry; deeper stacks are refused.
pub const ROUTES_MAX: usize = 256;

/// The four message kinds of RFC 3.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Kind {
    /// Asks a service for something; aux1 = nodeid, aux2 = matchtag.
    Request = 1,
    /// Answers a request; aux1 = errnum, aux2 = matchtag.
    Response = 2,
    /// Is broadcast to subscribers; aux1 = sequence number.
    Event = 4,
    /// Talks between two overlay peers; aux1 = type, aux2 = status.
    Control = 8,
}

/// Why bytes are not a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum DecodeError {
    /// The frame does not begin with the magic number.
    #[error("frame magic is {0:#010x}, not 0xffee0012")]
    FrameMagic(u32),
    /// The frame announces more than the receiver accepts.
    #[error("frame of {size} bytes exceeds the limit of {limit}")]
    TooLarge {
        /// Announced size in bytes.
        size: usize,
        /// Limit in bytes.
        limit: usize,
    },
    /// A part's size runs past the end.
    #[error("part at offset {0} is truncated")]
    Truncated(usize),
    /// The last part is not a PROTO of 20 bytes with the known magic and version.
    #[error("bad PROTO part")]
    Proto,
    /// The type octet is none of the four.
    #[error("unknown message type {0:#04x}")]
    UnknownKind(u8),
    /// The parts do not match the flags.
    #[error("parts do not match the flags {0:#04x}")]
    Flags(u8),
    /// The topic is empty or not UTF-8.
    #[error("topic is empty or not UTF-8")]
    Topic,
    /// More than [`ROUTES_MAX`] routes.
    #[error("too many routes")]
    Routes,
}

/// A decoded RFC 3 message. Payload, topic and routes share the receive buffer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Message {
    /// What it is.
    pub kind: Kind,
    /// Bits of [`flags`]; TOPIC, PAYLOAD follow the fields when encoding, ROUTE is kept.
    pub flags: u8,
    /// Sender's user id, [`USERID_UNKNOWN`] before stamping.
    pub userid: u32,
    /// Sender's roles, bits of [`role`].
    pub rolemask: u32,
    /// Request: nodeid; response: errnum; event: sequence; control: type.
    pub aux1: u32,
    /// Request and response: matchtag; control: status; event: 0.
    pub aux2: u32,
    /// Route stack, oldest first: the original sender is `routes[0]`, the top of the stack is last.
    pub routes: Vec<Bytes>,
    /// Topic; empty means that the message has none.
    pub topic: Topic,
    /// Payload without any added framing; JSON payloads end with NUL.
    pub payload: Option<Bytes>,
}

/// A topic string: UTF-8 bytes shared with the receive buffer or static text.
#[derive(Clone, PartialEq, Eq, Hash, Default)]
pub struct Topic(Bytes);

impl Topic {
    /// Returns a topic of static text without allocating.
    pub const fn from_static(text: &'static str) -> Self {
        Topic(Bytes::from_static(text.as_bytes()))
    }

    /// Returns the text.
    pub fn as_str(&self) -> &str {
        // Every constructor has checked UTF-8; an empty answer would only hide a bug in this module.
        std::str::from_utf8(&self.0).unwrap_or("")
    }

    /// Returns true for a message without topic.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Returns the first word, which names the service.
    pub fn service(&self) -> &str {
        let text = self.as_str();
        text.split_once('.').map_or(text, |(service, _)| service)
    }

    /// Returns all words but the last, sharing the bytes; empty when there is one word.
    pub fn parent_path(&self) -> Bytes {
        match self.as_str().rfind('.') {
            Some(dot) => self.0.slice(..dot),
            None => Bytes::new(),
        }
    }

    /// Returns what follows the first dot, or "" when there is none.
    pub fn method(&self) -> &str {
        self.as_str().split_once('.').map_or("", |(_, method)| method)
    }
}

impl std::ops::Deref for Topic {
    type Target = str;
    fn deref(&self) -> &str {
        self.as_str()
    }
}

impl std::fmt::Debug for Topic {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{:?}", self.as_str())
    }
}

impl std::fmt::Display for Topic {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.as_str())
    }
}

impl From<&str> for Topic {
    fn from(text: &str) -> Self {
        Topic(Bytes::copy_from_slice(text.as_bytes()))
    }
}

impl From<String> for Topic {
    fn from(text: String) -> Self {
        Topic(Bytes::from(text.into_bytes()))
    }
}

/// Encodes a value as a JSON payload, ending with NUL as every JSON payload does.
///
/// # Errors
/// Those of `serde_json` for values that JSON cannot hold.
pub fn json_payload<T: Serialize + ?Sized>(value: &T) -> Result<Bytes, serde_json::Error> {
    let mut buf = Vec::with_capacity(128);
    serde_json::to_writer(&mut buf, value)?;
    buf.push(0);
    Ok(Bytes::from(buf))
}

/// Returns a string payload: the text and a NUL.
pub fn string_payload(text: &str) -> Bytes {
    let mut buf = Vec::with_capacity(text.len() + 1);
    buf.extend_from_slice(text.as_bytes());
    buf.push(0);
    Bytes::from(buf)
}

/// Why a payload could not be used.
#[derive(Debug, thiserror::Error)]
pub enum PayloadError {
    /// The message carries no payload.
    #[error("message has no payload")]
    Missing,
    /// The payload does not end with NUL, or is not UTF-8.
    #[error("payload is not a NUL-terminated UTF-8 string")]
    NotString,
    /// The payload is not the expected JSON.
    #[error("payload is not the expected JSON object")]
    Json(#[from] serde_json::Error),
}

impl Message {
    fn new(kind: Kind, flags: u8, topic: Topic, payload: Option<Bytes>) -> Self {
        Message {
            kind,
            flags,
            userid: USERID_UNKNOWN,
            rolemask: role::NONE,
            aux1: 0,
            aux2: 0,
            routes: Vec::new(),
            topic,
            payload: payload.filter(|p| !p.is_empty()),
        }
    }

    /// Returns a request to `nodeid` with matchtag 0 and an empty route stack.
    pub fn request(topic: impl Into<Topic>, nodeid: u32, payload: Option<Bytes>) -> Self {
        let mut msg = Message::new(Kind::Request, flags::ROUTE, topic.into(), payload);
        msg.aux1 = nodeid;
        if nodeid == NODEID_UPSTREAM {
            msg.flags |= flags::UPSTREAM;
        }
        msg
    }

    /// Returns an unpublished event (sequence 0), without routes as the broker publishes it.
    pub fn event(topic: impl Into<Topic>, payload: Option<Bytes>) -> Self {
        Message::new(Kind::Event, 0, topic.into(), payload)
    }

    /// Returns a control message.
    pub fn control(control_type: u32, status: u32) -> Self {
        let mut msg = Message::new(Kind::Control, 0, Topic::default(), None);
        msg.aux1 = control_type;
        msg.aux2 = status;
        msg
    }

    /// Returns the success response to this request: same topic, routes, matchtag and STREAMING flag.
    pub fn response(&self, payload: Option<Bytes>) -> Self {
        let keep = flags::ROUTE | flags::STREAMING | flags::UPSTREAM;
        let mut msg = Message::new(Kind::Response, self.flags & keep, self.topic.clone(), payload);
        msg.routes = self.routes.clone();
        msg.aux2 = self.aux2;
        msg
    }

    /// Returns the error response to this request; `errnum` 0 becomes EINVAL, empty text means none.
    pub fn error_response(&self, errnum: u32, text: &str) -> Self {
        let payload = if text.is_empty() {
            None
        } else {
            Some(string_payload(text))
        };
        let mut msg = self.response(payload);
        msg.aux1 = if errnum == 0 { 22 } else { errnum };
        msg
    }

    /// Returns the node id of a request.
    pub fn nodeid(&self) -> u32 {
        self.aux1
    }

    /// Returns the error number of a response.
    pub fn errnum(&self) -> u32 {
        self.aux1
    }

    /// Returns the matchtag of a request or response.
    pub fn matchtag(&self) -> u32 {
        self.aux2
    }

    /// Returns the sequence number of an event.
    pub fn sequence(&self) -> u32 {
        self.aux1
    }

    /// Returns true when all bits of `flag` are set.
    pub fn has_flag(&self, flag: u8) -> bool {
        self.flags & flag == flag
    }

    /// Returns true when a response is wanted.
    pub fn wants_response(&self) -> bool {
        self.kind == Kind::Request && !self.has_flag(flags::NORESPONSE)
    }

    /// Returns true when the request may get several responses.
    pub fn is_streaming(&self) -> bool {
        self.has_flag(flags::STREAMING)
    }

    /// Returns the route of the original sender (the one next to the delimiter).
    pub fn sender(&self) -> Option<&Bytes> {
        self.routes.first()
    }

    /// Returns the payload as text, checking the terminating NUL.
    ///
    /// # Errors
    /// [`PayloadError::Missing`] or [`PayloadError::NotString`].
    pub fn payload_str(&self) -> Result<&str, PayloadError> {
        let bytes = self.payload.as_ref().ok_or(PayloadError::Missing)?;
        let (last, text) = bytes.split_last().ok_or(PayloadError::Missing)?;
        if *last != 0 {
            return Err(PayloadError::NotString);
        }
        std::str::from_utf8(text).map_err(|_| PayloadError::NotString)
    }

    /// Decodes the JSON payload.
    ///
    /// # Errors
    /// Any [`PayloadError`]; services answer it with EPROTO.
    pub fn payload_json<T: DeserializeOwned>(&self) -> Result<T, PayloadError> {
        Ok(serde_json::from_str(self.payload_str()?)?)
    }

    /// Decodes the JSON payload, taking a missing one as `{}`.
    ///
    /// # Errors
    /// [`PayloadError::NotString`] or [`PayloadError::Json`].
    pub fn payload_json_or_empty<T: DeserializeOwned>(&self) -> Result<T, PayloadError> {
        if self.payload.is_none() {
            return Ok(serde_json::from_str("{}")?);
        }
        self.payload_json()
    }

    /// Returns the size in bytes of the encoded message, without a stream header.
    pub fn encoded_size(&self) -> usize {
        let mut size = part_size(PROTO_SIZE);
        if self.has_flag(flags::ROUTE) {
            size += 1 + self.routes.iter().map(|r| part_size(r.len())).sum::<usize>();
        }
        if !self.topic.is_empty() {
            size += part_size(self.topic.0.len());
        }
        if let Some(payload) = &self.payload {
            size += part_size(payload.len());
        }
        size
    }

    /// Appends the encoded message: routes (top of the stack first), delimiter, topic, payload, PROTO.
    pub fn encode_into(&self, out: &mut BytesMut) {
        out.reserve(self.encoded_size());
        let mut bits = self.flags & !(flags::TOPIC | flags::PAYLOAD);
        if self.has_flag(flags::ROUTE) {
            for route in self.routes.iter().rev() {
                put_part(out, route);
            }
            put_part(out, &[]);
        }
        if !self.topic.is_empty() {
            bits |= flags::TOPIC;
            put_part(out, &self.topic.0);
        }
        if let Some(payload) = &self.payload {
            bits |= flags::PAYLOAD;
            put_part(out, payload);
        }
        out.put_u8(20);
        out.put_slice(&[PROTO_MAGIC, PROTO_VERSION, self.kind as u8, bits]);
        out.put_u32(self.userid);
        out.put_u32(self.rolemask);
        out.put_u32(self.aux1);
        out.put_u32(self.aux2);
    }

    /// Returns the encoded message without a stream header.
    pub fn encode(&self) -> Bytes {
        let mut out = BytesMut::new();
        self.encode_into(&mut out);
        out.freeze()
    }

    /// Decodes one message; the parts share `bytes`.
    ///
    /// # Errors
    /// Any [`DecodeError`] except the frame ones. Never panics, allocates only the route vector.
    pub fn decode(bytes: &Bytes) -> Result<Self, DecodeError> {
        let mut parts = Parts { bytes, offset: 0 };
        let body_end = bytes
            .len()
            .checked_sub(1 + PROTO_SIZE)
            .ok_or(DecodeError::Proto)?;
        let proto = bytes.get(body_end..).ok_or(DecodeError::Proto)?;
        let (kind, bits) = match proto {
            [20, PROTO_MAGIC, PROTO_VERSION, kind, bits, ..] => (decode_kind(*kind)?, *bits),
            _ => return Err(DecodeError::Proto),
        };
        if bits & (flags::NORESPONSE | flags::STREAMING) == flags::NORESPONSE | flags::STREAMING {
            return Err(DecodeError::Flags(bits));
        }
        let mut msg = Message::new(kind, bits, Topic::default(), None);
        msg.userid = be32(proto, 5);
        msg.rolemask = be32(proto, 9);
        msg.aux1 = be32(proto, 13);
        msg.aux2 = be32(proto, 17);
        if bits & flags::ROUTE != 0 {
            parts.routes_into(&mut msg.routes, body_end)?;
        }
        if bits & flags::TOPIC != 0 {
            let topic = parts.next(body_end)?;
            if topic.is_empty() || std::str::from_utf8(&topic).is_err() {
                return Err(DecodeError::Topic);
            }
            msg.topic = Topic(topic);
        }
        if bits & flags::PAYLOAD != 0 {
            msg.payload = Some(parts.next(body_end)?);
        }
        if parts.offset == body_end {
            Ok(msg)
        } else {
            Err(DecodeError::Flags(bits))
        }
    }
}

struct Parts<'a> {
    bytes: &'a Bytes,
    offset: usize,
}

impl Parts<'_> {
    fn next(&mut self, end: usize) -> Result<Bytes, DecodeError> {
        let at = self.offset;
        let truncated = DecodeError::Truncated(at);
        let rest = self.bytes.get(at..end).ok_or(truncated)?;
        let (header, size) = match rest {
            [255, a, b, c, d, ..] => (
                5usize,
                usize::try_from(u32::from_be_bytes([*a, *b, *c, *d])).map_err(|_| truncated)?,
            ),
            [255, ..] | [] => return Err(truncated),
            [n, ..] => (1, usize::from(*n)),
        };
        let start = at + header;
        let stop = start
            .checked_add(size)
            .filter(|stop| *stop <= end)
            .ok_or(truncated)?;
        self.offset = stop;
        Ok(self.bytes.slice(start..stop))
    }

    fn routes_into(&mut self, routes: &mut Vec<Bytes>, end: usize) -> Result<(), DecodeError> {
        loop {
            let route = self.next(end)?;
            if route.is_empty() {
                break;
            }
            if routes.len() == ROUTES_MAX {
                return Err(DecodeError::Routes);
            }
            routes.push(route);
        }
        routes.reverse();
        Ok(())
    }
}

fn decode_kind(octet: u8) -> Result<Kind, DecodeError> {
    match octet {
        1 => Ok(Kind::Request),
        2 => Ok(Kind::Response),
        4 => Ok(Kind::Event),
        8 => Ok(Kind::Control),
        other => Err(DecodeError::UnknownKind(other)),
    }
}

fn be32(bytes: &[u8], at: usize) -> u32 {
    match bytes.get(at..at + 4) {
        Some([a, b, c, d]) => u32::from_be_bytes([*a, *b, *c, *d]),
        _ => 0,
    }
}

fn part_size(len: usize) -> usize {
    if len < 255 { 1 + len } else { 5 + len }
}

fn put_part(out: &mut BytesMut, part: &[u8]) {
    match u8::try_from(part.len()) {
        Ok(len) if len < 255 => out.put_u8(len),
        _ => {
            out.put_u8(255);
            out.put_u32(u32::try_from(part.len()).unwrap_or(u32::MAX));
        }
    }
    out.put_slice(part);
}

/// Appends one framed message as the local connector's stream socket carries it.
pub fn frame_into(msg: &Message, out: &mut BytesMut) {
    let size = msg.encoded_size();
    out.reserve(FRAME_HEADER_SIZE + size);
    out.put_slice(&FRAME_MAGIC.to_ne_bytes());
    out.put_u32(u32::try_from(size).unwrap_or(u32::MAX));
    msg.encode_into(out);
}

/// Returns one framed message.
pub fn frame(msg: &Message) -> Bytes {
    let mut out = BytesMut::new();
    frame_into(msg, &mut out);
    out.freeze()
}

/// Cuts a byte stream into messages; the caller appends what it reads to [`FrameDecoder::buffer`].
#[derive(Debug)]
pub struct FrameDecoder {
    /// Bytes read and not decoded yet.
    pub buffer: BytesMut,
    limit: usize,
}

impl FrameDecoder {
    /// Returns a decoder that refuses frames of more than `limit` bytes.
    pub fn new(limit: usize) -> Self {
        FrameDecoder {
            buffer: BytesMut::new(),
            limit,
        }
    }

    /// Returns the next whole message, or `None` when more bytes are needed.
    ///
    /// # Errors
    /// Any [`DecodeError`]; the stream cannot be used after one.
    pub fn next_message(&mut self) -> Result<Option<Message>, DecodeError> {
        let Some(header) = self.buffer.get(..FRAME_HEADER_SIZE) else {
            return Ok(None);
        };
        let magic = match header {
            [a, b, c, d, ..] => u32::from_ne_bytes([*a, *b, *c, *d]),
            _ => 0,
        };
        if magic != FRAME_MAGIC {
            return Err(DecodeError::FrameMagic(magic));
        }
        let size = usize::try_from(be32(header, 4)).unwrap_or(usize::MAX);
        if size > self.limit {
            return Err(DecodeError::TooLarge {
                size,
                limit: self.limit,
            });
        }
        if self.buffer.len() < FRAME_HEADER_SIZE + size {
            return Ok(None);
        }
        let mut whole = self.buffer.split_to(FRAME_HEADER_SIZE + size);
        let body = whole.split_off(FRAME_HEADER_SIZE).freeze();
        Message::decode(&body).map(Some)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hex(text: &str) -> Vec<u8> {
        let digits: Vec<u8> = text
            .bytes()
            .filter(u8::is_ascii_hexdigit)
            .map(|c| u8::try_from((c as char).to_digit(16).unwrap()).unwrap())
            .collect();
        digits.chunks(2).map(|d| d[0] << 4 | d[1]).collect()
    }

    // The worked example of the local connector: attr.get {"name":"size"} from a fresh client.
    #[test]
    fn golden_request() {
        let mut msg = Message::request("attr.get", NODEID_ANY, Some(string_payload(r#"{"name":"size"}"#)));
        msg.aux2 = 1;
        let want = hex(concat!(
            "1200eeff00000030 00 08617474722e676574 10 7b226e616d65223a2273697a65227d00",
            "148e01010bffffffff00000000ffffffff00000001"
        ));
        assert_eq!(frame(&msg), want);
        let mut decoder = FrameDecoder::new(1 << 20);
        decoder.buffer.extend_from_slice(&want);
        let mut back = decoder.next_message().unwrap().unwrap();
        back.flags &= !(flags::TOPIC | flags::PAYLOAD);
        assert_eq!(back, msg);
    }

    #[test]
    fn golden_response_event_control() {
        let mut req = Message::request("attr.get", NODEID_ANY, None);
        req.aux2 = 1;
        let mut resp = req.response(Some(string_payload(r#"{"value":"1","flags":1}"#)));
        resp.userid = 0;
        resp.rolemask = role::OWNER;
        assert_eq!(
            resp.encode(),
            hex(concat!(
                "00 08617474722e676574 18 7b2276616c7565223a2231222c22666c616773223a317d00",
                "148e01020b00000000000000010000000000000001"
            ))
        );
        let mut event = Message::event("heartbeat.pulse", None);
        event.aux1 = 7;
        assert_eq!(
            event.encode(),
            hex("0f6865617274626561742e70756c7365 148e010401ffffffff000000000000000700000000")
        );
        let control = Message::control(control::STATUS, 2);
        assert_eq!(
            control.encode(),
            hex("148e010800ffffffff000000000000000100000002")
        );
        let err = req.error_response(2, "no");
        assert_eq!(
            err.encode(),
            hex("00 08617474722e676574 036e6f00 148e01020bffffffff000000000000000200000001")
        );
    }

    #[test]
    fn routes_top_first_and_long_parts() {
        let mut msg = Message::request("a.b", 3, Some(Bytes::from(vec![7u8; 300])));
        msg.routes = vec![Bytes::from_static(b"origin"), Bytes::from_static(b"hop")];
        let bytes = msg.encode();
        assert_eq!(bytes.len(), msg.encoded_size());
        assert_eq!(&bytes[..12], b"\x03hop\x06origin\x00");
        let mut back = Message::decode(&bytes).unwrap();
        back.flags &= !(flags::TOPIC | flags::PAYLOAD);
        assert_eq!(back, msg);
    }

    #[test]
    fn bad_input_is_refused() {
        assert_eq!(Message::decode(&Bytes::new()), Err(DecodeError::Proto));
        let mut decoder = FrameDecoder::new(100);
        decoder.buffer.extend_from_slice(&hex("1200eeff ffffffff"));
        assert!(matches!(
            decoder.next_message(),
            Err(DecodeError::TooLarge { .. })
        ));
        let mut decoder = FrameDecoder::new(100);
        decoder.buffer.extend_from_slice(&hex("ffee0012 00000001"));
        assert!(matches!(decoder.next_message(), Err(DecodeError::FrameMagic(_))));
        let mut decoder = FrameDecoder::new(100);
        decoder.buffer.extend_from_slice(&hex("1200eeff 00000000"));
        assert_eq!(decoder.next_message(), Err(DecodeError::Proto));
        // a topic flag without a topic part
        assert!(Message::decode(&Bytes::from(hex("148e010101ffffffff0000000000000000000000"))).is_err());
        let both = hex("148e010144ffffffff000000000000000000000000");
        assert_eq!(Message::decode(&Bytes::from(both)), Err(DecodeError::Flags(0x44)));
    }
}
