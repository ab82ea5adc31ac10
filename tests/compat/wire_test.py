"""Does the broker speak the wire as it is written down? Run with FLUX_URI naming rank 0 of an instance of at least two
brokers and FLUX_URI_1 naming rank 1. Golden bytes are typed by hand, not made by the client's encoder."""

import base64
import errno
import json
import os
import re
import struct
import time
import unittest

from wire_case import Case
from wire_client import (CONTROL, EVENT, LOCAL, MAGIC, NODEID_ANY, NORESPONSE, OWNER, PRIVATE, REQUEST, RESPONSE,
                         STREAMING, UPSTREAM, Message, ProtocolError, RpcError, decode, part)

UUID = re.compile(r"^[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}$")


def octets(text):
    return bytes.fromhex(text.replace("|", " "))


# One per message kind; name, bytes of the whole frame, message.
GOLDEN = [
    ("request with payload",
     "12 00 ee ff 00 00 00 30 | 00 | 08 61 74 74 72 2e 67 65 74 | 10 7b 22 6e 61 6d 65 22 3a 22 73 69 7a 65 22 7d 00 |"
     "14 8e 01 01 0b ff ff ff ff 00 00 00 00 ff ff ff ff 00 00 00 01",
     Message(REQUEST, "attr.get", b'{"name":"size"}\0', [], aux1=NODEID_ANY, aux2=1)),
    ("request without response to a rank",
     "12 00 ee ff 00 00 00 1a | 00 | 03 61 2e 62 | 14 8e 01 01 0d ff ff ff ff 00 00 00 00 00 00 00 02 00 00 00 00",
     Message(REQUEST, "a.b", None, [], NORESPONSE, aux1=2)),
    ("streaming request",
     "12 00 ee ff 00 00 00 1a | 00 | 03 61 2e 62 | 14 8e 01 01 49 ff ff ff ff 00 00 00 00 ff ff ff ff 00 00 00 07",
     Message(REQUEST, "a.b", None, [], STREAMING, aux1=NODEID_ANY, aux2=7)),
    ("upstream request",
     "12 00 ee ff 00 00 00 1a | 00 | 03 61 2e 62 | 14 8e 01 01 19 ff ff ff ff 00 00 00 00 00 00 00 03 00 00 00 07",
     Message(REQUEST, "a.b", None, [], UPSTREAM, aux1=3, aux2=7)),
    ("request with two routes, the last pushed first",
     "12 00 ee ff 00 00 00 22 | 03 6e 65 77 | 03 6f 6c 64 | 00 | 03 61 2e 62 |"
     "14 8e 01 01 09 00 00 03 e8 00 00 00 02 ff ff ff ff 00 00 00 01",
     Message(REQUEST, "a.b", None, ["new", "old"], userid=1000, rolemask=2, aux1=NODEID_ANY, aux2=1)),
    ("response",
     "12 00 ee ff 00 00 00 1d | 00 | 03 61 2e 62 | 02 7b 00 | 14 8e 01 02 0b 00 00 00 00 00 00 00 05 00 00 00 00 00 00 00 01",
     Message(RESPONSE, "a.b", b"{\0", [], userid=0, rolemask=5, aux1=0, aux2=1)),
    ("error response with text",
     "12 00 ee ff 00 00 00 1d | 00 | 03 61 2e 62 | 02 78 00 | 14 8e 01 02 0b ff ff ff ff 00 00 00 00 00 00 00 26 00 00 00 01",
     Message(RESPONSE, "a.b", b"x\0", [], aux1=38, aux2=1)),
    ("event of a client",
     "12 00 ee ff 00 00 00 1a | 00 | 03 61 2e 62 | 14 8e 01 04 09 ff ff ff ff 00 00 00 00 00 00 00 00 00 00 00 00",
     Message(EVENT, "a.b", None, [])),
    ("published private event: no route delimiter",
     "12 00 ee ff 00 00 00 19 | 03 61 2e 62 | 14 8e 01 04 21 00 00 03 e8 00 00 00 02 00 00 00 09 00 00 00 00",
     Message(EVENT, "a.b", None, None, PRIVATE, userid=1000, rolemask=2, aux1=9)),
    ("control",
     "12 00 ee ff 00 00 00 15 | 14 8e 01 08 00 ff ff ff ff 00 00 00 00 00 00 00 01 00 00 00 03",
     Message(CONTROL, aux1=1, aux2=3)),
]


class Golden(unittest.TestCase):
    def test_every_kind_has_its_bytes(self):
        for name, text, message in GOLDEN:
            with self.subTest(name):
                expected = octets(text)
                self.assertEqual(message.frame().hex(), expected.hex())
                length, = struct.unpack(">I", expected[4:8])
                self.assertEqual(length, len(expected) - 8)
                self.assertEqual(vars(decode(expected[8:])), vars(message))

    def test_long_parts(self):
        self.assertEqual(part(b"x" * 254)[:2], b"\xfex")
        self.assertEqual(part(b"x" * 255)[:6], b"\xff\0\0\0\xffx")
        message = Message(REQUEST, "t", b"x" * 70000, [], aux2=1)
        self.assertEqual(decode(message.encode()).payload, message.payload)

    def test_broken_bytes_are_refused(self):
        whole = GOLDEN[0][2].encode()
        for cut in range(len(whole)):
            with self.assertRaises((ProtocolError, ValueError, IndexError)):
                decode(whole[:cut])


class Frames(Case):
    """What the broker itself puts on the socket, byte for byte."""

    def exchange(self, frame):
        self.flux.socket.sendall(frame)
        data = b""
        while len(data) < 8 or len(data) < 8 + struct.unpack(">I", data[4:8])[0]:
            data += self.flux.socket.recv(4096)
        return data

    def test_response_bytes(self):
        size = os.environ["FLUX_SIZE"]
        payload = b'{"value":"%s","flags":1}\0' % size.encode()
        body = (b"\0" + b"\x08attr.get" + bytes([len(payload)]) + payload + b"\x14\x8e\x01\x02\x0b"
                + struct.pack(">IIII", os.getuid(), OWNER | LOCAL, 0, 1))
        answer = self.exchange(octets(GOLDEN[0][1]))
        # the credentials of a response are the responder's: not fixed by the description
        uncredited = lambda data: data[:-16] + data[-8:]
        self.assertEqual(uncredited(answer).hex(), uncredited(MAGIC + struct.pack(">I", len(body)) + body).hex())

    def test_error_response_bytes(self):
        answer = self.exchange(Message(REQUEST, "nosuch.method", None, [], aux1=NODEID_ANY, aux2=5).frame())
        text = b"No service matching nosuch.method is registered\0"
        head = b"\0" + b"\x0dnosuch.method" + bytes([len(text)]) + text + b"\x14\x8e\x01\x02\x0b"
        self.assertEqual(answer[8:8 + len(head)].hex(), head.hex())
        self.assertEqual(answer[-8:], struct.pack(">II", errno.ENOSYS, 5))

    def test_frames_in_pieces_and_together(self):
        frame = Message(REQUEST, "attr.get", b'{"name":"rank"}\0', [], aux1=NODEID_ANY, aux2=1).frame()
        for byte in frame:
            self.flux.socket.sendall(bytes([byte]))
        self.flux.tags.add(1)
        self.assertEqual(self.flux.response(1).json()["value"], "0")
        tags = range(1, 101)
        self.flux.tags.update(tags)
        self.flux.socket.sendall(b"".join(
            Message(REQUEST, "attr.get", b'{"name":"rank"}\0', [], aux1=NODEID_ANY, aux2=t).frame() for t in tags))
        for tag in tags:
            self.assertEqual(self.flux.response(tag).json()["value"], "0")


class Rpc(Case):
    def test_attributes(self):
        self.assertEqual(self.flux.call("attr.get", {"name": "rank"}), {"value": "0", "flags": 1})
        self.assertEqual(self.flux.call("attr.get", {"name": "rank"}, 1)["value"], "1")
        self.assertEqual(self.client(1).call("attr.get", {"name": "rank"})["value"], "1")
        self.assertIn("version", self.flux.call("attr.list")["names"])
        self.refused(errno.ENOENT, "attr.get", {"name": "nosuch"})
        self.assertEqual(self.refused(errno.ENOENT, "attr.set", {"name": "nosuch", "value": "1"}), "unknown attribute")
        self.assertEqual(self.refused(errno.EINVAL, "attr.set", {"name": "size", "value": "1"}),
                         "attribute may not be updated")

    def test_ping_tells_route_and_credentials(self):
        answer = self.flux.call("broker.ping", {"seq": 3, "pad": "xyz"}, 1)
        self.assertEqual((answer["seq"], answer["pad"], answer["rank"]), (3, "xyz", 1))
        self.assertEqual(answer["userid"], os.getuid())
        # LOCAL is cleared when a message crosses to another broker
        self.assertEqual(answer["rolemask"], OWNER)
        self.assertEqual(self.flux.call("broker.ping", {"seq": 0})["rolemask"], OWNER | LOCAL)
        self.assertRegex(answer["route"], r"^[0-9a-f]{8}(![0-9a-f]{8})+$")
        self.refused(errno.EPROTO, "broker.ping", raw=b"not json\0")
        self.refused(errno.EPROTO, "broker.ping")

    def test_unknown_services_and_ranks(self):
        text = self.refused(errno.ENOSYS, "nosuch.method", {})
        self.assertEqual(text, "No service matching nosuch.method is registered")
        self.refused(errno.ENOSYS, "nosuch.method", {}, 1)
        self.refused(errno.ENOSYS, "nosuch.method", {}, flux=self.client(1))
        self.refused(errno.EHOSTUNREACH, "broker.ping", {"seq": 0}, 4000)
        self.refused(errno.ENOSYS, "broker.nosuch")

    def test_payload_without_nul_is_a_protocol_error(self):
        self.refused(errno.EPROTO, "attr.get", raw=b'{"name":"size"}')
        self.refused(errno.EPROTO, "attr.get", raw=b"\0")
        self.refused(errno.EPROTO, "attr.get", raw=b'{"name":1}\0')
        self.refused(errno.EPROTO, "attr.get")

    def test_no_response_is_really_none(self):
        self.flux.request("attr.get", {"name": "size"}, flags=NORESPONSE)
        self.flux.request("nosuch.method", flags=NORESPONSE)
        self.assertEqual(self.flux.call("attr.get", {"name": "size"})["value"], os.environ["FLUX_SIZE"])
        self.assertFalse(self.flux.waiting)

    def test_upstream_goes_to_the_parent(self):
        follower = self.client(1)
        tag = 1
        follower.tags.add(tag)
        follower.send(Message(REQUEST, "broker.ping", b'{"seq":0}\0', [], UPSTREAM, aux1=1, aux2=tag))
        self.assertEqual(follower.response(tag).json()["rank"], 0)

    def test_many_in_flight(self):
        tags = [self.flux.request("broker.ping", {"seq": n}, n % 2) for n in range(500)]
        self.assertEqual(tags, list(range(1, 501)))
        for n, tag in enumerate(tags):
            self.assertEqual(self.flux.response(tag).json()["seq"], n)

    def test_large_payload(self):
        pad = "x" * 3_000_000
        self.assertEqual(self.flux.call("broker.ping", {"seq": 1, "pad": pad}, 1)["pad"], pad)

    def test_state_machine(self):
        state = self.flux.call("state-machine.get")
        self.assertEqual(state["state"], "run")
        self.assertGreaterEqual(state["duration"], 0)
        self.assertIsNone(self.flux.rpc("state-machine.wait").payload)


class Streams(Case):
    def test_a_stream_ends_with_enodata(self):
        self.flux.request("log.append", raw=line("the backlog"))
        self.flux.rpc("broker.ping", {})
        tag = self.flux.stream("log.dmesg", {"follow": False})
        lines = []
        with self.assertRaises(RpcError) as caught:
            while True:
                message = self.flux.response(tag)
                self.assertTrue(message.flags & STREAMING)
                lines.append(message.text())
        self.assertEqual(caught.exception.errnum, errno.ENODATA)
        self.assertTrue(any(entry.endswith("the backlog") for entry in lines), lines)
        # <PRI>1 TIMESTAMP RANK APPNAME PROCID MSGID SD MSG
        self.assertRegex(lines[0], r"^<\d+>1 \d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{6}Z \d+ \S+ \S+ - - ")

    def test_follow_and_cancel(self):
        tag = self.flux.stream("log.dmesg", {"follow": True, "nobacklog": True})
        self.flux.rpc("broker.ping", {})
        self.flux.request("log.append", raw=line("something new"))
        self.assertIn("something new", self.flux.response(tag).text())
        self.flux.request("log.cancel", {"matchtag": tag}, flags=NORESPONSE)
        with self.assertRaises(RpcError) as caught:
            while True:
                self.flux.response(tag)
        self.assertEqual(caught.exception.errnum, errno.ENODATA)

    def test_streaming_is_required(self):
        self.refused(errno.EPROTO, "log.dmesg", {"follow": False})


def line(text):
    return ("<48>1 2026-01-01T00:00:00.000000Z 0 wire-test 1 - - " + text).encode()


class Events(Case):
    def publish(self, topic, payload=None, flags=0, flux=None):
        body = {"topic": topic, "flags": flags}
        if payload is not None:
            body["payload"] = base64.b64encode(json.dumps(payload).encode() + b"\0").decode()
        return (flux or self.flux).call("event.publish", body, 0)["seq"]

    def test_subscribe_is_a_prefix(self):
        reader = self.client(1)
        reader.events("wire.a")
        first = self.publish("wire.abc", {"n": 1})
        self.publish("wire.b")
        second = self.publish("wire.a", flux=reader)
        event = reader.event()
        self.assertEqual((event.topic, event.json(), event.sequence), ("wire.abc", {"n": 1}, first))
        self.assertEqual(event.userid, os.getuid())
        self.assertIsNone(event.routes)
        event = reader.event()
        self.assertEqual((event.topic, event.payload, event.sequence), ("wire.a", None, second))
        self.assertGreater(second, first + 1)
        reader.rpc("event.unsubscribe", {"topic": "wire.a"})
        self.publish("wire.a")
        with self.assertRaises(RpcError) as caught:
            reader.rpc("event.unsubscribe", {"topic": "wire.a"})
        self.assertEqual(caught.exception.errnum, errno.ENOENT)
        self.assertFalse([m for m in reader.waiting if m.type == EVENT])

    def test_subscriptions_count(self):
        self.flux.events("wire.count")
        self.flux.events("wire.count")
        self.flux.rpc("event.unsubscribe", {"topic": "wire.count"})
        self.publish("wire.count")
        self.assertEqual(self.flux.event().topic, "wire.count")

    def test_an_event_sent_by_a_client_is_published(self):
        reader = self.client()
        reader.events("wire.sent")
        sender = self.client(1)
        sender.send(Message(EVENT, "wire.sent", b'{"x":1}\0', []))
        event = reader.event()
        self.assertEqual((event.topic, event.json()), ("wire.sent", {"x": 1}))
        self.assertGreater(event.sequence, 0)

    def test_private_flag_and_bad_requests(self):
        self.flux.events("wire.private")
        self.publish("wire.private", flags=PRIVATE)
        self.assertTrue(self.flux.event().flags & PRIVATE)
        self.refused(errno.EPROTO, "event.publish", {"topic": "x", "flags": 1}, 0)
        self.refused(errno.EPROTO, "event.publish", {"flags": 0}, 0)
        self.refused(errno.EPROTO, "event.publish", {"topic": "x", "flags": 0, "payload": "*"}, 0)
        text = self.refused(errno.EPROTO, "event.publish", {"topic": "x", "flags": 0}, 1)
        self.assertEqual(text, "this service is only available on rank 0")

    def test_heartbeats_come(self):
        self.flux.events("heartbeat.")
        event = self.flux.event(10)
        self.assertEqual((event.topic, event.payload), ("heartbeat.pulse", None))


class Services(Case):
    def test_requests_come_to_the_client(self):
        server = self.client(1)
        server.rpc("service.add", {"service": "wiretest"})
        tag = self.flux.request("wiretest.hello", {"who": "you"}, 1)
        request = server.incoming()
        self.assertEqual((request.topic, request.json()), ("wiretest.hello", {"who": "you"}))
        self.assertTrue(request.routes and UUID.match(request.routes[-1]), request.routes)
        self.assertEqual(request.userid, os.getuid())
        server.respond(request, {"hello": "me"})
        self.assertEqual(self.flux.response(tag).json(), {"hello": "me"})
        tag = self.flux.request("wiretest.fail", None, 1)
        server.respond(server.incoming(), errnum=errno.EBUSY, text="not now")
        with self.assertRaises(RpcError) as caught:
            self.flux.response(tag)
        self.assertEqual((caught.exception.errnum, caught.exception.text), (errno.EBUSY, "not now"))
        server.rpc("service.remove", {"service": "wiretest"})
        self.refused(errno.ENOSYS, "wiretest.hello", {}, 1)

    def test_names_are_checked(self):
        self.refused(errno.EINVAL, "service.add", {"service": "a.b"})
        self.refused(errno.EEXIST, "service.add", {"service": "attr"})
        self.flux.rpc("service.add", {"service": "wireone"})
        self.refused(errno.EEXIST, "service.add", {"service": "wireone"}, flux=self.client())
        self.refused(errno.ENOENT, "service.remove", {"service": "wirenone"})
        self.refused(errno.EPROTO, "service.add", {})

    def test_a_service_goes_with_its_client(self):
        server = self.client()
        server.rpc("service.add", {"service": "wiregone"})
        server.close()
        limit = time.monotonic() + 10
        while True:
            try:
                self.flux.rpc("service.add", {"service": "wiregone"})
                break
            except RpcError as error:
                self.assertEqual(error.errnum, errno.EEXIST)
                self.assertLess(time.monotonic(), limit)

    def test_the_server_hears_of_a_disconnect(self):
        server = self.client()
        server.rpc("service.add", {"service": "wiredisc"})
        user = self.client(1)
        user.request("wiredisc.deep.watch", {})
        request = server.incoming()
        user.request("wiredisc.silent", {}, flags=NORESPONSE)
        self.assertEqual(server.incoming().topic, "wiredisc.silent")
        user.close()
        notice = server.incoming()
        self.assertEqual(notice.topic, "wiredisc.deep.disconnect")
        self.assertTrue(notice.flags & NORESPONSE)
        self.assertIsNone(notice.payload)
        self.assertEqual(notice.routes[-1], request.routes[-1])
        # the late answer has nobody to go to, and hurts nobody
        server.respond(request, {})
        # a request without response arms nothing
        with self.assertRaises(TimeoutError):
            server.incoming(0.3)

    def test_an_answer_without_a_request_is_dropped(self):
        self.flux.send(Message(RESPONSE, "a.b", None, ["00000000-0000-0000-0000-000000000000"], aux2=9))
        self.flux.send(Message(RESPONSE, "a.b", None, [], aux2=9))
        self.flux.rpc("broker.ping", {})


class Credentials(Case):
    def test_the_owner_may_act_as_somebody_else(self):
        def act(topic, payload, rolemask, userid=1234):
            tag = next(n for n in range(1, 1000) if n not in self.flux.tags)
            self.flux.tags.add(tag)
            self.flux.send(Message(REQUEST, topic, payload, [], userid=userid, rolemask=rolemask, aux1=NODEID_ANY,
                                   aux2=tag))
            return self.flux.response(tag)
        answer = act("broker.ping", b'{"seq":0}\0', 2).json()
        self.assertEqual((answer["userid"], answer["rolemask"]), (1234, 2 | LOCAL))
        with self.assertRaises(RpcError) as caught:
            act("attr.set", b'{"name":"x","value":"y"}\0', 2)
        self.assertEqual(caught.exception.errnum, errno.EPERM)
        self.assertEqual(caught.exception.text, "Request requires owner credentials")


if __name__ == "__main__":
    unittest.main(verbosity=1)
