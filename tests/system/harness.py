"""Testbeds, programs and moves for the system tests.

MIGRATE_BUILD_DIR names the build tree (default: build/dev). Settings by environment:
MIGRATE_MOVES   moves there and back of each program (default 1; 20 for the long run)
MIGRATE_MODES   modes, separated by commas (default lazy,demand,eager)
MIGRATE_SCALE   size of the real programs' work (default 1; 10 for the long run)
MIGRATE_JOBS    programs at a time (default 3; 2 real programs)
MIGRATE_SEED    for the random moments (default 1)
MIGRATE_KEEP    keep the working folders
"""

import concurrent.futures
import itertools
import json
import os
import pathlib
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
import unittest

try:
    import jsonschema
except ImportError:  # tools_test.py says so.
    jsonschema = None

ROOT = pathlib.Path(__file__).resolve().parents[2]
BUILD = pathlib.Path(os.environ.get("MIGRATE_BUILD_DIR", ROOT / "build" / "dev")).resolve()
BIN = BUILD / "bin"
PROGRAMS = BUILD / "tests" / "programs"
MOVES = int(os.environ.get("MIGRATE_MOVES", "1"))
MODES = os.environ.get("MIGRATE_MODES", "lazy,demand,eager").split(",")
SCALE = float(os.environ.get("MIGRATE_SCALE", "1"))
JOBS = int(os.environ.get("MIGRATE_JOBS", "3"))
SEED = os.environ.get("MIGRATE_SEED", "1")
HOSTS = ["hostA", "hostB", "hostC"]
SURVIVED = 42  # check.h
SKIPPED = 77

DONE, OTHER, USAGE, REFUSED, FAILED, LOST = 0, 1, 2, 3, 4, 5
COMMAND_SECONDS = 60


def random_of(*words):
    """A random source of its own for each test, the same in each run with one seed."""
    return random.Random("/".join(map(str, (SEED, *words))))


def wait_until(condition, seconds=30.0):
    """What `condition` returns once that is true, or at the end of the time."""
    end = time.monotonic() + seconds
    while True:
        result = condition()
        if result or time.monotonic() > end:
            return result
        time.sleep(0.01)


# Holds memory full of a sentence, and says at its end whether it still does.
KEEPER = """
import os, sys, time
text, count = sys.argv[2].encode(), (int(sys.argv[3]) << 20) // len(sys.argv[2])
held = bytearray(text * count)
print("ready", flush=True)
while not os.path.exists(sys.argv[1]):
    time.sleep(0.05)
if held.count(text) == count:
    print("ok")
    sys.exit(42)
"""


OUTPUTS = json.loads((ROOT / "docs" / "output.schema.json").read_text())


def output_problem(command, printed):
    """What `migratectl --json COMMAND...` has printed that docs/output.schema.json does not allow; or
    nothing."""
    name = next((str(word) for word in command if str(word) in OUTPUTS["$defs"]), None)
    if jsonschema is None or name is None:
        return ""
    schema = {"$ref": f"#/$defs/{name}", "$defs": OUTPUTS["$defs"]}
    errors = list(jsonschema.Draft202012Validator(schema).iter_errors(printed))
    nearest = jsonschema.exceptions.best_match(errors)
    return f"{name}: {nearest.message} in {printed}" if errors else ""


class Outcome:
    """What a command of the tools came to: exit status, text, and the object printed, if any."""

    def __init__(self, completed):
        self.status = completed.returncode
        self.text = completed.stdout
        self.errors = completed.stderr
        try:
            self.object = json.loads(completed.stdout) if completed.stdout.strip() else {}
        except ValueError:
            self.object = {}

    def codes(self):
        return sorted({refusal["code"] for refusal in self.object.get("refusals") or []})

    def __str__(self):
        return f"exit {self.status}: {self.text.strip()} {self.errors.strip()}".strip()


class Process:
    """A program in a host, with its standard output gathered by a thread."""

    def __init__(self, command, **options):
        self.command = command
        options.setdefault("stdin", subprocess.DEVNULL)
        options.setdefault("stderr", subprocess.STDOUT)
        self.popen = subprocess.Popen(command, stdout=subprocess.PIPE, **options)
        self.pid = self.popen.pid
        self.output = bytearray()
        self.stdin = self.popen.stdin
        self._changed = threading.Condition()
        self._ended = False
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _read(self):
        while chunk := os.read(self.popen.stdout.fileno(), 1 << 20):
            with self._changed:
                self.output += chunk
                self._changed.notify_all()
        with self._changed:
            self._ended = True
            self._changed.notify_all()

    def wait_output(self, words, seconds=30):
        """Waits until the output holds `words` (bytes); false if it ends or time runs out."""
        with self._changed:
            self._changed.wait_for(lambda: words in self.output or self._ended, seconds)
            return words in self.output

    def wait_ready(self, seconds=60):
        return self.wait_output(b"ready\n", seconds)

    def wait(self, seconds=COMMAND_SECONDS):
        """The exit status (negative: the signal), after all output has come; None if it runs on."""
        try:
            status = self.popen.wait(seconds)
        except subprocess.TimeoutExpired:
            return None
        self._reader.join(10)
        return status

    def limit(self, seconds):
        """Kills the program after a time, so that a test that waits for it does not for ever."""
        timer = threading.Timer(seconds, self.popen.kill)
        timer.daemon = True
        timer.start()

    def kill(self):
        if self.popen.poll() is None:
            self.popen.kill()
            try:
                self.popen.wait(10)
            except subprocess.TimeoutExpired:
                print(f"harness: {self.pid} does not end by SIGKILL", file=sys.stderr)
        self._reader.join(5)
        if not self._reader.is_alive():
            self.popen.stdout.close()


class Testbed:
    """Hosts hostA, hostB, ... of one name, and a working folder that all of them see."""

    _numbers = itertools.count()

    def __init__(self, hosts=2, options=()):
        self.name = f"system-{os.getpid()}-{next(self._numbers)}"
        self._processes = []
        self._abandoned = False
        self._files = itertools.count()
        self._lock = threading.Lock()
        parent = BUILD / "tests" / "work"
        parent.mkdir(parents=True, exist_ok=True)
        self.work = pathlib.Path(tempfile.mkdtemp(prefix=self.name + "-", dir=parent))
        self.work.chmod(0o777)
        self._logs = {}
        try:
            self.command("up", hosts, *options, check=True)
            self._logs = {host["name"]: host["log"] for host in self.hosts()}
        except BaseException:
            self.down()
            raise

    def __enter__(self):
        return self

    def __exit__(self, *error):
        self.down()

    def command(self, *words, check=False, **options):
        """Runs testbed itself."""
        completed = subprocess.run(
            [str(BIN / "testbed"), "--name", self.name, *map(str, words)], check=False,
            capture_output=True, text=True, timeout=COMMAND_SECONDS, **options)
        if check and completed.returncode != 0:
            raise AssertionError(f"testbed {words}: {completed.stdout}{completed.stderr}")
        return Outcome(completed)

    def down(self):
        for process in self._processes:
            process.kill()
        self.command("down")
        if not os.environ.get("MIGRATE_KEEP"):
            shutil.rmtree(self.work, ignore_errors=True)

    def abandon(self):
        """Ends all programs and starts no more, so that whoever waits for them ends too."""
        with self._lock:
            self._abandoned = True
        for process in self._processes:
            process.kill()

    def hosts(self):
        return self.command("list", "--json", check=True).object["hosts"]

    def words(self, host, *command):
        return [str(BIN / "testbed"), "--name", self.name, "exec", host, "--", *map(str, command)]

    def run(self, host, *command, seconds=COMMAND_SECONDS, **options):
        """Runs a command in a host to its end."""
        options.setdefault("stdin", subprocess.DEVNULL)
        try:
            completed = subprocess.run(self.words(host, *command), check=False, text=True,
                                       capture_output=True, timeout=seconds, **options)
        except subprocess.TimeoutExpired as expired:
            completed = subprocess.CompletedProcess(
                command, -1, str(expired.stdout or b""), f"no end after {seconds} s: {command}")
        outcome = Outcome(completed)
        if outcome.object and "migratectl" in command and "--json" in command:
            if problem := output_problem(command, outcome.object):
                raise AssertionError(problem)
        return outcome

    def control(self, host, *words, **options):
        """Runs migratectl in a host."""
        return self.run(host, "migratectl", "--json", *words, **options)

    def start(self, host, *command, **options):
        options.setdefault("cwd", self.work)
        with self._lock:
            if self._abandoned:
                raise RuntimeError("the tests were interrupted")
            process = Process(self.words(host, *command), **options)
            self._processes.append(process)
        return process

    def set_link(self, host, state):
        """Cuts a host off (state "down"), or connects it again ("up")."""
        directory = next(each["directory"] for each in self.hosts() if each["name"] == host)
        subprocess.run(["nsenter", f"--net={directory}/net", "ip", "link", "set", "eth0", state],
                       check=True)

    def new_path(self, name="stop"):
        """The path of a file that is not there yet, in a folder that all hosts see."""
        return self.work / f"{next(self._files)}.{name}"

    def start_program(self, host, program, *arguments, seconds=600, **options):
        """Starts one of tests/programs with a stop file, and waits until it is ready."""
        stop = self.new_path()
        process = self.start(host, PROGRAMS / program, *arguments, stop, seconds, **options)
        process.stop_file = stop
        if not process.wait_ready():
            raise AssertionError(f"{program} {arguments} did not get ready: {process.wait(1)} "
                                 f"{bytes(process.output[-500:])}")
        return process

    def start_keeper(self, host, text="nothing special ", mib=16, prefix=(), **options):
        """Starts a program that touches none of its memory until it is told to stop."""
        stop = self.new_path()
        process = self.start(host, *prefix, "/usr/bin/python3", "-c", KEEPER, stop, text, mib,
                             **options)
        process.stop_file = stop
        if not process.wait_ready():
            raise AssertionError(f"the keeper did not get ready: {bytes(process.output)}")
        return process

    def move(self, host, pid, destination, mode="lazy", wait="resumed", patience=10.0, options=()):
        """Moves a process. What a program does for a moment only (a child, a file of /proc open) is
        waited for, up to `patience` seconds."""
        end = time.monotonic() + patience
        while True:
            outcome = self.control(host, "move", pid, destination, "--mode", mode, "--wait", wait,
                                   *options)
            if outcome.status != REFUSED or time.monotonic() > end:
                return outcome
            time.sleep(0.02)

    def logs(self, lines=40):
        """The ends of the daemons' logs, for the report of a failure."""
        text = ""
        for name, path in self._logs.items():
            try:
                tail = pathlib.Path(path).read_text(errors="replace").splitlines()[-lines:]
            except OSError as error:
                tail = [str(error)]
            text += f"--- log of {name}\n" + "\n".join(tail) + "\n"
        return text


def finish(process, expected=SURVIVED, seconds=COMMAND_SECONDS):
    """Tells a program to stop; says what is wrong with its end, or nothing."""
    process.stop_file.touch()
    status = process.wait(seconds)
    if status != expected or (expected == SURVIVED and not process.output.endswith(b"ok\n")):
        return (f"ended with {status}, expected {expected}; the end of its output: "
                f"{bytes(process.output[-700:])}")
    return ""


def travel(testbed, process, mode, count, source, hosts=("hostB", "hostA"), longest=0.25):
    """Moves a process `count` times at random moments along `hosts`; what went wrong, or nothing."""
    history = []
    for number in range(count):
        time.sleep(source.uniform(0.0, longest))
        destination = hosts[number % len(hosts)]
        wait = "done" if mode != "demand" and source.random() < 0.3 else "resumed"
        # Where the process is sent while it runs, each attempt takes longer.
        outcome = testbed.move("hostA", process.pid, destination, mode, wait,
                               patience=30.0 if mode in ("precopy", "hybrid") else 10.0)
        history.append(f"{destination}: {outcome}")
        if outcome.status != DONE:
            return (f"move {number + 1} of {count}, to {destination}:\n  " + "\n  ".join(history) +
                    f"\nits output: {bytes(process.output[-700:])}")
    return ""


def processes_of(host):
    """Names by pid of all that run under the name of a host of a testbed: a cell has that, and no
    longer the host's network."""
    space = os.stat(f"{host['directory']}/uts").st_ino
    found = {}
    for process in pathlib.Path("/proc").glob("[0-9]*"):
        try:
            if os.stat(process / "ns" / "uts").st_ino == space:
                found[int(process.name)] = (process / "comm").read_text().strip()
        except OSError:
            pass  # It has ended meanwhile.
    return found


def state_of(pid):
    """The state letter of a process; empty if it is gone."""
    try:
        return pathlib.Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except OSError:
        return ""


def list_properties(program):
    """Each line of PROGRAM --list, as words."""
    path = PROGRAMS / program
    if not path.exists():
        sys.exit(f"no {path}: build first, or set MIGRATE_BUILD_DIR")
    lines = subprocess.run([path, "--list"], check=True, capture_output=True, text=True).stdout
    return [line.split() for line in lines.splitlines()]


class Job(unittest.TestCase):
    """A test whose work (`job`, returning what is wrong) runs beside others of its suite."""

    testbed = None
    future = None

    def job(self):
        raise NotImplementedError

    def work(self):
        problem = self.job()
        if not problem:
            return ""
        print(f"{self.id()}: {problem}", file=sys.stderr, flush=True)  # A long run may be cut short.
        return problem + "\n" + self.testbed.logs()

    def check(self):
        problem = self.future.result() if self.future else self.work()
        if problem:
            self.fail(problem)


class ParallelSuite(unittest.TestSuite):
    """Runs the jobs of all its tests on one testbed, several at a time, reported in their order."""

    hosts = 2

    def run(self, result, debug=False):
        tests = list(flatten(self))
        if not tests:
            return super().run(result, debug)
        with Testbed(self.hosts) as testbed:
            with concurrent.futures.ThreadPoolExecutor(JOBS) as pool:
                for test in tests:
                    test.testbed = testbed
                    test.future = pool.submit(test.work)
                try:
                    return super().run(result, debug)
                except BaseException:
                    for test in tests:
                        test.future.cancel()
                    testbed.abandon()
                    raise


def flatten(suite):
    for test in suite:
        if isinstance(test, unittest.TestSuite):
            yield from flatten(test)
        else:
            yield test


def add_job(case, name, make):
    """Gives a Job class a test method. `make(test)` does the work; what is wrong, or nothing."""
    def method(self):
        self.check()
    method.job = make
    setattr(case, "test_" + name, method)


class GeneratedJobs(Job):
    """Jobs made by add_job."""

    def job(self):
        method = getattr(type(self), self._testMethodName)
        return method.job(self)


def program(name):
    """Where a program is that is installed or, so that no service came with it, unpacked by
    scripts/install-packages; None if it is not there."""
    unpacked = ROOT / "build" / "unpacked" / "usr"
    return shutil.which(name) or shutil.which(name, path=f"{unpacked}/bin:{unpacked}/sbin")


class Result(unittest.TextTestResult):
    """Says at the end what was skipped, for scripts/test to count."""

    def printErrors(self):
        super().printErrors()
        for test, reason in self.skipped:
            self.stream.writeln(f"SKIPPED {test}: {reason}")


class Runner(unittest.TextTestRunner):
    resultclass = Result


def main():
    if os.geteuid() != 0:
        sys.exit("the system tests need root, for namespaces")
    if not (BIN / "testbed").exists():
        sys.exit(f"no {BIN / 'testbed'}: build first, or set MIGRATE_BUILD_DIR")
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # So that testbeds are taken down.
    unittest.main(testRunner=Runner)
