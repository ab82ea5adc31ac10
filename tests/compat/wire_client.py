"""A second client of the broker, for tests: standard library only, written from the description of the wire alone.

It shares no code and no author's habits with the Rust client, so that a mistake in one does not hide in the other.
"""

import collections
import json
import os
import select
import socket
import struct
import time

MAGIC = struct.pack("<I", 0xFFEE0012)  # host order on every machine that is supported
REQUEST, RESPONSE, EVENT, CONTROL = 1, 2, 4, 8
TOPIC, PAYLOAD, NORESPONSE, ROUTE, UPSTREAM, PRIVATE, STREAMING, USER1 = 1, 2, 4, 8, 16, 32, 64, 128
USERID_UNKNOWN = 0xFFFFFFFF
NODEID_ANY = 0xFFFFFFFF
OWNER, USER, LOCAL = 1, 2, 4


class ProtocolError(Exception):
    """The bytes do not follow the description."""


class RpcError(Exception):
    """A response with an error number."""

    def __init__(self, errnum, text):
        super().__init__(text or os.strerror(errnum))
        self.errnum = errnum
        self.text = text


class Message:
    """One message, decoded."""

    def __init__(self, type, topic=None, payload=None, routes=None, flags=0, userid=USERID_UNKNOWN, rolemask=0,
                 aux1=0, aux2=0):
        self.type = type
        self.topic = topic
        self.payload = payload
        self.routes = routes  # None: no route delimiter; a list: most recently pushed first
        self.flags = flags  # beyond those that follow from the parts
        self.userid = userid
        self.rolemask = rolemask
        self.aux1 = aux1
        self.aux2 = aux2

    @property
    def nodeid(self):
        return self.aux1

    errnum = sequence = nodeid

    @property
    def matchtag(self):
        return self.aux2

    def json(self):
        if self.payload is None:
            return None
        if not self.payload.endswith(b"\0"):
            raise ProtocolError("a JSON payload does not end in NUL: %r" % self.payload)
        return json.loads(self.payload[:-1])

    def text(self):
        if not self.payload:
            return ""
        if not self.payload.endswith(b"\0"):
            raise ProtocolError("a text payload does not end in NUL: %r" % self.payload)
        return self.payload[:-1].decode()

    def encode(self):
        flags = self.flags
        parts = []
        if self.routes is not None:
            flags |= ROUTE
            parts += [route.encode() for route in self.routes] + [b""]
        if self.topic is not None:
            flags |= TOPIC
            parts.append(self.topic.encode())
        if self.payload:
            flags |= PAYLOAD
            parts.append(self.payload)
        parts.append(struct.pack(">BBBBIIII", 0x8E, 1, self.type, flags, self.userid, self.rolemask, self.aux1,
                                 self.aux2))
        return b"".join(part(p) for p in parts)

    def frame(self):
        body = self.encode()
        return MAGIC + struct.pack(">I", len(body)) + body


def part(data):
    if len(data) < 255:
        return bytes([len(data)]) + data
    return b"\xff" + struct.pack(">I", len(data)) + data


def split(body):
    parts = []
    at = 0
    while at < len(body):
        size = body[at]
        at += 1
        if size == 255:
            if at + 4 > len(body):
                raise ProtocolError("a long part's size is cut")
            size, = struct.unpack_from(">I", body, at)
            at += 4
        if at + size > len(body):
            raise ProtocolError("a part is cut")
        parts.append(body[at:at + size])
        at += size
    return parts


def decode(body):
    parts = split(body)
    if not parts or len(parts[-1]) != 20:
        raise ProtocolError("the last part is not the 20 byte PROTO part")
    magic, version, type, flags, userid, rolemask, aux1, aux2 = struct.unpack(">BBBBIIII", parts.pop())
    if magic != 0x8E or version != 1:
        raise ProtocolError("magic %#x version %d" % (magic, version))
    message = Message(type, flags=flags & ~(ROUTE | TOPIC | PAYLOAD), userid=userid, rolemask=rolemask, aux1=aux1,
                      aux2=aux2)
    if flags & ROUTE:
        end = parts.index(b"")
        message.routes = [p.decode() for p in parts[:end]]
        parts = parts[end + 1:]
    if flags & TOPIC:
        message.topic = parts.pop(0).decode()
    if flags & PAYLOAD:
        message.payload = parts.pop(0)
    if parts:
        raise ProtocolError("%d parts too many" % len(parts))
    return message


class Client:
    """A connection to a broker's local socket."""

    def __init__(self, uri=None, timeout=20.0):
        uri = uri or os.environ["FLUX_URI"]
        scheme, _, path = uri.partition("://")
        if scheme != "local":
            raise ValueError("only local:// here: " + uri)
        self.timeout = timeout
        self.socket = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.socket.settimeout(timeout)
        self.socket.connect(path)
        accept = self.socket.recv(1)
        if not accept:
            raise ConnectionResetError("no byte of welcome")
        if accept[0]:
            raise OSError(accept[0], os.strerror(accept[0]))
        self.input = b""
        self.tags = set()
        self.waiting = collections.deque()

    def close(self):
        self.socket.close()

    # --- messages ---------------------------------------------------------------------------------------------------
    def send(self, message):
        self.socket.sendall(message.frame())

    def receive(self, timeout=None):
        """Returns the next message from the socket."""
        limit = time.monotonic() + (self.timeout if timeout is None else timeout)
        while True:
            if len(self.input) >= 8:
                if self.input[:4] != MAGIC:
                    raise ProtocolError("frame magic %s" % self.input[:4].hex())
                length, = struct.unpack(">I", self.input[4:8])
                if len(self.input) >= 8 + length:
                    body, self.input = self.input[8:8 + length], self.input[8 + length:]
                    return decode(body)
            left = limit - time.monotonic()
            if left <= 0 or not select.select([self.socket], [], [], left)[0]:
                raise TimeoutError("no message in time")
            data = self.socket.recv(1 << 16)
            if not data:
                raise ConnectionResetError("the broker hung up")
            self.input += data

    def next(self, wanted, timeout=None):
        """Returns the next message for which wanted(message) holds; others are kept for later."""
        for message in self.waiting:
            if wanted(message):
                self.waiting.remove(message)
                return message
        limit = time.monotonic() + (self.timeout if timeout is None else timeout)
        while True:
            message = self.receive(max(limit - time.monotonic(), 0))
            if wanted(message):
                return message
            self.waiting.append(message)

    # --- RPC --------------------------------------------------------------------------------------------------------
    def request(self, topic, payload=None, nodeid=NODEID_ANY, flags=0, raw=None):
        """Sends a request; returns its matchtag (0 for one without response)."""
        tag = 0
        if not flags & NORESPONSE:
            tag = next(n for n in range(1, 1 << 32) if n not in self.tags)
            self.tags.add(tag)
        data = raw if raw is not None else None if payload is None else json.dumps(payload).encode() + b"\0"
        self.send(Message(REQUEST, topic, data, [], flags, aux1=nodeid, aux2=tag))
        return tag

    def response(self, tag, timeout=None):
        message = self.next(lambda m: m.type == RESPONSE and m.matchtag == tag, timeout)
        if message.routes:
            raise ProtocolError("a response with routes reached the client: %r" % message.routes)
        if message.errnum or not message.flags & STREAMING:
            self.tags.discard(tag)
        if message.errnum:
            raise RpcError(message.errnum, message.text())
        return message

    def rpc(self, topic, payload=None, nodeid=NODEID_ANY, raw=None, timeout=None):
        """Returns the response message."""
        return self.response(self.request(topic, payload, nodeid, raw=raw), timeout)

    def call(self, topic, payload=None, nodeid=NODEID_ANY):
        """Returns the response's JSON."""
        return self.rpc(topic, payload, nodeid).json()

    def stream(self, topic, payload=None, nodeid=NODEID_ANY):
        return self.request(topic, payload, nodeid, STREAMING)

    def events(self, prefix):
        self.rpc("event.subscribe", {"topic": prefix})

    def event(self, timeout=None):
        return self.next(lambda m: m.type == EVENT, timeout)

    def incoming(self, timeout=None):
        return self.next(lambda m: m.type == REQUEST, timeout)

    def respond(self, request, payload=None, errnum=0, text=None):
        data = None
        if errnum and text:
            data = text.encode() + b"\0"
        elif payload is not None:
            data = json.dumps(payload).encode() + b"\0"
        self.send(Message(RESPONSE, request.topic, data, request.routes, request.flags, aux1=errnum,
                          aux2=request.aux2))
