#!/usr/bin/python3
"""The tools as a user meets them: arguments, lists, signals to the deputy, restarts, permissions."""

import os
import pathlib
import signal
import time
import unittest

import harness
from harness import DONE, FAILED, OTHER, REFUSED, USAGE, Testbed, finish, wait_until

NOBODY = ["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups"]


class ToolsCase(unittest.TestCase):
    """All tests of a class share a testbed."""

    testbed = None
    host_count = 2

    @classmethod
    def setUpClass(cls):
        cls.testbed = Testbed(cls.host_count)
        cls.addClassCleanup(cls.testbed.down)

    def start(self, *words, **options):
        process = self.testbed.start_program("hostA", *words, **options)
        self.addCleanup(process.kill)
        return process

    def move(self, process, destination, **options):
        outcome = self.testbed.move("hostA", process.pid, destination, **options)
        self.assertEqual(outcome.status, DONE, f"{outcome}\n{self.testbed.logs()}")
        return outcome.object

    def finish(self, process, expected=harness.SURVIVED):
        self.assertEqual(finish(process, expected), "", self.testbed.logs())

    def records(self, host, **wanted):
        """What `ps` lists on a host, of these values."""
        outcome = self.testbed.control(host, "ps")
        self.assertEqual(outcome.status, DONE, outcome)
        return [record for record in outcome.object["processes"]
                if all(record.get(key) == value for key, value in wanted.items())]


class Arguments(ToolsCase):
    """What is asked for wrongly."""

    def test_usage(self):
        for words in ([], ["frobnicate"], ["move"], ["move", "1"], ["check"],
                      ["move", "1", "hostB", "--mode", "strange"],
                      ["move", "1", "hostB", "--wait", "strange"],
                      ["wait", "x", "--for", "strange"], ["--no-such-option", "ps"]):
            outcome = self.testbed.run("hostA", "migratectl", *words)
            self.assertEqual(outcome.status, USAGE, f"{words}: {outcome}")

    def test_help(self):
        for words in (["--help"], ["move", "--help"]):
            outcome = self.testbed.run("hostA", "migratectl", *words)
            self.assertEqual(outcome.status, DONE, outcome)
            self.assertIn("move", outcome.text)

    def test_no_such_process(self):
        for pid in ("4194303", "0", "-5", "word"):
            for words in (["move", pid, "hostB"], ["check", pid]):
                outcome = self.testbed.control("hostA", *words)
                self.assertIn(outcome.status, (OTHER, USAGE), f"{words}: {outcome}")
                self.assertTrue(outcome.text or outcome.errors)

    def test_no_such_id(self):
        for words in (["show", "0123456789"], ["wait", "0123456789"], ["show", "4194303"]):
            outcome = self.testbed.control("hostA", *words)
            self.assertIn(outcome.status, (OTHER, USAGE), f"{words}: {outcome}")

    def test_kernel_thread_and_init(self):
        for pid in ("1", "2"):
            outcome = self.testbed.control("hostA", "check", pid)
            self.assertNotEqual(outcome.status, DONE, outcome)

    def test_names_steer_no_terminal(self):
        """Who looks at another's process sees names that the other has chosen."""
        name = f"{self.testbed.work}/\x1b]0;mine\x07\x1b[2J\xc2\x9b2J\nmovable"
        program = "import os,sys,time;name=sys.argv[1];os.mkdir(name);os.open(name,os.O_RDONLY);" \
                  "os.rmdir(name);print('ready',flush=True);time.sleep(300)"
        process = self.testbed.start("hostA", "/usr/bin/python3", "-c", program, name)
        self.addCleanup(process.kill)
        self.assertTrue(process.wait_ready(), bytes(process.output))
        for command in (["check", process.pid], ["move", process.pid, "hostB"]):
            outcome = self.testbed.run("hostA", "migratectl", *command)
            self.assertIn("DELETED_FILE", outcome.text)
            self.assertNotRegex(outcome.text + outcome.errors, "[\x00-\x09\x0b-\x1f\x7f-\x9f]")
            self.assertNotIn("\nmovable", outcome.text)

    def test_no_daemon(self):
        outcome = self.testbed.run("hostA", "migratectl", "--socket", "/no/such/socket", "ps")
        self.assertEqual(outcome.status, OTHER, outcome)
        self.assertIn("/no/such/socket", outcome.errors)

    def test_move_to_where_it_is(self):
        process = self.start("threads", "ids")
        outcome = self.testbed.control("hostA", "move", process.pid, "hostA")
        self.assertEqual((outcome.status, outcome.object["state"]), (DONE, "already there"),
                         outcome)
        self.assertFalse(self.records("hostA", pid=process.pid))
        self.move(process, "hostB", wait="done")
        for where in ("hostB", "10.213.0.2"):
            outcome = self.testbed.control("hostA", "move", process.pid, where)
            self.assertEqual((outcome.status, outcome.object["state"]), (DONE, "already there"),
                             outcome)
        self.finish(process)

    def test_no_such_host(self):
        process = self.start("threads", "ids")
        for words in (["move", process.pid, "no-such-host.invalid"],
                      ["check", process.pid, "--to", "no-such-host.invalid"]):
            outcome = self.testbed.control("hostA", *words)
            # Where no name server answers, nobody can tell that there is none.
            self.assertIn((outcome.status, "there is no such host" in outcome.text),
                          ((USAGE, True), (FAILED, False), (OTHER, False)), outcome)
            self.assertIn("resolve host", outcome.text)
        self.finish(process)

    def test_daemon_listens_to_strangers_only_if_told(self):
        outcome = self.testbed.run("hostA", "migrated", "--listen", "tcp://10.213.0.1:7171",
                                   "--socket", "/tmp/other.sock", "--state", "/tmp/other", seconds=5)
        self.assertGreater(outcome.status, 0, outcome)
        self.assertIn("--insecure", outcome.text + outcome.errors)


class Lists(ToolsCase):
    """ps, show, wait and hosts."""

    host_count = 3

    def test_move_tells_all(self):
        process = self.start("memory", "sequential")
        result = self.move(process, "hostB", wait="done")
        for key in ("id", "process", "pid", "mode", "phases_us", "freeze_us", "pages", "wire_bytes",
                    "faults", "owed_nothing_after_us", "state"):
            self.assertIn(key, result)
        for key in ("inspect", "offer", "capture", "restore", "park", "run"):
            self.assertIn(key, result["phases_us"])
        for key in ("fault", "prefetch", "push", "local_file", "zero", "never_present"):
            self.assertIn(key, result["pages"])
        self.assertEqual(result["mode"], "lazy")
        self.assertGreater(result["freeze_us"], 0)
        self.assertGreater(result["wire_bytes"], 128 << 20)
        self.assertGreater(result["owed_nothing_after_us"], 0)
        moved = sum(result["pages"][key] for key in ("fault", "prefetch", "push"))
        self.assertGreaterEqual(moved, (128 << 20) // 4096)
        self.finish(process)

    def test_home_always_knows_where(self):
        process = self.start("threads", "ids")
        for where in ("hostB", "hostC", "hostB", "hostA", "hostC"):
            self.move(process, where, wait="done")
            shown = self.testbed.control("hostA", "show", process.pid)
            self.assertEqual(shown.status, DONE, shown)
            address = {"hostA": "10.213.0.1", "hostB": "10.213.0.2", "hostC": "10.213.0.3"}[where]
            place = str(shown.object["where"])
            self.assertTrue(address in place or where in place, f"{where}: {place}")
        identity = shown.object["process"]
        self.assertTrue(self.records("hostA", process=identity))
        # Nothing runs where it no longer is.
        wait_until(lambda: not [record for record in self.records("hostB", process=identity)
                                if record.get("worker_alive")], 10)
        self.assertFalse([record for record in self.records("hostB", process=identity)
                          if record.get("worker_alive")])
        self.finish(process)

    def test_wait(self):
        process = self.start("threads", "ids")
        identity = self.move(process, "hostB")["process"]
        outcome = self.testbed.control("hostA", "wait", identity, "--for", "done")
        self.assertEqual(outcome.status, DONE, outcome)
        waiting = self.testbed.start("hostA", "migratectl", "wait", identity, "--for", "exit")
        time.sleep(0.3)
        self.assertIsNone(waiting.popen.poll())
        self.finish(process)
        self.assertEqual(waiting.wait(), harness.SURVIVED)  # As a shell would give it.

    def test_wait_for_exit_of_move(self):
        process = self.start("threads", "ids")
        mover = self.testbed.start("hostA", "migratectl", "move", process.pid, "hostB", "--wait",
                                   "exit")
        away = wait_until(lambda: self.records("hostA", pid=process.pid, state="away") or
                          self.records("hostA", pid=process.pid, state="done"))
        self.assertTrue(away, self.testbed.logs())
        process.stop_file.touch()
        self.assertIn(mover.wait(), (DONE, harness.SURVIVED), self.testbed.logs())
        self.assertEqual(process.wait(), harness.SURVIVED)

    def test_wait_for_exit_of_the_second_move(self):
        """Which is another host's, that has nothing to do with the process's end."""
        process = self.start("threads", "ids")
        self.move(process, "hostB", wait="done")
        mover = self.testbed.start("hostA", "migratectl", "--json", "move", process.pid, "hostC",
                                   "--wait", "exit")
        self.assertTrue(wait_until(lambda: self.records("hostC", owed_pages=0)),
                        self.testbed.logs())
        time.sleep(0.5)
        self.assertIsNone(mover.popen.poll())
        self.finish(process)
        self.assertIn(mover.wait(), (DONE, harness.SURVIVED), self.testbed.logs())
        self.assertIn('"state":"exited"', bytes(mover.output).decode().replace(" ", ""))

    def test_move_by_the_host_pid(self):
        """Where it runs now, another pid names it."""
        process = self.start("threads", "ids")
        identity = self.move(process, "hostB", wait="done")["process"]
        (record,) = self.records("hostB", process=identity)
        self.assertNotEqual(record["pid"], 0)
        outcome = self.testbed.move("hostB", record["pid"], "hostC", wait="done")
        self.assertEqual(outcome.status, DONE, f"{outcome}\n{self.testbed.logs()}")
        self.move(process, "hostA")
        self.finish(process)

    def test_owed_by_the_place_before(self):
        """Whoever asks, at home or on the way, hears whom the process still needs."""
        process = self.testbed.start_keeper("hostA", mib=16)
        self.addCleanup(process.kill)
        identity = self.move(process, "hostB", wait="done")["process"]
        self.assertTrue(self.records("hostA", process=identity, state="done"))
        self.move(process, "hostC", mode="demand")

        def owed(host, **expected):
            """What the host shows, once it knows how much is owed."""
            rows = wait_until(lambda: [row for row in self.records(host, process=identity,
                                                                   **expected)
                                       if row["owed_pages"]])
            self.assertTrue(rows, f"{host}: {self.records(host)}\n{self.testbed.logs()}")
            self.assertGreater(rows[0]["owed_pages"], 4000)
            return rows[0]
        owed("hostA", state="away", owed_by="tcp://10.213.0.2:7070")
        owed("hostB", state="away", where="tcp://hostC:7070", owed_by="hostB")
        owed("hostC", state="running-here", owed_by="tcp://10.213.0.2:7070")
        waiting = self.testbed.start("hostA", "migratectl", "wait", identity, "--for", "done")
        time.sleep(0.5)
        self.assertIsNone(waiting.popen.poll())
        self.assertIn(" by ", self.testbed.run("hostA", "migratectl", "ps").text)
        self.move(process, "hostA")  # For which hostC asks for everything.
        self.assertEqual(waiting.wait(), DONE)
        self.finish(process)

    def test_many_move_it_at_once(self):
        """One after the other, wherever it is by then."""
        process = self.start("threads", "ids")
        movers = [self.testbed.start("hostA", "migratectl", "--json", "move", process.pid, where)
                  for where in ("hostB", "hostC", "hostB", "hostC")]
        outcomes = [(mover.wait(), bytes(mover.output).decode()) for mover in movers]
        for status, text in outcomes:  # A move may be under way that nobody can see yet.
            self.assertTrue(status == DONE or (status == FAILED and "another request" in text),
                            f"{outcomes}\n{self.testbed.logs()}")
        self.assertIn(DONE, [status for status, _ in outcomes])
        self.finish(process)

    def test_it_becomes_another_program_all_the_time(self):
        """By execve, some ten times a second: it is tried again until it stands still."""
        script = self.testbed.new_path("script")
        script.write_text("i=$1; j=0\n"
                          "while [ $j -lt 200000 ]; do j=$((j+1)); done\n"
                          "[ $i -ge 40 ] && { echo done; exit 0; }\n"
                          "exec sh \"$0\" $((i+1))\n")
        process = self.testbed.start("hostA", "sh", script, "0")
        self.addCleanup(process.kill)
        time.sleep(0.3)
        outcome = self.testbed.control("hostA", "move", process.popen.pid, "hostB")
        self.assertEqual(outcome.status, DONE, f"{outcome}\n{self.testbed.logs()}")
        self.assertEqual(process.wait(), 0)
        self.assertEqual(bytes(process.output), b"done\n")

    def test_hosts(self):
        outcome = self.testbed.control("hostA", "hosts")
        self.assertEqual(outcome.status, DONE, outcome)
        self.assertTrue(outcome.object["hosts"])

    def test_text(self):
        process = self.start("threads", "ids")
        for words in (["check", process.pid], ["move", process.pid, "hostB"], ["ps"],
                      ["show", process.pid], ["hosts"]):
            outcome = self.testbed.run("hostA", "migratectl", *words)
            self.assertEqual(outcome.status, DONE, f"{words}: {outcome}")
            self.assertTrue(outcome.text.strip(), words)
        self.finish(process)

    def test_progress_on_a_terminal(self):
        process = self.start("memory", "anonymous")
        outcome = self.testbed.run("hostA", "script", "-qec",
                                   f"migratectl move {process.pid} hostB --wait done", "/dev/null")
        self.assertEqual(outcome.status, DONE, outcome)
        self.assertIn("moved", outcome.text)
        self.finish(process)


class Signals(ToolsCase):
    """What is sent to the deputy reaches the process."""

    def count_start(self):
        process = self.start("signals", "count")
        self.move(process, "hostB")
        return process

    def test_each_exactly_once(self):
        process = self.count_start()
        for number in range(1, 21):
            os.kill(process.pid, signal.SIGUSR1)
            self.assertTrue(process.wait_output(b"signal %d\n" % number), number)
        for _ in range(50):
            os.kill(process.pid, signal.SIGRTMIN + 1)
        self.assertTrue(process.wait_output(b"signal 70\n"))
        self.finish(process)
        self.assertIn(b"signals 70\n", process.output)

    def test_while_it_moves(self):
        process = self.start("signals", "count")
        sent = 0
        for where in ("hostB", "hostA", "hostB"):
            mover = self.testbed.start("hostA", "migratectl", "move", process.pid, where)
            while mover.popen.poll() is None:
                os.kill(process.pid, signal.SIGRTMIN + 1)
                sent += 1
                time.sleep(0.001)
            self.assertEqual(mover.wait(), DONE, bytes(mover.output))
        self.assertTrue(process.wait_output(b"signal %d\n" % sent), self.testbed.logs())
        self.finish(process)
        self.assertIn(b"signals %d\n" % sent, process.output)

    def test_stop_and_continue(self):
        process = self.start("streams", "ticks")
        self.move(process, "hostB", wait="done")
        os.kill(process.pid, signal.SIGSTOP)
        self.stands_still_until_continued(process)
        self.finish(process)

    def stands_still_until_continued(self, process):
        """A process that was sent a stop, and prints all the time."""
        time.sleep(0.4)
        length = len(process.output)
        time.sleep(0.3)
        self.assertEqual(len(process.output), length)
        os.kill(process.pid, signal.SIGCONT)
        self.assertTrue(wait_until(lambda: len(process.output) > length + 20))

    def test_terminal_stops_it(self):
        """^Z reaches a process that does not mind it, and who handles it is asked."""
        for handles in (False, True):
            with self.subTest(handles=handles):
                handler = '$SIG{TSTP} = sub { print "handled\\n" };' if handles else ""
                process = self.testbed.start(
                    "hostA", "perl", "-e", f'$| = 1; {handler} print "ready\\n"; '
                    'while (1) { print "."; select(undef, undef, undef, 0.01) }')
                self.addCleanup(process.kill)
                self.assertTrue(process.wait_ready())
                self.move(process, "hostB", wait="done")
                os.kill(process.pid, signal.SIGTSTP)
                if handles:
                    self.assertTrue(process.wait_output(b"handled"), self.testbed.logs())
                else:
                    self.stands_still_until_continued(process)

    def test_each_continue_is_handled_once(self):
        process = self.testbed.start(
            "hostA", "perl", "-e", '$| = 1; $SIG{CONT} = sub { print "continued\\n" }; '
            'print "ready\\n"; while (1) { print "."; select(undef, undef, undef, 0.01) }')
        self.addCleanup(process.kill)
        self.assertTrue(process.wait_ready())
        self.move(process, "hostB", wait="done")
        for _ in range(4):
            os.kill(process.pid, signal.SIGSTOP)
            time.sleep(0.2)
            os.kill(process.pid, signal.SIGCONT)
            time.sleep(0.2)
        time.sleep(0.5)
        self.assertEqual(bytes(process.output).count(b"continued"), 4, self.testbed.logs())

    def end_by(self, number, after=()):
        process = self.start("threads", "many")
        identity = self.move(process, "hostB")["process"]
        for where in after:
            self.move(process, where)
        os.kill(process.pid, number)
        self.assertEqual(process.wait(), -number)
        wait_until(lambda: not [record for record in self.records("hostB", process=identity)
                                if record.get("worker_alive")], 10)

    def test_ends_by_signal(self):
        for number in (signal.SIGTERM, signal.SIGKILL, signal.SIGINT, signal.SIGHUP, signal.SIGUSR2):
            with self.subTest(number):
                self.end_by(number)

    def test_ends_by_signal_back_home(self):
        self.end_by(signal.SIGTERM, ["hostA"])

    def test_own_signal_tells_the_parent(self):
        process = self.testbed.start("hostA", "perl", "-e",
                                     '$| = 1; print "ready\\n"; select(undef, undef, undef, 1);'
                                     "kill 'ABRT', $$; sleep 10;")
        self.assertTrue(process.wait_ready())
        self.move(process, "hostB")
        self.assertEqual(process.wait(), -signal.SIGABRT)


class SharedFiles(ToolsCase):
    """A shell and the program that it started write and read through the same open file."""

    host_count = 3

    WRITER = ("import os, time\n"
              "for i in range(30):\n"
              "    os.write(1, b'line %03d\\n' % i)\n"
              "    time.sleep(0.05)\n")
    READER = ("import os, time\n"
              "for i in range(20):\n"
              "    os.read(0, 1000)\n"
              "    time.sleep(0.05)\n")

    def shell(self, line, program):
        """Runs a line of shell in which PROGRAM notes its pid; both, once it has."""
        folder = self.testbed.new_path("folder")
        folder.mkdir()
        (folder / "program.py").write_text(program)
        (folder / "in").write_text("".join(f"{i}\n" for i in range(10_000)))
        line = line.replace("PROGRAM", "sh -c 'echo $$ > pid; exec /usr/bin/python3 program.py'")
        process = self.testbed.start("hostA", "sh", "-c", line, cwd=folder)
        self.addCleanup(process.kill)
        pid = wait_until(lambda: (folder / "pid").exists() and (folder / "pid").read_text().strip())
        time.sleep(0.5)
        return process, int(pid), folder

    def move_all(self, pid, hosts):
        for host in hosts:
            outcome = self.testbed.move("hostA", pid, host, wait="done")
            self.assertEqual(outcome.status, DONE, f"{outcome}\n{self.testbed.logs()}")

    def test_the_shell_writes_on_behind_it(self):
        expected = ["begin", *(f"line {i:03}" for i in range(30)), "end"]
        for hosts in (["hostB"], ["hostB", "hostA"], ["hostB", "hostC"]):
            process, pid, folder = self.shell("(echo begin; PROGRAM; echo end) > log", self.WRITER)
            self.move_all(pid, hosts)
            self.assertEqual(process.wait(), 0, self.testbed.logs())
            self.assertEqual((folder / "log").read_text().splitlines(), expected, hosts)

    def test_the_shell_reads_on_behind_it(self):
        process, pid, folder = self.shell("(PROGRAM; wc -c > rest) < in", self.READER)
        self.move_all(pid, ["hostB"])
        self.assertEqual(process.wait(), 0, self.testbed.logs())
        size = (folder / "in").stat().st_size
        self.assertEqual(int((folder / "rest").read_text()), size - 20 * 1000)

    def test_its_worker_there_is_killed(self):
        process, pid, folder = self.shell("(echo begin; PROGRAM; echo end) > log", self.WRITER)
        self.move_all(pid, ["hostB"])
        (record,) = [record for record in self.records("hostB") if record["worker_alive"]]
        os.kill(record["worker"], signal.SIGKILL)
        self.assertEqual(process.wait(), 0, self.testbed.logs())
        self.assertEqual((folder / "log").read_text().splitlines(),
                         ["begin", *(f"line {i:03}" for i in range(30)), "end"])

    def test_siblings_are_refused(self):
        process, pid, folder = self.shell("exec > log; sleep 3 & PROGRAM; wait", self.WRITER)
        outcome = self.testbed.control("hostA", "move", pid, "hostB")
        self.assertEqual(outcome.status, REFUSED, outcome)
        self.assertEqual(outcome.codes(), ["SHARED_FILE"], outcome)
        self.assertIn("sleep", outcome.text)
        self.assertEqual(process.wait(), 0)
        self.assertEqual(len((folder / "log").read_text().splitlines()), 30)

    def test_appending_is_no_sharing(self):
        process, pid, folder = self.shell("exec >> log; sleep 3 & PROGRAM; wait", self.WRITER)
        self.move_all(pid, ["hostB"])
        self.assertEqual(process.wait(), 0)
        self.assertEqual(len((folder / "log").read_text().splitlines()), 30)


class Users(ToolsCase):
    """Root may move anything, a user only their own processes."""

    def as_nobody(self, *words):
        return self.testbed.run("hostA", *NOBODY, "migratectl", "--json", *words, cwd="/")

    def setUp(self):
        seen = self.testbed.run("hostA", *NOBODY, "migratectl", "--help", cwd="/")
        if seen.status != DONE:
            self.skipTest("the build tree is not readable for others")

    def test_not_of_others(self):
        process = self.start("threads", "ids")
        for words in (["move", process.pid, "hostB"], ["check", process.pid]):
            outcome = self.as_nobody(*words)
            self.assertEqual(outcome.status, REFUSED, outcome)
            self.assertIn("another user", outcome.object["error"]["message"])
        self.finish(process)

    def test_own(self):
        stop = self.testbed.new_path()
        process = self.testbed.start("hostA", *NOBODY, harness.PROGRAMS / "threads", "ids", stop,
                                     "100")
        process.stop_file = stop
        self.assertTrue(process.wait_ready())
        outcome = self.as_nobody("move", process.pid, "hostB")
        self.assertEqual(outcome.status, DONE, f"{outcome}\n{self.testbed.logs()}")
        self.finish(process)


class Lost(ToolsCase):
    """A process that did not end by itself: whoever asks is told why."""

    def text(self, *words, status=DONE):
        outcome = self.testbed.run("hostA", "migratectl", *words)
        self.assertEqual(outcome.status, status, f"{words}: {outcome}\n{self.testbed.logs()}")
        return outcome.text + outcome.errors

    def shown(self, host, identity):
        return self.testbed.control(host, "show", identity).object

    def check_told(self, identity, reason):
        text = self.text("show", identity)
        self.assertRegex(text, rf"(?m)^lost .*{reason}")
        for wrong in ("independent in", "owed nothing after", "owed_pages", "waits_for", "  state"):
            self.assertNotIn(wrong, text)
        for condition in ("done", "exit"):
            said = self.text("wait", identity, "--for", condition, status=harness.LOST)
            self.assertRegex(said, f"the process was lost: .*{reason}")
        waited = self.testbed.control("hostA", "wait", identity)
        self.assertRegex(waited.object["error"]["message"], reason)

    def test_the_init_of_its_cell_is_killed(self):
        process = self.testbed.start_keeper("hostA")
        identity = self.move(process, "hostB", mode="demand")["process"]
        (record,) = self.records("hostB", process=identity)
        status = pathlib.Path(f"/proc/{record['pid']}/stat").read_text()
        os.kill(int(status.rpartition(")")[2].split()[1]), signal.SIGKILL)
        self.assertEqual(process.wait(), -signal.SIGKILL, self.testbed.logs())
        wait_until(lambda: "lost" in self.shown("hostA", identity))
        self.check_told(identity, "cell of process .* was killed")
        self.assertIn("was killed", self.shown("hostB", identity)["lost"])

    def test_an_operator_gives_it_up(self):
        process = self.testbed.start_keeper("hostA")
        identity = self.move(process, "hostB", mode="demand")["process"]
        self.addCleanup(self.testbed.set_link, "hostB", "up")
        self.testbed.set_link("hostB", "down")
        self.assertTrue(wait_until(lambda: self.shown("hostA", identity).get("waits_for")))

        def given_up():  # Refused until the relay, too, has noticed that nobody answers.
            return self.testbed.control("hostA", "resolve", identity, "--give-up",
                                        "--yes").status == DONE
        self.assertTrue(wait_until(given_up), self.testbed.logs())
        self.assertEqual(process.wait(), -signal.SIGKILL, self.testbed.logs())
        wait_until(lambda: "lost" in self.shown("hostA", identity))
        self.check_told(identity, "an operator gave it up")


class Restarts(ToolsCase):
    """The registry and the moved processes survive their daemons."""

    def test_registry_survives(self):
        process = self.start("memory", "anonymous")
        identity = self.move(process, "hostB", wait="done")["process"]
        for host in ("hostA", "hostB"):
            self.testbed.command("restart", host, check=True)
            self.assertTrue(self.records(host, process=identity), host)
        self.move(process, "hostA", wait="done")
        self.move(process, "hostB")
        self.finish(process)

    def test_daemons_killed_meanwhile(self):
        """Workers look after a process; the daemon's death does not touch it."""
        process = self.start("memory", "anonymous")
        self.move(process, "hostB", mode="demand")
        for host in ("hostA", "hostB"):
            self.testbed.command("kill-daemon", host, "--signal", "KILL", check=True)
        time.sleep(0.5)
        self.assertIsNone(process.popen.poll(), bytes(process.output))
        for host in ("hostA", "hostB"):
            self.testbed.command("restart", host, check=True)
        self.move(process, "hostA")
        self.finish(process)

    def test_daemon_gone_at_the_destination(self):
        process = self.start("threads", "ids")
        self.testbed.command("kill-daemon", "hostB", check=True)
        self.addCleanup(self.testbed.command, "restart", "hostB")
        outcome = self.testbed.control("hostA", "move", process.pid, "hostB")
        self.assertNotIn(outcome.status, (DONE, harness.LOST), outcome)
        self.finish(process)


class Deputy(ToolsCase):
    """What stays at home."""

    def test_gives_its_memory_back(self):
        process = self.start("memory", "sequential")  # 128 MiB

        def resident_mib():
            text = pathlib.Path(f"/proc/{process.pid}/status").read_text()
            return int(text.split("VmRSS:")[1].split()[0]) // 1024
        self.assertGreater(resident_mib(), 100)
        self.move(process, "hostB", wait="done")
        self.assertTrue(wait_until(lambda: resident_mib() < 10), resident_mib())
        self.assertEqual(len(os.listdir(f"/proc/{process.pid}/task")), 1)
        self.finish(process)

    def test_standard_input_ends(self):
        process = self.start("streams", "echo", stdin=-1)
        self.move(process, "hostB")
        process.stdin.write(b"some words\n")
        process.stdin.close()
        self.assertEqual(process.wait(), harness.SURVIVED)
        self.assertEqual(bytes(process.output), b"ready\nsome words\nok\n")


if __name__ == "__main__":
    harness.main()
