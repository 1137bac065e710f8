#!/usr/bin/python3
"""Daemons whose peer says anything: the session ends, the daemon serves on, the process is whole.

The peer is this file itself, run as a program in a host: malicious_peer_test.py WHAT ARGUMENTS...
It speaks the protocol of docs/protocol.md by hand: a frame is a length and bytes, a control message
is pieces that begin with 1 (more follow) or 0, its fields are encoded as protobuf does.
"""

import os
import pathlib
import socket
import struct
import sys
import time
import unittest

import harness
import wire
from harness import FAILED, Testbed, finish, wait_until

HERE = pathlib.Path(__file__).resolve()
PORT = 7070
EVIL_PORT = 7171
OFFER, URGENT, BULK, HOME, QUERY, COMMAND, RESUME = range(1, 8)
MIB = 1 << 20


# --- the peer

def preamble(purpose, session=b"\x11" * 16, version=wire.PROTOCOL_VERSION):
    return struct.pack("<4sHBB16s8x", b"LMIG", version, purpose, 0, session)


def varint(number):
    encoded = b""
    while number > 127:
        encoded += bytes([number & 127 | 128])
        number >>= 7
    return encoded + bytes([number])


def field(number, content):
    """A length-delimited field of a protobuf message."""
    return varint(number << 3 | 2) + varint(len(content)) + content


def number_field(number, value):
    return varint(number << 3) + varint(value)


def connect(address, purpose, session=b"\x11" * 16):
    peer = socket.create_connection((address, PORT), 10)
    peer.settimeout(20)
    peer.sendall(preamble(purpose, session))
    return peer


def ended(peer):
    """Whether the other side hangs up, whatever it says before."""
    try:
        while peer.recv(65536):
            pass
    except socket.timeout:
        return False
    except OSError:
        pass
    return True


def lying_lengths(address):
    """Frames that announce what they do not have, or nothing, or too much."""
    for data in (struct.pack("<I", 0), struct.pack("<I", 0xffffffff), struct.pack("<I", 5 * MIB),
                 wire.frame(b"\x02what"), wire.frame(b"\x00\xff\xff\xff"), b"\x01"):
        for purpose in (OFFER, QUERY, RESUME, COMMAND, HOME, URGENT, BULK):
            with connect(address, purpose) as peer:
                try:
                    peer.sendall(data)
                    peer.shutdown(socket.SHUT_WR)
                except OSError:
                    pass  # It has hung up already.
                if not ended(peer):
                    return f"purpose {purpose} goes on after {data!r}"
    return ""


def no_preamble(address):
    for data in (b"GET / HTTP/1.0\r\n\r\n" * 2, preamble(OFFER, version=99), preamble(77),
                 bytes(32)):
        with socket.create_connection((address, PORT), 10) as peer:
            peer.settimeout(20)
            peer.sendall(data)
            if not ended(peer):
                return f"goes on after {data!r}"
    return ""


def endless_image(address):
    """An offer whose pieces never end."""
    with connect(address, OFFER) as peer:
        piece = wire.frame(b"\x01" + bytes(MIB))
        sent = 0
        try:
            while sent < 2048:
                peer.sendall(piece)
                sent += 1
        except OSError:
            return ""
    return f"took {sent} MiB"


def image_of(mapping):
    executable = field(5, field(1, b"/bin/true"))
    process = number_field(1, 7) + executable + field(6, b"/") + field(14, number_field(1, 7))
    return field(2, process + mapping)


def offers_nonsense(address):
    """Offers of images that no process can be."""
    outside = field(15, number_field(1, 0x1000) + number_field(2, 1 << 63))
    no_file = field(15, number_field(1, 0x1000) + number_field(2, 0x2000) + number_field(4, 2) +
                    number_field(6, 4000000000))
    no_descriptor = field(16, number_field(2, 123456))
    for wrong in (outside, no_file, no_descriptor):
        offer = (field(1, b"p" * 16) + field(2, b"lazy") + field(3, image_of(wrong)) +
                 field(11, b"token"))
        with connect(address, OFFER) as peer:
            peer.sendall(wire.frame(b"\x00" + field(1, offer)))
            if not ended(peer):
                return f"goes on after {wrong!r}"
    return ""


def commands(address, session):
    """Requests to the worker of a process, without its token and of odd types."""
    deep = b'{"command":' + b"[" * 100_000
    for request in (b'{"command":"move"}', b'{"token":5,"command":"move"}', b"[]", deep,
                    b'{"token":{"a":[]},"mode":7,"destination":false}'):
        with connect(address, COMMAND, bytes.fromhex(session)) as peer:
            peer.sendall(wire.frame(request))
            if not ended(peer):
                return f"goes on after {request[:80]!r}"
    return ""


def destination(what):
    """Takes one move and misbehaves at some point: `what` names it."""
    listener = socket.create_server(("", EVIL_PORT))
    print("listening", flush=True)
    connections = {}

    def accept(purpose):
        while purpose not in connections:
            peer, _ = listener.accept()
            peer.settimeout(20)
            data = peer.recv(32, socket.MSG_WAITALL)
            if data[6] != OFFER:
                peer.sendall(wire.frame(bytes(32)))  # the question for the token
                wire.receive_frame(peer)
            connections[data[6]] = peer
        return connections[purpose]

    def say(body):
        control.sendall(wire.frame(b"\x00" + body))

    offer_reply, restored, running, connected = (field(number, b"") for number in (2, 4, 6, 12))
    control = accept(OFFER)
    wire.receive_control(control)
    if what == "garbage":
        say(b"\xff\xff\xff\xff")
    elif what == "running at once":
        say(running)
    elif what == "silence, then the end":
        time.sleep(0.5)
    elif what == "endless reply":
        try:
            for _ in range(2048):
                control.sendall(wire.frame(b"\x01" + bytes(MIB)))
        except OSError:
            pass
    else:
        say(offer_reply)
        accept(URGENT)
        accept(BULK)
        say(connected)
        wire.receive_control(control)  # Final
        if what == "the end after the image":
            pass
        elif what == "running before it was told to":
            say(running)
        elif what == "failed":
            say(field(9, field(1, b"no \xff room")))
        elif what == "pages and nonsense":
            urgent = connections[URGENT]
            urgent.sendall(wire.frame(struct.pack("<IIQII", 1, 1, 0x1000, 1, 0)))
            wire.receive_frame(urgent)
            urgent.sendall(wire.frame(b"nonsense"))
            say(offer_reply)
        elif what == "restored twice, then nonsense":
            say(restored[:1])
    for peer in connections.values():
        peer.close()
    return ""


def spoil(what, purpose, message):
    """What a source sends instead of a message of pages; None: this one is not to be spoilt."""
    kind = struct.unpack_from("<I", message)[0] if len(message) >= 16 else 0
    reply = purpose == URGENT and kind == 2 and len(message) == 24 + 4096
    push = purpose == BULK and kind == 4 and len(message) > 32
    presence = purpose == BULK and kind == 3 and len(message) >= 48
    other = b"\xee" * 4096
    if what == "a reply twice" and reply:
        return [message, message[:24] + other]
    if what == "a reply that was never asked for" and reply:
        return [struct.pack("<IIQII", 2, 0xabcdef, *struct.unpack_from("<Q", message, 8), 1, 0) + other,
                message]
    if what == "a reply with another page" and reply:
        return [message[:8] + struct.pack("<Q", 0x1000) + message[16:24] + other]
    if what == "a reply of more pages than it has" and reply:
        return [message[:16] + struct.pack("<I", 500) + message[20:]]
    if what == "a push outside the process" and push:
        return [message[:16] + struct.pack("<QII", 0xffffffff81000000, 1, 0) + other]
    if what == "a push of more runs than it has" and push:
        return [message[:4] + struct.pack("<I", 0x7fffffff) + message[8:]]
    if what == "a presence beyond its end" and presence:
        return [message[:32] + struct.pack("<QQ", 0xfffffffffffff000, 1 << 40) + message[48:]]
    return None


def source(address, what):
    """Stands between an honest source and `address`, and spoils one message of its pages."""
    listener = socket.create_server(("", EVIL_PORT))
    print("listening", flush=True)
    spoilt = []

    def passes_on(purpose, message):
        if spoilt:
            return None
        instead = spoil(what, purpose, message)
        if instead:
            spoilt.append(what)
            print("spoilt", flush=True)
        return instead or [message]

    wire.relay(listener, (address, PORT), passes_on)


# --- the tests

class MaliciousPeer(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.testbed = Testbed(2)
        cls.addClassCleanup(cls.testbed.down)
        cls.addresses = {host["name"]: host["address"] for host in cls.testbed.hosts()}

    def speak(self, host, *words):
        """Runs the peer in a host; it must be content."""
        said = self.testbed.run(host, sys.executable, HERE, *words, seconds=120)
        self.assertEqual((said.status, said.text), (0, ""), f"{said}\n{self.testbed.logs()}")

    def workers(self, host):
        return self.testbed.control(host, "ps").object.get("processes")

    def assert_serves(self, host):
        """The daemon is the same as before, and has no worker left over."""
        self.assertEqual(self.testbed.run(host, "migratectl", "ps").status, 0)
        self.assertTrue(wait_until(lambda: self.workers(host) == []), self.workers(host))

    def test_lengths_that_lie(self):
        self.speak("hostA", "lying_lengths", self.addresses["hostB"])
        self.assert_serves("hostB")

    def test_no_preamble(self):
        self.speak("hostA", "no_preamble", self.addresses["hostB"])
        self.assert_serves("hostB")

    def test_an_image_without_end(self):
        self.speak("hostA", "endless_image", self.addresses["hostB"])
        self.assert_serves("hostB")

    def test_images_that_cannot_be(self):
        self.speak("hostA", "offers_nonsense", self.addresses["hostB"])
        self.assert_serves("hostB")
        self.assertIn("read an image", self.testbed.logs(200))

    def test_commands_of_strangers(self):
        process = self.testbed.start_program("hostA", "threads", "ids")
        moved = self.testbed.move("hostA", process.pid, "hostB", wait="done")
        self.assertEqual(moved.status, 0, moved)
        session = moved.object["id"]
        worker = self.workers("hostB")[0]["worker"]
        self.speak("hostA", "commands", self.addresses["hostB"], session)
        self.assertEqual(self.workers("hostB")[0]["worker"], worker)
        self.assertTrue(os.path.exists(f"/proc/{worker}"), self.testbed.logs())
        back = self.testbed.move("hostA", process.pid, "hostA", wait="done")
        self.assertEqual(back.status, 0, f"{back}\n{self.testbed.logs()}")
        self.assertEqual(finish(process), "")

    def test_sources(self):
        """After Run. The link is cut and made anew, and the process never sees what was wrong."""
        for what, mode in (("a reply twice", "demand"),
                           ("a reply that was never asked for", "demand"),
                           ("a reply with another page", "demand"),
                           ("a reply of more pages than it has", "demand"),
                           ("a push outside the process", "lazy"),
                           ("a push of more runs than it has", "lazy"),
                           ("a presence beyond its end", "lazy")):
            with self.subTest(what):
                process = self.testbed.start_program("hostA", "memory", "anonymous")
                evil = self.testbed.start("hostA", sys.executable, HERE, "source",
                                          self.addresses["hostB"], what)
                self.addCleanup(evil.kill)
                self.assertTrue(evil.wait_output(b"listening\n"))
                moved = self.testbed.move("hostA", process.pid,
                                          f"{self.addresses['hostA']}:{EVIL_PORT}", mode)
                self.assertEqual(moved.status, harness.DONE, f"{moved}\n{self.testbed.logs()}")
                self.assertTrue(evil.wait_output(b"spoilt\n"), self.testbed.logs())
                self.assertEqual(finish(process), "", self.testbed.logs())
                evil.kill()
        self.assert_serves("hostB")
        self.assert_serves("hostA")

    def test_destinations(self):
        for what in ("garbage", "running at once", "silence, then the end", "endless reply",
                     "the end after the image", "running before it was told to", "failed",
                     "pages and nonsense", "restored twice, then nonsense"):
            with self.subTest(what):
                process = self.testbed.start_program("hostA", "threads", "ids")
                evil = self.testbed.start("hostB", sys.executable, HERE, "destination", what)
                self.assertTrue(evil.wait_output(b"listening\n"))
                moved = self.testbed.move("hostA", process.pid,
                                          f"{self.addresses['hostB']}:{EVIL_PORT}")
                self.assertEqual(moved.status, FAILED, f"{moved}\n{self.testbed.logs()}")
                self.assertEqual(finish(process), "", self.testbed.logs())
                self.assertEqual(evil.wait(), 0, bytes(evil.output))
        self.assert_serves("hostA")


if __name__ == "__main__":
    peers = {peer.__name__: peer for peer in (lying_lengths, no_preamble, endless_image,
                                              offers_nonsense, commands, destination, source)}
    if len(sys.argv) > 1 and sys.argv[1] in peers:
        sys.stdout.write(peers[sys.argv[1]](*sys.argv[2:]))
    else:
        harness.main()
