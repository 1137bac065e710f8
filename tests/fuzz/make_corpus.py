#!/usr/bin/python3
"""Writes the first inputs of the fuzz targets into the folder `corpus` beside this file.

Messages are encoded by hand, as protobuf and pager/page_protocol.h say. What a search finds worth
keeping is added by hand.
"""

import json
import pathlib
import struct

FOLDER = pathlib.Path(__file__).resolve().parent / "corpus"
PAGE = 4096
REGISTERS, STACK, SIGINFO, ACTION = 216, 24, 128, 32  # sizes of kernel structures, x86-64


def write(target, name, data):
    (FOLDER / target).mkdir(parents=True, exist_ok=True)
    (FOLDER / target / name).write_bytes(data)


def varint(number):
    data = b""
    while number > 127:
        data += bytes([number & 127 | 128])
        number >>= 7
    return data + bytes([number])


def message(*fields):
    """A protobuf message of (number, integer or bytes) pairs."""
    data = b""
    for number, value in fields:
        if isinstance(value, int):
            data += varint(number << 3) + varint(value)
        else:
            data += varint(number << 3 | 2) + varint(len(value)) + value
    return data


def listed(*messages):
    """As message_list.h cuts them."""
    return b"".join(struct.pack("<H", len(data)) + data for data in messages)


def image():
    """One that passes check_form(), with something of everything."""
    siginfo = struct.pack("<i", 10).ljust(SIGINFO, b"\0")
    thread = message((1, 100), (2, bytes(REGISTERS)), (5, siginfo), (13, bytes(STACK)),
                     (14, b"main"), (18, b"\xff" * 8), (21, message((9, 0))))
    mappings = [(15, message((1, 0x400000 + kind * 0x10000), (2, 0x402000 + kind * 0x10000),
                             (3, 1), (4, kind), (9, b"/bin/true"))) for kind in range(7)]
    files = [(3, message((1, kind), (4, message((1, b"/dev/null"))))) for kind in range(10)]
    descriptors = [(16, message((1, number), (2, number))) for number in range(10)]
    objects = message(
        (1, message((1, b"/bin/true"))), (2, message((2, 0x2000), (3, b"memory"), (6, b"text"))),
        *files, (4, message((2, 65536), (3, b"in the pipe"))))
    process = message(
        (1, 100), (5, message((1, b"/bin/true"))), (6, b"/"), (14, thread), *mappings,
        *descriptors, (17, bytes(64 * ACTION)), (19, message((1, 1))), (20, message((1, 3))),
        (21, message((2, 1))), (22, message((1, 0x420000), (2, b"p" * PAGE))))
    return message((1, objects), (2, process))


def relay_state():
    return message((1, 1), (2, 1), *[(4, message((1, stream), (2, stream + 1)))
                                     for stream in range(2)])


def control():
    offer = message((1, message((1, b"p" * 16), (3, image()))))
    final = message((3, message((1, image()), (2, relay_state()))))
    write("control", "offer", listed(b"\0" + offer))
    write("control", "final-in-pieces", listed(b"\1" + final[:100], b"\0" + final[100:]))
    write("control", "run", listed(b"\0" + message((5, b""))))


def relay():
    streams = [(4, message((1, stream))) for stream in range(2)]
    resume = message((1, message((1, 1), (2, 1), (3, 1), *streams)))
    activate = message((2, message((1, 1))))
    output = message((4, message((1, 1), (3, b"output"))))
    signal_ack = message((8, message((1, 1))))
    exited = message((10, message((1, 0))))
    write("relay", "deputy", b"\0" + listed(resume, activate, output, signal_ack, exited))
    resumed = message((3, message((1, 1), *[(2, message((1, stream))) for stream in range(2)])))
    data = message((4, message((1, 0), (3, b"input"))))
    signal = message((7, message((1, 1), (2, bytes(SIGINFO)))))
    write("relay", "guest", b"\1" + listed(relay_state(), resumed, data, signal))


def pages():
    request = struct.pack("<IIQII", 1, 7, 0x10000, 2, 0)
    page = b"p" * PAGE
    confirm, start = struct.pack("<IIQ", 6, 0, 1), struct.pack("<IIQ", 8, 0, 0)
    write("page_messages", "request", request)
    write("page_messages", "reply", struct.pack("<IIQII", 2, 7, 0x10000, 1, 0) + page)
    write("page_messages", "presence", struct.pack("<IIQQIIQQ", 3, 1, 0x10000, 0x20000, 1, 0,
                                                   0x11000, 2))
    write("page_messages", "push", struct.pack("<IIQQII", 4, 1, 1, 0x12000, 1, 0) + page)
    write("page_messages", "confirm", confirm)
    write("page_server", "all", b"\1" + listed(confirm, start, request, request))


def others():
    write("frame", "two", b"\3\0\0\0abc\1\0\0\0d")
    write("frame", "too-long", b"\xff\xff\xff\x7f")
    write("preamble", "resume", struct.pack("<4sHBB16s8x", b"LMIG", 6, 7, 0, b"s" * 16))
    write("request", "move", json.dumps({"command": "move", "process": "123", "mode": "lazy",
                                         "destination": "b:7070", "wait": "done"}).encode())
    write("request", "odd", b'{"command":["move"],"pid":-1,"mode":{},"retry_seconds":"1"}')
    write("request", "deep", b'{"command":' + b"[" * 2000)
    write("image", "whole", image())
    write("registry", "row", b"\1\x21process\0\2\0\4\x05h\x05w\x05s")
    write("session_file", "zeros", bytes(400))
    write("session_file", "long", bytes(range(256)) * 8)
    write("session_file", "raw", b"\xff" + b"MIGSSN02")
    write("registry", "no-database", b"\0SQLite format 3\0garbage")


if __name__ == "__main__":
    for make in (control, relay, pages, others):
        make()
