"""Daemons in a virtual machine, and programs to be moved between them."""

import os
import pathlib
import re
import subprocess
import sys
import tempfile
import time

HERE = pathlib.Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent / "system"))

from harness import (  # noqa: E402,F401
    BIN, BUILD, COMMAND_SECONDS, DONE, FAILED, PROGRAMS, USAGE, Outcome, Process, finish,
    wait_until)

WORK = pathlib.Path(tempfile.mkdtemp(prefix="vm-"))


def run(*words, **options):
    return subprocess.run([str(word) for word in words], check=True, **options)


def resources():
    """How many verbs objects of each kind each device has."""
    shown = run("rdma", "resource", "show", capture_output=True, text=True).stdout
    return {line.split()[1].rstrip(":"): dict(re.findall(r"\b(pd|cq|qp|cm_id|mr) (\d+)", line))
            for line in shown.splitlines()}


class Daemon:
    """migrated as one host, of several perhaps on this machine."""

    def __init__(self, name, address, rdma=None, prefix=()):
        """`prefix`: the words before the command, such as of prlimit."""
        self.name = name
        self.address = address
        self.folder = WORK / name
        self.folder.mkdir()
        self.socket = self.folder / "socket"
        self.log = self.folder / "log"
        words = [*prefix, BIN / "migrated", "--listen", f"tcp://{address}", "--host-name", name,
                 "--socket", self.socket, "--state", self.folder / "state", "--insecure",
                 "--allow=*@*", "--allow=root@*"]
        if rdma:
            words += ["--listen", f"rdma://{rdma}"]
        with self.log.open("w") as log:
            self.process = subprocess.Popen([str(word) for word in words], stdin=subprocess.DEVNULL,
                                            stdout=log, stderr=log)
        if not wait_until(self.socket.exists, 30):
            raise AssertionError(f"migrated {name} does not start: {self.log.read_text()}")

    def control(self, *words, seconds=3 * COMMAND_SECONDS):
        completed = subprocess.run(
            [str(word) for word in (BIN / "migratectl", "--json", "--socket", self.socket, *words)],
            check=False, capture_output=True, text=True, stdin=subprocess.DEVNULL, timeout=seconds)
        return Outcome(completed)

    def move(self, process, destination, *options):
        """Moves a process; what is in the way for a moment only is waited for."""
        return self.control("move", process.pid, destination, "--retry", "30", *options)

    def stop(self):
        self.process.terminate()
        self.process.wait()


# Holds shared memory full of a sentence, and says at its end whether it still does.
SHARED_KEEPER = """
import mmap, os, sys, time
text = b"the quick brown fox jumps over the lazy dog. "
count = (1 << 20) // len(text)
held = mmap.mmap(-1, len(text) * count)
held[:] = text * count
print("ready", flush=True)
while not os.path.exists(sys.argv[1]):
    time.sleep(0.05)
if held[:] == text * count:
    print("ok")
    sys.exit(42)
"""


def start(command, prefix=(), **environment):
    """Starts a program, with the path of the file that stops it, when nobody else wants to run."""
    stop = WORK / f"stop-{time.monotonic_ns()}"
    process = Process([*prefix, "nice", "-n", "19", *command(stop)], cwd="/",  # which all hosts have
                      env=dict(os.environ, **environment))
    process.stop_file = stop
    if not process.wait_ready(120):
        process.kill()
        raise AssertionError(bytes(process.output[-500:]))
    return process


def start_program(mib=8, pause_ms=0, threads=3, prefix=()):
    """Threads that check and change a heap, with a pause after each block."""
    return start(lambda stop: [str(PROGRAMS / "stress"), "heap", str(stop), "3600"],
                 prefix, STRESS_THREADS=str(threads), STRESS_MIB=str(mib), STRESS_PAUSE_MS=str(pause_ms))


def start_shared_keeper():
    return start(lambda stop: ["/usr/bin/python3", "-c", SHARED_KEEPER, str(stop)])
