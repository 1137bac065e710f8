"""A user who makes connections to a daemon and never says what they are for, or who he is."""

import sys

import wire

USER = 54321  # Needs no account.
KINDS = ("silent", "half", "preamble", "hello")

# Keeps as many connections open as it may, and makes some hundred new ones a second.
PROGRAM = """
import collections, resource, socket, sys, time
address, seconds, kind, session = sys.argv[1], float(sys.argv[2]), sys.argv[3], sys.argv[4]
purpose = 2 if session else 1
preamble = (b"LMIG" + bytes([VERSION, 0, purpose, 0]) + bytes.fromhex(session or "11" * 16) +
            bytes(8))
said = {"silent": b"", "half": preamble[:4], "preamble": preamble,
        "hello": preamble + bytes([0x16, 0x03, 0x01, 0x40, 0x00])}[kind]
limit = min(resource.getrlimit(resource.RLIMIT_NOFILE)[0] - 50, 900)
held, made, refused, end = collections.deque(), 0, 0, time.monotonic() + seconds
print("ready", flush=True)
while time.monotonic() < end:
    try:
        connection = socket.create_connection((address, 7070), 1)
        connection.sendall(said)
        held.append(connection)
        made += 1
    except OSError:
        refused += 1
    if len(held) > limit:
        held.popleft().close()
        time.sleep(0.001)
print("made", made, "refused", refused, flush=True)
""".replace("VERSION", str(wire.PROTOCOL_VERSION))


def start(testbed, host, address, kind, seconds, user=USER, session=""):
    """A flood from `host`, bounded in time, of offers or for the pages of a session; the Process."""
    process = testbed.start(host, "setpriv", "--reuid", user, "--regid", user, "--clear-groups",
                            sys.executable, "-c", PROGRAM, address, seconds, kind, session)
    process.limit(seconds + 10)
    if not process.wait_ready():
        raise AssertionError(f"the flood did not begin: {bytes(process.output)}")
    return process
