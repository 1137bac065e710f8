"""Two hosts of a testbed, and the process that is moved between them."""

import json
import os
import pathlib
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time

SOURCE, DESTINATION = "hostA", "hostB"


class BenchError(Exception):
    """Something could not be measured."""


def wait_for(condition, what, seconds=60.0):
    end = time.monotonic() + seconds
    while not (result := condition()):
        if time.monotonic() > end:
            raise BenchError(f"waited {seconds:.0f} s for {what}, in vain")
        time.sleep(0.002)
    return result


class Bed:
    """Two hosts, and a folder that both see. Leaves nothing behind."""

    def __init__(self, build, programs, options=()):
        self.build = build
        self.testbed = build / "bin" / "testbed"
        self.programs = programs
        self.options = options
        # A testbed's name has 32 letters at most.
        self.name = re.sub(r"[^\w-]", "", "-".join(["bench", str(os.getpid()), *options])
                           .replace("--", ""))[:32]
        self.processes = []
        self.count = 0
        parent = build / "bench" / "work"
        parent.mkdir(parents=True, exist_ok=True)
        self.work = pathlib.Path(tempfile.mkdtemp(prefix=self.name + "-", dir=parent))

    def __enter__(self):
        try:
            self.command("up", 2, *self.options)
            listed = json.loads(self.command("list", "--json"))["hosts"]
            self.addresses = {host["name"]: host["address"].partition("/")[0] for host in listed}
            self.states = {host["name"]: pathlib.Path(host["state"]) for host in listed}
            self.logs = [pathlib.Path(host["log"]) for host in listed]
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *error):
        for process in self.processes:
            self.end(process)
        subprocess.run([self.testbed, "--name", self.name, "down"], check=False, timeout=120,
                       stdout=subprocess.DEVNULL)
        shutil.rmtree(self.work, ignore_errors=True)

    def command(self, *words):
        words = [str(self.testbed), "--name", self.name, *map(str, words)]
        result = subprocess.run(words, capture_output=True, text=True, check=False, timeout=120)
        if result.returncode != 0:
            raise BenchError(f"{' '.join(words)}: {result.stdout}{result.stderr}")
        return result.stdout

    def words(self, host, *command):
        return [str(self.testbed), "--name", self.name, "exec", host, "--", *map(str, command)]

    def run(self, host, *command, seconds=600):
        """What a command prints, as JSON."""
        result = subprocess.run(self.words(host, *command), stdin=subprocess.DEVNULL,
                                capture_output=True, text=True, check=False, timeout=seconds)
        if result.returncode != 0:
            raise BenchError(f"{' '.join(map(str, command))} ended with {result.returncode}: "
                             f"{result.stdout}{result.stderr}\n{self.log_ends()}")
        return json.loads(result.stdout)

    def start(self, host, *command, stdout=subprocess.DEVNULL):
        with open(self.work / "errors", "ab") as errors:
            process = subprocess.Popen(self.words(host, *command), stdin=subprocess.DEVNULL,
                                       stdout=stdout, stderr=errors)
        self.processes.append(process)
        return process

    def end(self, process):
        if process.poll() is None:
            process.kill()
            try:
                process.wait(20)
            except subprocess.TimeoutExpired:
                print(f"bench: process {process.pid} does not end", file=sys.stderr)
        if process.stdout:
            process.stdout.close()
        if process in self.processes:
            self.processes.remove(process)

    def log_ends(self):
        errors = self.work / "errors"
        return "\n".join("\n".join(path.read_text(errors="replace").splitlines()[-15:])
                         for path in [*self.logs, errors] if path.exists())

    def state(self, host):
        """The state directory of a host's daemon."""
        return self.states[host]

    def daemons(self):
        """The pids of the hosts' daemons."""
        return [host["daemon_pid"] for host in json.loads(self.command("list", "--json"))["hosts"]]


class Subject:
    """The process that is moved."""

    def __init__(self, bed, *arguments):
        self.bed = bed
        bed.count += 1
        self.result = bed.work / f"{bed.count}.result"
        self.process = bed.start(SOURCE, bed.programs / "subject", "--result", self.result,
                                 *arguments)
        self.wait_mark("ready", 120)

    def __enter__(self):
        return self

    def __exit__(self, *error):
        self.bed.end(self.process)
        for path in self.bed.work.glob(self.result.name + "*"):
            path.unlink(missing_ok=True)

    def wait_mark(self, name, seconds=600.0):
        path = pathlib.Path(f"{self.result}.{name}")

        def there():
            if self.process.poll() is not None and not path.exists():
                raise BenchError(f"the subject ended with {self.process.returncode} before "
                                 f"'{name}':\n{self.bed.log_ends()}")
            return path.exists()
        wait_for(there, f"'{name}' of the subject", seconds)

    def mark(self, name):
        pathlib.Path(f"{self.result}.{name}").touch()

    def forget_gaps(self):
        self.process.send_signal(signal.SIGUSR1)
        self.wait_mark("marked", 10)

    def move(self, mode, wait="resumed"):
        return self.bed.run(SOURCE, "migratectl", "--json", "move", self.process.pid, DESTINATION,
                            "--mode", mode, "--wait", wait)

    def finish(self):
        self.mark("stop")
        wait_for(self.result.exists, "the subject's result", 600)
        return json.loads(self.result.read_text())


def longest_gap_us(result, begin_ns, end_ns):
    """The longest gap that began while the move was under way, its push included."""
    gaps = [gap["us"] for gap in result["gaps"] if begin_ns <= gap["start_ns"] <= end_ns]
    return max(gaps, default=0.0)
