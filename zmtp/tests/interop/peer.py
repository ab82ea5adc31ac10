"""A libzmq peer for the interoperability tests and the throughput example.

usage: peer.py router SERVER_SECRET [ALLOWED_KEY]   echo; prints "port N", refuses other keys by ZAP
       peer.py dealer PORT SERVER_KEY SECRET IDENTITY COUNT   sends, checks the echoes; prints "ok COUNT"
       peer.py refused PORT SERVER_KEY SECRET IDENTITY   prints "refused" or "admitted"
       peer.py plain PORT   connects without security; prints "refused" or "admitted"
       peer.py pipeline COUNT SIZE   libzmq to libzmq over loopback, CURVE; prints "rate N"
"""

import os
import sys
import threading
import time

import zmq
import zmq.utils.monitor
import zmq.utils.z85

DEADLINE_MS = 15000
SIZES = [0, 1, 10, 221, 222, 223, 255, 256, 2047, 2048, 8192, 32768, 65536, 1 << 20]


def say(text):
    print(text, flush=True)


def bounded(socket):
    socket.linger = 1000
    socket.rcvtimeo = DEADLINE_MS
    socket.sndtimeo = DEADLINE_MS
    # A ROUTER drops what exceeds its mark.
    socket.sndhwm = socket.rcvhwm = 0
    return socket


def serve_zap(context, allowed, ready):
    zap = context.socket(zmq.REP)
    zap.bind("inproc://zeromq.zap.01")
    ready.set()
    while True:
        try:
            request = zap.recv_multipart()
        except zmq.ContextTerminated:
            zap.close(0)
            return
        version, sequence, key = request[0], request[1], request[6]
        good = zmq.utils.z85.encode(key) == allowed
        status = (b"200", b"OK") if good else (b"400", b"No access")
        zap.send_multipart([version, sequence, status[0], status[1], b"user", b""])


def curve_server(context, secret):
    socket = bounded(context.socket(zmq.ROUTER))
    socket.curve_server = True
    socket.curve_secretkey = secret
    socket.curve_publickey = zmq.curve_public(secret)
    return socket


def curve_client(context, server_key, secret, identity):
    socket = bounded(context.socket(zmq.DEALER))
    socket.curve_serverkey = server_key
    socket.curve_secretkey = secret
    socket.curve_publickey = zmq.curve_public(secret)
    socket.identity = identity
    return socket


def router(secret, allowed=None):
    context = zmq.Context()
    if allowed is not None:
        ready = threading.Event()
        threading.Thread(target=serve_zap, args=(context, allowed, ready), daemon=True).start()
        ready.wait(5)
    socket = curve_server(context, secret)
    if allowed is not None:
        socket.zap_domain = b"test"
    socket.setsockopt(zmq.HEARTBEAT_IVL, 100)
    socket.setsockopt(zmq.HEARTBEAT_TTL, 2000)
    socket.setsockopt(zmq.HEARTBEAT_TIMEOUT, 2000)
    say("port %d" % socket.bind_to_random_port("tcp://127.0.0.1"))
    while True:
        message = socket.recv_multipart()
        socket.send_multipart(message)
        if message[1:] == [b"end"]:
            break
    socket.close()
    context.term()  # what is queued is written first
    say("ended")


def dealer(port, server_key, secret, identity, count):
    context = zmq.Context()
    socket = curve_client(context, server_key, secret, identity)
    socket.setsockopt(zmq.HEARTBEAT_IVL, 100)
    socket.setsockopt(zmq.HEARTBEAT_TTL, 2000)
    socket.setsockopt(zmq.HEARTBEAT_TIMEOUT, 2000)
    socket.connect("tcp://127.0.0.1:%s" % port.decode())
    for size in SIZES:
        message = [b"x" * size, b"", b"%d" % size]
        socket.send_multipart(message)
        assert socket.recv_multipart() == message, size
    time.sleep(0.5)  # several heartbeats cross
    for number in range(int(count)):
        socket.send_multipart([b"%d" % number])
    for number in range(int(count)):
        assert socket.recv_multipart() == [b"%d" % number], number
    socket.close()
    say("ok %d" % int(count))


def watch(socket, endpoint):
    monitor = socket.get_monitor_socket(
        zmq.EVENT_HANDSHAKE_SUCCEEDED
        | zmq.EVENT_HANDSHAKE_FAILED_NO_DETAIL
        | zmq.EVENT_HANDSHAKE_FAILED_PROTOCOL
        | zmq.EVENT_HANDSHAKE_FAILED_AUTH
        | zmq.EVENT_DISCONNECTED
    )
    monitor.rcvtimeo = DEADLINE_MS
    socket.connect(endpoint)
    event = zmq.utils.monitor.recv_monitor_message(monitor)["event"]
    say("admitted" if event == zmq.EVENT_HANDSHAKE_SUCCEEDED else "refused")
    socket.linger = 0


def refused(port, server_key, secret, identity):
    socket = curve_client(zmq.Context(), server_key, secret, identity)
    watch(socket, "tcp://127.0.0.1:%s" % port.decode())


def plain(port):
    socket = bounded(zmq.Context().socket(zmq.DEALER))
    socket.identity = b"plain"
    watch(socket, "tcp://127.0.0.1:%s" % port.decode())


def pipeline(count, size):
    """One sender and one receiver, a thread each, of two contexts; the interpreter's lock bounds them too."""
    count, body = int(count), b"x" * int(size)
    server_public, server_secret = zmq.curve_keypair()
    _, client_secret = zmq.curve_keypair()
    receiver = curve_server(zmq.Context(), server_secret)
    port = receiver.bind_to_random_port("tcp://127.0.0.1")

    def send():
        sender = curve_client(zmq.Context(), server_public, client_secret, b"sender")
        sender.linger = DEADLINE_MS
        sender.connect("tcp://127.0.0.1:%d" % port)
        for _ in range(count):
            sender.send(body, copy=True)
        sender.close()

    threading.Thread(target=send, daemon=True).start()
    receiver.recv_multipart()
    started = time.perf_counter()
    for _ in range(2 * (count - 1)):
        receiver.recv()
    say("rate %d" % ((count - 1) / (time.perf_counter() - started)))


if __name__ == "__main__":
    modes = {"router": router, "dealer": dealer, "refused": refused, "plain": plain, "pipeline": pipeline}
    modes[sys.argv[1]](*[argument.encode() for argument in sys.argv[2:]])
    # Contexts with a refused peer would wait for it; nothing is left to send.
    sys.stdout.flush()
    os._exit(0)
