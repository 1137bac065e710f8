#!/usr/bin/python3
"""What a peer of a daemon says, for tests that say it wrongly. Run inside a host of a testbed:

  wire.py sniff FILE                 writes what TCP carries on eth0, by connection, until SIGTERM;
                                     prints "ready"
  wire.py plain ADDRESS PURPOSE SESSION [FRAME...]   (hexadecimal) connects in the clear
  wire.py tls ADDRESS PURPOSE SESSION KEYS NAME [--no-certificate] connects by TLS as host NAME
  wire.py destination PORT           takes one process in as a hostile destination would: asks for
                                     pages outside it; prints what came, JSON

The second and third print what came back until the daemon closed, JSON.
"""

import json
import os
import pathlib
import re
import signal
import socket
import ssl
import struct
import sys
import threading

PORT = 7070
OFFER, URGENT, BULK, HOME, QUERY, COMMAND, RESUME = range(1, 8)
SECONDS = 8
# The one that the daemons speak, from its only definition.
PROTOCOL_VERSION = int(re.search(
    r"kProtocolVersion = (\d+);",
    (pathlib.Path(__file__).resolve().parents[2] / "transport" / "preamble.h").read_text()).group(1))


def preamble(purpose, session, version=PROTOCOL_VERSION):
    return struct.pack("<4sHBB", b"LMIG", version, purpose, 0) + bytes.fromhex(session) + bytes(8)


def frame(payload):
    return struct.pack("<I", len(payload)) + payload


def receive_exactly(connection, count):
    data = b""
    while len(data) < count:
        part = connection.recv(count - len(data))
        if not part:
            raise EOFError(f"closed after {len(data)} of {count} bytes")
        data += part
    return data


def receive_frame(connection):
    (length,) = struct.unpack("<I", receive_exactly(connection, 4))
    return receive_exactly(connection, length)


def receive_all(connection):
    data = b""
    try:
        while part := connection.recv(65536):
            data += part
    except (ConnectionError, ssl.SSLError):
        pass
    return data


def connect(address):
    host, _, port = address.partition(":")
    return socket.create_connection((host, int(port or PORT)), SECONDS)


def plain(address, purpose, session, *frames):
    with connect(address) as connection:
        connection.sendall(preamble(int(purpose), session))
        for each in frames:
            connection.sendall(frame(bytes.fromhex(each)))
        return {"answer": receive_all(connection).hex()}


def tls(address, purpose, session, keys, name, *options):
    first = preamble(int(purpose), session)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    if "--no-certificate" not in options:
        context.load_cert_chain(f"{keys}/{name}.crt", f"{keys}/{name}.key")
    with connect(address) as connection:
        connection.sendall(first)
        try:
            with context.wrap_socket(connection) as secure:
                secure.sendall(bytes([len(first)]) + first)
                bound = secure.recv(1 + len(first))
                return {"bound": bound == bytes([len(first)]) + first,
                        "answer": receive_all(secure).hex()}
        except (ssl.SSLError, ConnectionError) as error:
            return {"error": str(error)}


def sniff(path):
    """Payloads of TCP over IPv4, by connection and direction, in the order in which they passed."""
    raw = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(3))
    raw.setsockopt(socket.SOL_SOCKET, 33, 256 << 20)  # SO_RCVBUFFORCE
    raw.bind(("eth0", 0))
    raw.settimeout(0.2)
    streams = {}
    over = []
    signal.signal(signal.SIGTERM, lambda *_: over.append(True))
    print("ready", flush=True)
    while True:
        try:
            packet = raw.recv(1 << 17)
        except TimeoutError:
            if over:
                break
            continue
        if len(packet) < 54 or packet[12:14] != b"\x08\x00" or packet[23] != 6:
            continue
        ip = packet[14:]
        total = struct.unpack(">H", ip[2:4])[0] or len(ip)  # 0: larger than the field, by offload
        segment = ip[(ip[0] & 15) * 4:total]
        payload = segment[(segment[12] >> 4) * 4:]
        if payload:
            key = "%s:%d-%s:%d" % (socket.inet_ntoa(ip[12:16]), *struct.unpack(">H", segment[0:2]),
                                   socket.inet_ntoa(ip[16:20]), *struct.unpack(">H", segment[2:4]))
            streams.setdefault(key, bytearray()).extend(payload)
    with open(path + ".part", "wb") as out:
        for stream in streams.values():
            out.write(struct.pack("<I", len(stream)) + stream)
    os.rename(path + ".part", path)


def read_streams(path):
    with open(path, "rb") as file:
        data = file.read()
    streams = []
    while data:
        (length,) = struct.unpack("<I", data[:4])
        streams.append(data[4:4 + length])
        data = data[4 + length:]
    return streams


def relay(listener, target, passes_on):
    """Stands between whoever connects to `listener` and `target`, (ADDRESS, PORT), for ever.
    `passes_on(purpose, message)` gives what goes on instead of one message of the side that
    connects, a list of messages; None: this one and all that follow over that connection, unseen.
    Where a move is offered a message has all its pieces. Each connection has a thread that calls."""
    def carry(origin, onward, purpose):
        receive, send = ((receive_control, send_control) if purpose == OFFER else
                         (receive_frame, lambda to, message: to.sendall(frame(message))))
        try:
            while purpose is not None:
                message = receive(origin)
                instead = passes_on(purpose, message)
                for each in [message] if instead is None else instead:
                    send(onward, each)
                purpose = None if instead is None else purpose
            while data := origin.recv(1 << 18):
                onward.sendall(data)
        except (EOFError, OSError):
            pass
        for end in (origin, onward):
            try:
                end.shutdown(socket.SHUT_RDWR)
            except OSError:
                pass

    while True:
        near, _ = listener.accept()
        first = near.recv(32, socket.MSG_WAITALL)
        far = socket.create_connection(target, 10)
        far.settimeout(None)
        for end in (near, far):
            end.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        far.sendall(first)
        for words in ((near, far, first[6]), (far, near, None)):
            threading.Thread(target=carry, args=words, daemon=True).start()


def receive_control(connection):
    message = b""
    while True:
        piece = receive_frame(connection)
        message += piece[1:]
        if piece[0] == 0:
            return message


def send_control(connection, message):
    connection.sendall(frame(b"\0" + message))


def ask_for_page(connection, address, pages=1):
    """The kind of the answer (0 data, 1 zero, 2 refused) and the number of bytes that came, or
    "closed"."""
    connection.sendall(frame(struct.pack("<IIQII", 1, 7, address, pages, 0)))
    connection.settimeout(SECONDS)
    try:
        reply = receive_frame(connection)
    except (EOFError, ConnectionError):
        return "closed"
    return [struct.unpack("<IIQII", reply[:24])[4], len(reply) - 24]


def destination(port):
    """Speaks the protocol of docs/protocol.md by hand; protobuf's fields are all empty."""
    offer_reply, connected, restored, running = b"\x12\0", b"\x62\0", b"\x22\0", b"\x32\x02\x08\x01"
    with socket.create_server(("", int(port))) as server:
        server.settimeout(SECONDS)
        print("ready", flush=True)
        control, _ = server.accept()
        receive_exactly(control, 32)
        offer = receive_control(control)
        send_control(control, offer_reply)
        data = []
        for _ in range(2):
            connection, _ = server.accept()
            receive_exactly(connection, 32)
            connection.sendall(frame(bytes(32)))  # the question for the token
            receive_frame(connection)
            data.append(connection)
        send_control(control, connected)
        final = receive_control(control)
        send_control(control, restored)
        receive_control(control)
        send_control(control, running)
        urgent = data[0]
        inside = os.environ["INSIDE"]
        return {"images": [len(offer), len(final)],
                "inside": ask_for_page(urgent, int(inside, 16)),
                "outside": ask_for_page(urgent, 0x1000),
                "across": ask_for_page(urgent, int(inside, 16), 2),
                "kernel": ask_for_page(urgent, 0xfffffffffffff000, 16)}


def main():
    functions = {"plain": plain, "tls": tls, "sniff": sniff, "destination": destination}
    result = functions[sys.argv[1]](*sys.argv[2:])
    if result is not None:
        print(json.dumps(result), flush=True)


if __name__ == "__main__":
    main()
