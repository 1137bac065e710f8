#!/usr/bin/python3
"""Policies, advice, `inspect` and `run`: what travels how, shown by the counters of the move."""

import json
import os
import re
import signal
import socket
import subprocess
import tempfile
import unittest

import harness
from harness import BUILD, DONE, REFUSED, USAGE, Testbed, wait_until

PAGE = 4096
MIB = 1 << 20
PAGES_OF_MIB = MIB // PAGE

# What the destination of the programs that run there does not have.
HIDDEN = ["/usr/bin/python3.11", "/usr/bin/sqlite3", "/usr/bin/xz",
          "/usr/lib/x86_64-linux-gnu/libexpat.so.1", "/usr/lib/x86_64-linux-gnu/libreadline.so.8",
          "/usr/lib/x86_64-linux-gnu/libsqlite3.so.0", "/usr/lib/x86_64-linux-gnu/liblzma.so.5"]

LIBRARY = """
#include <string>
#include <vector>
std::string own_words(int count) {
  std::vector<int> numbers(count, 3);
  int sum = 0;
  for (int each : numbers) sum += each;
  return "own library: " + std::to_string(sum);
}
// Code that is there, and never used.
#define MANY(n) int unused_##n(int x) { return x * n + 1; }
#define TEN(n) MANY(n##0) MANY(n##1) MANY(n##2) MANY(n##3) MANY(n##4) MANY(n##5) MANY(n##6)
#define HUNDRED(n) TEN(n##0) TEN(n##1) TEN(n##2) TEN(n##3) TEN(n##4) TEN(n##5) TEN(n##6)
HUNDRED(1) HUNDRED(2) HUNDRED(3) HUNDRED(4) HUNDRED(5) HUNDRED(6) HUNDRED(7) HUNDRED(8)
__attribute__((aligned(4096))) int last_unused(int x) { asm volatile(".skip 4000000, 0x90"); return x; }
"""

PROGRAM = """
#include <iostream>
#include <string>
std::string own_words(int count);
int main() { std::cout << own_words(1000) << std::endl; return 7; }
"""

# Fills three areas of eight MiB, and says at its end what they hold.
ADVISED = """
import ctypes, mmap, os, sys, time
library = ctypes.CDLL(sys.argv[2])
SIZE = 8 << 20
areas = {}
for letter, advice in ((b"e", 1), (b"l", 2), (b"d", 3)):
    area = mmap.mmap(-1, SIZE, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    address = ctypes.addressof(ctypes.c_char.from_buffer(area))
    # So that the kernel joins it with nothing that others use.
    area[:] = letter * SIZE
    if sys.argv[3] == "advice":
        status = library.migrate_advise(ctypes.c_void_p(address), ctypes.c_size_t(SIZE), advice)
    else:
        status = library.migrate_arena_register(b"area " + letter, ctypes.c_void_p(address),
                                                ctypes.c_size_t(SIZE))
    assert status == 0, status
    areas[letter] = area
print("ready", flush=True)
while not os.path.exists(sys.argv[1]):
    time.sleep(0.05)
for letter, area in areas.items():
    data = area[:]
    print(letter.decode(), data.count(letter) == SIZE, data.count(0) == SIZE, flush=True)
print("ok")
sys.exit(42)
"""

# Walks through eight MiB, once it runs there.
WALKING = """
import ctypes, mmap, os, sys, time
library = ctypes.CDLL(sys.argv[2])
SIZE = 8 << 20
area = mmap.mmap(-1, SIZE, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
address = ctypes.addressof(ctypes.c_char.from_buffer(area))
area[:] = b"w" * SIZE
assert library.migrate_advise(ctypes.c_void_p(address), ctypes.c_size_t(SIZE), int(sys.argv[3])) == 0
print("ready", flush=True)
while not os.path.exists(sys.argv[1]):
    time.sleep(0.05)
print(sum(area[at] for at in range(0, SIZE, 4096)) == SIZE // 4096 * ord("w"))
print("ok")
sys.exit(42)
"""

# Says at its end what it takes for its executable.
EXECUTABLE = """
import os, sys, time
print("ready", flush=True)
while not os.path.exists(sys.argv[1]):
    time.sleep(0.05)
print(os.readlink("/proc/self/exe"))
try:
    os.write(os.open("/proc/self/exe", os.O_WRONLY), b"x")
except OSError:
    print("empty")
print("ok")
sys.exit(42)
"""


def rule(**keys):
    lines = [f"{key} = {json.dumps(value)}" for key, value in keys.items()]
    return "\n".join(["[[rule]]", *lines, ""])


class PolicyCase(unittest.TestCase):
    testbed = None
    options = ()

    @classmethod
    def setUpClass(cls):
        cls.testbed = Testbed(2, cls.options)
        cls.addClassCleanup(cls.testbed.down)

    def policy(self, *rules):
        path = self.testbed.new_path("toml")
        path.write_text("\n".join(rules))
        return path

    def row(self, outcome, kind, name=None):
        rows = [each for each in outcome.object["policy"]
                if each["kind"] == kind and (name is None or name in each.get("name", ""))]
        self.assertTrue(rows, outcome)
        return rows[0]

    def owed(self, process):
        """As its home knows it, which it does not at first."""
        def known():
            return self.testbed.control("hostA", "show", process.pid).object["owed_pages"]

        self.assertTrue(wait_until(lambda: known() is not None))
        return known()

    def finish(self, process):
        self.assertEqual(harness.finish(process), "", self.testbed.logs())


class Rules(PolicyCase):
    def test_defaults_are_told(self):
        keeper = self.testbed.start_keeper("hostA")
        checked = self.testbed.control("hostA", "check", keeper.pid, "--to", "hostB")
        self.assertEqual(checked.status, DONE, checked)
        for kind, action in (("code", "local"), ("data", "local"), ("heap", "ship"),
                             ("stack", "ship")):
            row = self.row(checked, kind)
            self.assertEqual((row["action"], row["rule"]), (action, "default"))
        self.assertEqual(checked.object["shipped_bytes"], 0)
        self.finish(keeper)

    def test_refuse(self):
        keeper = self.testbed.start_keeper("hostA")
        policy = self.policy(rule(kind="heap", min_bytes=MIB, action="refuse"))
        for command in (["check", keeper.pid, "--to", "hostB"], ["move", keeper.pid, "hostB"]):
            outcome = self.testbed.control("hostA", *command, "--policy", policy)
            self.assertEqual((outcome.status, outcome.codes()), (REFUSED, ["POLICY"]), outcome)
            self.assertIn(f"{policy}:1", outcome.text)
        listed = self.testbed.control("hostA", "ps").object["processes"]
        self.assertNotIn(keeper.pid, [each["pid"] for each in listed])
        self.finish(keeper)

    def test_local_sends_no_page_of_a_file(self):
        keeper = self.testbed.start_keeper("hostA")
        policy = self.policy(rule(kind="code", action="local"))
        moved = self.testbed.move("hostA", keeper.pid, "hostB", wait="done",
                                  options=["--policy", policy])
        self.assertEqual(moved.status, DONE, moved)
        self.assertNotIn("file_bytes_sent", moved.object)
        self.finish(keeper)

    def test_ship_sends_all_pages_of_a_file(self):
        keeper = self.testbed.start_keeper("hostA")
        policy = self.policy(rule(kind="code", name="*/python3*", action="ship"))
        checked = self.testbed.control("hostA", "check", keeper.pid, "--to", "hostB", "--policy",
                                       policy)
        row = self.row(checked, "code", "/python3")
        self.assertEqual((row["action"], row["rule"]), ("ship", f"{policy}:1"))
        moved = self.testbed.move("hostA", keeper.pid, "hostB", wait="done",
                                  options=["--policy", policy])
        self.assertEqual(moved.status, DONE, moved)
        self.assertEqual(moved.object["file_bytes"], row["bytes"])
        self.assertGreater(moved.object["file_bytes_sent"], 0.9 * row["bytes"])
        self.assertEqual(moved.object["owed_pages"], 0)
        self.finish(keeper)

    def test_lazy_sends_what_is_touched(self):
        """In mode lazy, which pushes all else."""
        keeper = self.testbed.start_keeper("hostA", mib=16)
        policy = self.policy(rule(kind="heap", min_bytes=16 * MIB, action="lazy"))
        checked = self.testbed.control("hostA", "check", keeper.pid, "--to", "hostB", "--policy",
                                       policy)
        # The kernel may have joined it with a neighbour.
        lazy = sum(each["bytes"] for each in checked.object["policy"] if each["action"] == "lazy")
        self.assertGreaterEqual(lazy, 16 * MIB)
        moved = self.testbed.move("hostA", keeper.pid, "hostB", options=["--policy", policy])
        self.assertEqual(moved.status, DONE, moved)
        # What else there is has come by and by, and the rest waits.
        self.assertTrue(wait_until(lambda: self.owed(keeper) * MIB <= lazy * PAGES_OF_MIB),
                        (self.owed(keeper), lazy))
        self.assertFalse(wait_until(lambda: self.owed(keeper) < 15 * PAGES_OF_MIB, 2))
        self.finish(keeper)

    def test_eager_is_pushed_where_nothing_else_is(self):
        keeper = self.testbed.start_keeper("hostA", mib=16)
        policy = self.policy(rule(kind="heap", min_bytes=16 * MIB, action="eager"))
        moved = self.testbed.move("hostA", keeper.pid, "hostB", mode="demand",
                                  options=["--policy", policy])
        self.assertEqual(moved.status, DONE, moved)
        self.assertTrue(wait_until(lambda: self.owed(keeper) < 14 * PAGES_OF_MIB))
        self.assertGreater(self.owed(keeper), 0)
        self.finish(keeper)

    def test_a_mistake_is_said_with_its_place(self):
        policy = self.policy("# one line", rule(kind="heap", action="late"))
        for command in (["move", 1, "hostB"], ["check", 1], ["inspect", "/bin/true"],
                        ["run", "--on", "hostB", "/bin/true"]):
            words = [*command[:1], "--policy", policy, *command[1:]]
            outcome = self.testbed.control("hostA", *words)
            self.assertEqual(outcome.status, 125 if command[0] == "run" else USAGE, outcome)
            self.assertIn(f"{policy}:4:10", outcome.object["error"]["message"])
        daemon = self.testbed.run("hostA", BUILD / "bin" / "migrated", "--policy", policy,
                                  "--socket", self.testbed.work / "socket", "--state",
                                  self.testbed.work / "state")
        self.assertEqual(daemon.status, USAGE, daemon)
        self.assertIn(f"{policy}:4:10", daemon.errors)

    def test_a_file_that_never_ends_is_no_policy(self):
        endless = self.testbed.control("hostA", "check", "--policy", "/dev/zero", 1)
        self.assertEqual(endless.status, USAGE, endless)
        self.assertIn("longer than 1 MiB", endless.object["error"]["message"])
        piped = self.testbed.run("hostA", "bash", "-c",
                                 "migratectl check --policy <(echo nonsense) 1")
        self.assertEqual(piped.status, USAGE, piped)
        self.assertIn(":1:", piped.errors)

    def test_so_is_one_in_what_a_daemon_allows(self):
        for words in (["--allow", "nonsense"], ["--group-rules", "nonsense"],
                      ["--keys", "/no/such/keys"]):
            daemon = self.testbed.run("hostA", BUILD / "bin" / "migrated", *words, "--socket",
                                      self.testbed.work / "socket", "--state",
                                      self.testbed.work / "state")
            self.assertEqual(daemon.status, USAGE, daemon)
            self.assertIn(words[1], daemon.errors)


class Bounds(PolicyCase):
    """The host's rules are the most that a user may choose."""

    @classmethod
    def setUpClass(cls):
        parent = BUILD / "tests" / "work"
        parent.mkdir(parents=True, exist_ok=True)
        cls.file = parent / f"policy-{os.getpid()}.toml"
        cls.file.write_text(rule(kind="code", action="local") +
                            rule(kind="data", known=False, action="refuse") +
                            rule(kind="stack", action="refuse"))
        cls.addClassCleanup(cls.file.unlink)
        cls.options = [f"--daemon-arg=--policy={cls.file}"]
        super().setUpClass()

    def test_a_user_gets_no_more_than_the_host_allows(self):
        keeper = self.testbed.start_keeper("hostA")
        policy = self.policy(rule(action="ship"))
        inspected = self.testbed.control("hostA", "inspect", "--to", "hostB", "--policy", policy,
                                         keeper.pid)
        self.assertEqual((inspected.status, inspected.codes()), (REFUSED, ["POLICY"]), inspected)
        code = self.row(inspected, "code")
        self.assertEqual((code["action"], code["rule"]),
                         ("local", f"{self.file}:1 (not {policy}:1)"))
        self.assertEqual(self.row(inspected, "data")["rule"], f"{policy}:1")
        self.finish(keeper)


class Advice(PolicyCase):
    def advised(self, how):
        stop = self.testbed.new_path()
        process = self.testbed.start("hostA", "/usr/bin/python3", "-c", ADVISED, stop,
                                     BUILD / "libmigrate" / "api" / "libmigrate.so", how)
        process.stop_file = stop
        self.assertTrue(process.wait_ready(), process.output)
        return process

    def test_advice_is_followed(self):
        """In mode lazy all is pushed but what is lazy; what is discarded is not there."""
        process = self.advised("advice")
        moved = self.testbed.move("hostA", process.pid, "hostB")
        self.assertEqual(moved.status, DONE, moved)
        self.assertTrue(wait_until(lambda: self.owed(process) < 9 * PAGES_OF_MIB))
        self.assertGreater(self.owed(process), 7 * PAGES_OF_MIB)
        self.finish(process)
        self.assertIn(b"e True False\nl True False\nd False True\n", process.output)

    def test_advice_counts_again_after_a_move(self):
        process = self.advised("advice")
        self.assertEqual(self.testbed.move("hostA", process.pid, "hostB").status, DONE)
        # What was owed is sent before it moves on.
        back = self.testbed.move("hostA", process.pid, "hostA", mode="eager")
        self.assertEqual(back.status, DONE, back)
        self.finish(process)
        self.assertIn(b"e True False\nl True False\nd False True\n", process.output)

    def test_what_is_discarded_counts_no_more_though_it_was_sent_ahead(self):
        """In rounds, before the process was frozen."""
        for mode in ("precopy", "hybrid"):
            process = self.advised("advice")
            moved = self.testbed.move("hostA", process.pid, "hostB", mode=mode)
            self.assertEqual(moved.status, DONE, moved)
            self.finish(process)
            self.assertIn(b"e True False\nl True False\nd False True\n", process.output, mode)

    def pages_of_a_walk(self, advice, *options):
        """How those came of a program that has gone through memory of which it said that."""
        stop = self.testbed.new_path()
        process = self.testbed.start("hostA", "/usr/bin/python3", "-c", WALKING, stop,
                                     BUILD / "libmigrate" / "api" / "libmigrate.so", advice)
        process.stop_file = stop
        self.assertTrue(process.wait_ready(), process.output)
        move = self.testbed.start("hostA", "migratectl", "--json", "move", process.pid, "hostB",
                                  "--wait", "exit", *options)
        self.addCleanup(move.kill)
        # Until it runs there: what it goes through before, it has at home.
        self.assertTrue(wait_until(lambda: [
            each for each in self.testbed.control("hostB", "ps").object["processes"]
            if each["state"] == "running-here"]), self.testbed.logs())
        self.finish(process)
        self.assertIn(b"True", process.output)
        move.wait()
        return json.loads(move.output)["pages"]

    def test_what_is_walked_through_is_asked_for_ahead(self):
        """In mode demand, where nothing is without."""
        walked = 8 * PAGES_OF_MIB
        alone = self.pages_of_a_walk(0, "--mode", "demand")
        self.assertEqual(alone["prefetch"], 0)
        self.assertGreaterEqual(alone["fault"], walked)
        ahead = self.pages_of_a_walk(5, "--mode", "demand")
        self.assertGreater(ahead["prefetch"], walked * 9 // 10)
        self.assertLess(ahead["fault"], alone["fault"] - walked * 8 // 10)

    def test_where_it_jumps_nothing_is(self):
        """In mode lazy, where a walk is seen without; what is pushed meanwhile is little. Every page
        of the walk is waited for or pushed; what the program has besides may be asked for ahead."""
        slow = ("--bandwidth", "1")
        self.assertGreater(self.pages_of_a_walk(0, *slow)["prefetch"], 4 * PAGES_OF_MIB)
        pages = self.pages_of_a_walk(6, *slow)
        self.assertGreaterEqual(pages["fault"] + pages["push"], 8 * PAGES_OF_MIB, pages)

    def test_arenas_have_rules(self):
        process = self.advised("arenas")
        policy = self.policy(rule(kind="arena", name="area l", action="refuse"))
        outcome = self.testbed.control("hostA", "check", process.pid, "--policy", policy)
        self.assertEqual((outcome.status, outcome.codes()), (REFUSED, ["POLICY"]), outcome)
        self.assertIn("arena area l", outcome.text)
        copied = self.testbed.control("hostA", "fork", process.pid, "--to", "hostB", "--policy", policy)
        self.assertEqual(copied.status, REFUSED, copied)
        self.assertIn("arena area l", copied.text)
        self.finish(process)


class Clients(unittest.TestCase):
    """migratectl, whose daemon says nothing: it leaves no program behind."""

    def ask(self, *words):
        """The client, a connection to it, and the program that it has started."""
        directory = tempfile.TemporaryDirectory()
        self.addCleanup(directory.cleanup)
        path = os.path.join(directory.name, "socket")
        with socket.socket(socket.AF_UNIX) as listener:
            listener.bind(path)
            listener.listen()
            listener.settimeout(20)
            client = subprocess.Popen([BUILD / "bin" / "migratectl", "--socket", path, *words],
                                      stdout=subprocess.PIPE, stderr=subprocess.PIPE)
            self.addCleanup(client.communicate)
            self.addCleanup(client.kill)
            connection = listener.accept()[0]
        self.addCleanup(connection.close)
        request = json.loads(connection.makefile().readline())
        program = int(request["process"])
        self.addCleanup(self.end, program)
        self.assertIn("T (stopped)", self.status(program))
        return client, connection, program

    def end(self, pid):
        if not self.has_ended(pid):
            os.kill(pid, signal.SIGKILL)

    def status(self, pid):
        try:
            with open(f"/proc/{pid}/status", encoding="ascii") as status:
                return status.read()
        except FileNotFoundError:
            return ""

    def has_ended(self, pid):
        status = self.status(pid)
        return not status or "\nState:\tZ" in status

    def test_inspect_ends_with_its_program(self):
        client, _, program = self.ask("inspect", "--to", "host", "/bin/true")
        client.send_signal(signal.SIGTERM)
        self.assertEqual(client.wait(), -signal.SIGTERM)
        self.assertTrue(wait_until(lambda: self.has_ended(program)))

    def test_one_that_is_killed_leaves_no_program(self):
        for words in (("run", "--on", "host", "/bin/true"), ("inspect", "--to", "host", "/bin/true")):
            client, _, program = self.ask(*words)
            client.kill()
            self.assertTrue(wait_until(lambda: self.has_ended(program)), self.status(program))

    def test_run_hands_signals_on_and_ends_what_was_not_moved(self):
        client, connection, program = self.ask("run", "--on", "host", "/bin/true")
        client.send_signal(signal.SIGTERM)
        pending = re.compile(r"ShdPnd:\s[0-9a-f]*4000\n")
        self.assertTrue(wait_until(lambda: pending.search(self.status(program))))
        result = {"event": "result", "exit": 1, "error": {"code": "system", "message": "no such host"}}
        connection.sendall(json.dumps(result).encode() + b"\n")
        self.assertEqual(client.wait(), 125)
        self.assertIn(b"no such host", client.stderr.read())
        self.assertTrue(self.has_ended(program))


class Run(PolicyCase):
    options = ["--overlay", "/usr/bin,/usr/lib/x86_64-linux-gnu"]

    @classmethod
    def setUpClass(cls):
        super().setUpClass()
        bed = cls.testbed
        hidden = bed.run("hostB", "sh", "-c",
                         "for file; do rm -f \"$(readlink -f $file)\" $file; done", "hide", *HIDDEN)
        assert hidden.status == 0, hidden
        # /tmp is each host's own.
        for name, text in (("own.cc", LIBRARY), ("main.cc", PROGRAM)):
            (bed.work / name).write_text(text)
        built = bed.run(
            "hostA", "sh", "-c",
            f"mkdir /tmp/own && cd {bed.work} && g++ -O0 -shared -fPIC -o /tmp/own/libown.so own.cc "
            "&& g++ -o /tmp/own/main main.cc -L/tmp/own -lown -Wl,-rpath,/tmp/own")
        assert built.status == 0, built
        cls.data = bed.work / "numbers"
        cls.data.write_bytes(b"".join(str(each * each).encode() for each in range(60000)))

    def run_there(self, *command, mode="lazy", options=(), **more):
        report = self.testbed.new_path("report")
        ran = self.testbed.run("hostA", "migratectl", "run", "--on", "hostB", "--mode", mode,
                               "--report", report, *options, "--", *command, **more)
        self.assertTrue(report.exists(), f"{ran}\n{self.testbed.logs()}")
        return ran, json.loads(report.read_text())

    def hold_to(self, *command, stdin=None, status=0):
        """The command there as here, and less of its code sent than there is."""
        def source():
            return open(stdin, "rb") if stdin else subprocess.DEVNULL
        self.assertNotEqual(self.testbed.run("hostB", *command).status, status)
        expected = self.testbed.run("hostA", *command, stdin=source(), cwd=self.testbed.work)
        self.assertEqual(expected.status, status, expected)
        lazy, lazily = self.run_there(*command, stdin=source(), cwd=self.testbed.work)
        self.assertEqual((lazy.status, lazy.text, lazy.errors),
                         (expected.status, expected.text, expected.errors), self.testbed.logs())
        eager, eagerly = self.run_there(*command, mode="eager", stdin=source(),
                                        cwd=self.testbed.work)
        self.assertEqual((eager.status, eager.text), (expected.status, expected.text))
        print(f"{command[0]}: {lazily['file_bytes_sent']} bytes lazily, "
              f"{eagerly['file_bytes_sent']} eagerly, of {lazily['file_bytes']}")
        self.assertGreater(lazily["file_bytes_sent"], 0)
        self.assertLess(lazily["file_bytes_sent"], eagerly["file_bytes_sent"])

    def test_python(self):
        self.hold_to("/usr/bin/python3.11", "-c", "print(sum(each * each for each in range(1000)))")

    def test_sqlite(self):
        self.hold_to("/usr/bin/sqlite3", ":memory:",
                     "create table t(x); insert into t values(3), (4); select sum(x * x) from t;")

    def test_xz(self):
        self.hold_to("/usr/bin/xz", "--robot", "--info-memory")
        packed = self.testbed.work / "numbers.xz"
        with open(self.data, "rb") as source, open(packed, "wb") as target:
            ran = subprocess.run(
                self.testbed.words("hostA", "migratectl", "run", "--on", "hostB", "--", "xz", "-c"),
                stdin=source, stdout=target, check=False, timeout=60)
        self.assertEqual(ran.returncode, 0)
        unpacked = subprocess.run(["xz", "-dc", packed], capture_output=True, check=True)
        self.assertEqual(unpacked.stdout, self.data.read_bytes())

    def test_own_library(self):
        self.hold_to("/tmp/own/main", status=7)

    def test_inspect(self):
        inspected = self.testbed.control("hostA", "inspect", "--to", "hostB", "/tmp/own/main")
        self.assertEqual(inspected.status, DONE, inspected)
        files = {each["path"]: each for each in inspected.object["files"]}
        self.assertEqual(files["/tmp/own/main"]["role"], "executable")
        self.assertFalse(files["/tmp/own/main"]["known"])
        self.assertFalse(files["/tmp/own/libown.so"]["known"])
        libc = next(each for path, each in files.items() if path.endswith("/libc.so.6"))
        self.assertTrue(libc["known"])
        self.assertRegex(libc["build_id"], "^[0-9a-f]{40}$")
        shipped = sum(each["bytes"] for each in inspected.object["policy"]
                      if each["action"] == "lazy" and each.get("known") is False)
        self.assertEqual(shipped, inspected.object["shipped_bytes"])
        self.assertGreater(shipped, 4000000)

    def test_all_files_are_sent(self):
        """So that the destination looks for none but the executable, which it has not."""
        for policy in (self.policy(rule(name="*", action="ship")),
                       self.policy(rule(kind="code", action="eager"),
                                   rule(kind="data", action="eager")),
                       self.policy(rule(kind="code", action="lazy"),
                                   rule(kind="data", action="lazy"))):
            for mode in ("lazy", "eager"):
                ran, _ = self.run_there("/tmp/own/main", mode=mode, options=["--policy", policy])
                self.assertEqual((ran.status, ran.text), (7, "own library: 3000\n"),
                                 f"{ran}\n{policy.read_text()}")
            inspected = self.testbed.control("hostA", "inspect", "--to", "hostB", "--policy", policy,
                                             "/tmp/own/main")
            self.assertEqual(inspected.status, DONE, inspected)
            known = {each["path"]: each["known"] for each in inspected.object["files"]}
            self.assertFalse(known["/tmp/own/main"])
            self.assertFalse(known["/tmp/own/libown.so"])
            self.assertTrue(next(each for path, each in known.items()
                                 if path.endswith("/libc.so.6")))
            self.assertFalse(self.row(inspected, "code", "/tmp/own/libown.so")["known"])

    def test_it_runs_here_if_that_is_its_destination(self):
        for where in ("hostA", "localhost"):
            ran = self.testbed.run("hostA", "migratectl", "run", "--on", where, "--", "sh", "-c",
                                   "echo here; exit 3")
            self.assertEqual((ran.status, ran.text, ran.errors), (3, "here\n", ""), ran)
        report = self.testbed.new_path("report")
        ran = self.testbed.run("hostA", "migratectl", "run", "--on", "hostA", "--report", report,
                               "--", "sh", "-c", "echo here; exit 3")
        self.assertEqual((ran.status, ran.text), (3, "here\n"), ran)
        self.assertIn("hostA is this host", ran.errors)
        told = json.loads(report.read_text())
        self.assertEqual((told["state"], told["exit_status"]), ("already there", 3 << 8), told)

    def test_signals_and_exit_status(self):
        process = self.testbed.start(
            "hostA", "migratectl", "run", "--on", "hostB", "--", "/usr/bin/python3.11", "-c",
            "import time; print('ready', flush=True); time.sleep(60)")
        self.assertTrue(process.wait_ready(), process.output)
        os.kill(self.pid_of(process), signal.SIGTERM)  # To migratectl, which hands it on.
        self.assertIn(process.wait(), (-signal.SIGTERM, 128 + signal.SIGTERM))

    def pid_of(self, process):
        """That of migratectl, which testbed has become or started."""
        listed = subprocess.run(["pgrep", "-f", "migratectl run.*sleep.60"], capture_output=True,
                                text=True, check=False).stdout.split()
        return int(listed[-1]) if listed else process.pid

    def test_what_is_not_started(self):
        missing = self.testbed.run("hostA", "migratectl", "run", "--on", "hostB", "--", "/no/such")
        self.assertEqual(missing.status, 127, missing)
        text = self.testbed.run("hostA", "migratectl", "run", "--on", "hostB", "--", self.data)
        self.assertEqual(text.status, 126, text)
        refused = self.testbed.run("hostA", "migratectl", "run", "--on", "hostB", "--policy",
                                   self.policy(rule(kind="code", action="local")), "--",
                                   "/tmp/own/main")
        self.assertEqual(refused.status, 125, refused)
        self.assertIn("FILE_MISSING", refused.errors)
        self.assertEqual(refused.text, "")
        nowhere = self.testbed.run("hostA", "migratectl", "run", "--on", "10.1.2.3:1", "--",
                                   "/bin/echo", "no")
        self.assertEqual((nowhere.status, nowhere.text), (125, ""), nowhere)
        wrong = self.testbed.run("hostA", "migratectl", "run", "--no-such-option", "--on", "hostB",
                                 "--", "/bin/echo", "no")
        self.assertEqual((wrong.status, wrong.text), (125, ""), wrong)

    def test_inspect_takes_options_after_a_pid(self):
        process = self.testbed.start("hostA", "/bin/sleep", "60")
        self.addCleanup(process.kill)
        inspected = self.testbed.control("hostA", "inspect", process.pid, "--to", "hostB")
        self.assertIn("known", inspected.object["files"][0], inspected)

    def test_inspect_says_what_it_cannot_take(self):
        after = self.testbed.control("hostA", "inspect", "/bin/true", "--to", "hostB")
        self.assertEqual(after.status, USAGE, after)
        self.assertIn("before the command", after.object["error"]["message"])
        own = self.testbed.control("hostA", "inspect", "--", "/bin/true", "--to", "hostB")
        self.assertEqual(own.status, DONE, own)
        moved = self.testbed.control("hostA", "inspect", "0123456789abcdef")
        self.assertIn("migratectl show", moved.object["error"]["message"])

    def test_known_files(self):
        """Whatever a later rule says of files that are sent, those that are not known were asked for."""
        policy = self.policy(rule(kind="code", name="/tmp/own/*", known=False, action="refuse"),
                             rule(action="ship"))
        refused = self.testbed.run("hostA", "migratectl", "run", "--on", "hostB", "--policy", policy,
                                   "--", "/tmp/own/main")
        self.assertEqual(refused.status, 125, refused)
        self.assertIn("POLICY", refused.errors)
        policy = self.policy(rule(kind="code", known=True, action="eager"),
                             rule(kind="code", action="lazy"), rule(kind="data", action="ship"))
        inspected = self.testbed.control("hostA", "inspect", "--to", "hostB", "--policy", policy,
                                         "/tmp/own/main")
        self.assertEqual(inspected.status, DONE, inspected)
        self.assertEqual(self.row(inspected, "code", "/tmp/own/main")["action"], "lazy")
        self.assertEqual(self.row(inspected, "code", "/libc.so.6")["action"], "eager")
        ran = self.testbed.run("hostA", "migratectl", "run", "--on", "hostB", "--policy", policy,
                               "--", "/tmp/own/main")
        self.assertEqual((ran.status, ran.text), (7, "own library: 3000\n"), self.testbed.logs())

    def test_an_ordinary_user(self):
        self.testbed.run("hostA", "chmod", "-R", "a+rX", "/tmp/own")
        nobody = ["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups"]
        ran = self.testbed.run("hostA", *nobody, "migratectl", "run", "--on", "hostB", "--",
                               "/tmp/own/main", cwd="/")
        self.assertEqual((ran.status, ran.text), (7, "own library: 3000\n"), self.testbed.logs())
        # What he may execute, but not read, is not read for him, and nobody's rights are his.
        self.testbed.run("hostA", "sh", "-c", "cd /tmp/own && cp main unread && chmod 111 unread && "
                                              "cp /usr/bin/id id && chmod 4755 id")
        unread = self.testbed.run("hostA", *nobody, "migratectl", "run", "--on", "hostB", "--",
                                  "/tmp/own/unread", cwd="/")
        self.assertIn(unread.status, (125, 126), unread)
        self.assertEqual(unread.text, "")
        of_root = self.testbed.run("hostA", *nobody, "migratectl", "run", "--on", "hostB", "--",
                                   "/tmp/own/id", cwd="/")
        self.assertEqual(of_root.status, 0, of_root)
        self.assertIn("uid=65534", of_root.text)
        self.assertNotIn("euid=", of_root.text)

    def test_home_again(self):
        """The executable, for which an empty file stands, does not keep it from moving on."""
        stop = self.testbed.new_path()
        process = self.testbed.start(
            "hostA", "migratectl", "run", "--on", "hostB", "--", "/usr/bin/python3.11", "-c",
            EXECUTABLE, stop, "home again")
        process.stop_file = stop
        self.assertTrue(process.wait_ready(), process.output)
        listed = self.testbed.control("hostA", "ps").object["processes"]
        pid = next(each["pid"] for each in listed if "home again" in each["command"])
        back = self.testbed.move("hostA", pid, "hostA")
        self.assertEqual(back.status, DONE, back)
        self.finish(process)
        # However often it has moved; and it stays empty, by which it is known.
        self.assertIn(b"/memfd:python3.11 (deleted)\nempty\n", process.output)


if __name__ == "__main__":
    harness.main()
