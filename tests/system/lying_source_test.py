#!/usr/bin/python3
"""A host that may bring users' processes only, and gives them in their images what no user may have:
nothing of it is made, and the process runs on at home.

The host is this file itself, run as a program beside an honest source, whose images it changes on
their way: lying_source_test.py ADDRESS PORT WHAT.
"""

import pathlib
import socket
import struct
import sys
import unittest

import harness
import wire
from harness import DONE, Testbed, finish

HERE = pathlib.Path(__file__).resolve()
OWN_PORT, ITS_PORT = 7171, 7272
NOBODY = ["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups"]
VARINT, FIXED64, BYTES, FIXED32 = 0, 1, 2, 5


# --- protobuf, as far as it is needed to change something within

def read_varint(data, at):
    number = shift = 0
    while True:
        number |= (data[at] & 127) << shift
        shift += 7
        at += 1
        if not data[at - 1] & 128:
            return number, at


def varint(number):
    encoded = b""
    while number > 127:
        encoded += bytes([number & 127 | 128])
        number >>= 7
    return encoded + bytes([number])


def fields_of(data):
    """[(number, wire type, value)...]: a value is a number or bytes."""
    fields, at = [], 0
    while at < len(data):
        key, at = read_varint(data, at)
        if key & 7 == VARINT:
            value, at = read_varint(data, at)
        else:
            size = {FIXED64: 8, FIXED32: 4}.get(key & 7)
            if size is None:
                size, at = read_varint(data, at)
            value, at = data[at:at + size], at + size
        fields.append((key >> 3, key & 7, value))
    return fields


def bytes_of(fields):
    encoded = b""
    for number, kind, value in fields:
        encoded += varint(number << 3 | kind)
        encoded += varint(value) if kind == VARINT else \
            varint(len(value)) + value if kind == BYTES else value
    return encoded


def within(data, path, change):
    """The message with `change` made in the first message at `path`, a list of field numbers."""
    if not path:
        return bytes_of(change(fields_of(data)))
    fields = fields_of(data)
    for i, (number, kind, value) in enumerate(fields):
        if number == path[0]:
            fields[i] = (number, kind, within(value, path[1:], change))
            break
    return bytes_of(fields)


# --- the lies: of an Image to an Image

OBJECTS, PROCESS = [1], [2]
FILE, THREAD, DESCRIPTOR = 3, 14, 16


def with_thread(image, *numbers):
    return within(image, PROCESS + [THREAD], lambda fields: [
        *(each for each in fields if each[0] not in dict(numbers)),
        *((number, VARINT, value) for number, value in numbers)])


def with_file(image, *fields):
    """One more open file, as descriptor 50."""
    index = sum(each[0] == FILE for number, _, objects in fields_of(image) if number == 1
                for each in fields_of(objects))
    image = within(image, OBJECTS, lambda objects: [*objects, (FILE, BYTES, bytes_of(fields))])
    descriptor = bytes_of([(1, VARINT, 50), (2, VARINT, index)])
    return within(image, PROCESS, lambda process: [*process, (DESCRIPTOR, BYTES, descriptor)])


POLICY, PRIORITY, IO_PRIORITY = 15, 16, 23
FIFO, RESET_ON_FORK = 1, 0x40000000
TIMERFD, PROC_FILE = 7 - 1, 11
LIES = {
    "a real-time policy": lambda image: with_thread(
        image, (POLICY, (FIFO | RESET_ON_FORK) * 2), (PRIORITY, 50 * 2)),
    "a real-time class of its disks": lambda image: with_thread(
        image, (IO_PRIORITY, 1 << 16 | 1 << 13)),
    "a session that others wait for": lambda image: within(
        image, PROCESS, lambda process: [*process, (28, VARINT, 39)]),  # autogroup_nice: -20
    "memory that is merged": lambda image: within(
        image, PROCESS, lambda process: [*process, (30, VARINT, 1)]),
    "a timer that wakes the machine": lambda image: with_file(
        image, (1, VARINT, TIMERFD), (2, VARINT, 2), (9, VARINT, 8)),
    "a file of the cell's init": lambda image: with_file(
        image, (1, VARINT, PROC_FILE), (4, BYTES, bytes_of([(1, BYTES, b"/proc/1/environ")])),
        (5, VARINT, 1)),
    "the truth": lambda image: image,
}
# What the destination says.
SAID = {
    "a real-time policy": "it has a raised scheduling priority",
    "a real-time class of its disks": "it has a raised scheduling priority",
    "memory that is merged": "its memory is merged with that of others",
    "a timer that wakes the machine": "it has a timer that wakes the machine",
    "a file of the cell's init": "process of a file of /proc",
}


def changed(body, what):
    number = fields_of(body)[0][0]
    if what.startswith("it is "):  # Offer.process
        process = bytes.fromhex(what.removeprefix("it is "))
        return body if number != 1 else within(body, [1], lambda offer: [
            (1, BYTES, process), *(each for each in offer if each[0] != 1)])
    lie = LIES[what]
    path = {1: [1, 3], 3: [3, 1]}.get(number)  # Offer.draft, Final.image
    if path is None:
        return body
    return within(body, path, lambda fields: fields_of(lie(bytes_of(fields))))


def stand_between(address, port, what):
    listener = socket.create_server(("", OWN_PORT))
    print("listening", flush=True)
    wire.relay(listener, (address, int(port)), lambda purpose, message: [
        changed(message, what)] if purpose == wire.OFFER else None)


class LyingSource(unittest.TestCase):
    def setUp(self):
        self.testbed = Testbed(2)
        self.addCleanup(self.testbed.down)
        self.addresses = {host["name"]: host["address"] for host in self.testbed.hosts()}
        self.daemon = self.testbed.start(
            "hostB", "migrated", "--listen", f"tcp://{self.addresses['hostB']}:{ITS_PORT}",
            "--state", "/var/lib/migrate/strict", "--socket", "/run/migrate/strict.sock",
            "--insecure", "--allow", "*@*")
        self.assertTrue(self.daemon.wait_output(b"state in"), bytes(self.daemon.output))

    def move(self, what):
        """A process of nobody's, and what came of its move by a host that says `what`."""
        process = self.testbed.start_keeper("hostA", prefix=NOBODY, cwd="/")
        between = self.testbed.start("hostA", sys.executable, HERE, self.addresses["hostB"],
                                     ITS_PORT, what)
        try:
            self.assertTrue(between.wait_output(b"listening\n"), bytes(between.output))
            return process, self.testbed.control("hostA", "move", process.pid,
                                                 f"{self.addresses['hostA']}:{OWN_PORT}",
                                                 "--wait", "done")
        finally:
            between.kill()

    def test_lies(self):
        for what in SAID:
            with self.subTest(what):
                process, outcome = self.move(what)
                self.assertNotEqual(outcome.status, DONE, outcome)
                self.assertIn(SAID[what], outcome.text + bytes(self.daemon.output).decode())
                self.assertEqual(finish(process), "", self.testbed.logs())

    def known(self):
        """Of each process there its id, its pid and its worker."""
        listed = self.testbed.run("hostB", "migratectl", "--socket", "/run/migrate/strict.sock",
                                  "--json", "ps")
        return [(each["process"], each["pid"], each["worker"])
                for each in listed.object["processes"]]

    def moved(self, what):
        process, outcome = self.move(what)
        self.assertEqual(outcome.status, DONE, f"{outcome}\n{bytes(self.daemon.output)}")
        return process

    def test_its_session_is_not_raised(self):
        process = self.moved("a session that others wait for")
        group = pathlib.Path(f"/proc/{self.known()[0][1]}/autogroup")
        if group.exists():
            self.assertIn("nice 0", group.read_text())
        self.assertEqual(finish(process), "", self.testbed.logs())

    def test_of_one_that_is_there(self):
        """Who knows the id of a process takes nobody's word about it away."""
        first = self.moved("the truth")
        before = self.known()
        self.assertEqual(len(before), 1, before)
        other, outcome = self.move("it is " + before[0][0])
        self.assertNotEqual(outcome.status, DONE, outcome)
        self.assertIn("it runs here already", bytes(self.daemon.output).decode())
        self.assertEqual(self.known(), before)
        for process in (other, first):
            self.assertEqual(finish(process), "", self.testbed.logs())


if __name__ == "__main__":
    if len(sys.argv) == 4:
        stand_between(*sys.argv[1:])
    else:
        harness.main()
