#!/usr/bin/python3
"""Stands in for migrated: opens the sockets that it would, and shows what it was given."""

import argparse
import os
import signal
import socket
import sys

SOCKET = "/run/migrate/migrated.sock"

parser = argparse.ArgumentParser()
parser.add_argument("--listen", required=True)
parser.add_argument("--allow", action="append")
parser.add_argument("--group-rules", default=argparse.SUPPRESS)
parser.add_argument("--insecure", action="store_true")
parser.add_argument("--fail", action="store_true")
parser.add_argument("--stubborn", action="store_true", help="ignore SIGTERM")
arguments = parser.parse_args()
print("fake migrated on", socket.gethostname(), arguments, flush=True)
if arguments.fail:
    sys.exit("failing as told")
if arguments.stubborn:
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
host, _, port = arguments.listen.removeprefix("tcp://").rpartition(":")
server = socket.create_server((host, int(port)))
control = socket.socket(socket.AF_UNIX)
control.bind(SOCKET)
control.listen()
with open("/var/lib/migrate/session", "w", encoding="ascii") as record:
    record.write(f"{os.getpid()} {os.getsid(0)}\n")
while True:
    connection, _ = server.accept()
    connection.sendall(socket.gethostname().encode())
    connection.close()
