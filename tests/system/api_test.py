#!/usr/bin/python3
"""Programs that link the library: they move themselves, come to points, hold, and hear why not."""

import os
import pathlib
import signal
import unittest

import harness
from harness import DONE, REFUSED, PROGRAMS, Testbed, wait_until


NOBODY = ["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups"]

# Asks as the library does, but for what it has not written into its memory.
IMPOSTOR = """
import json, socket, sys
connection = socket.socket(socket.AF_UNIX)
connection.connect("/run/migrate/migrated.sock")
request = {"command": "move", "destination": "hostB", "token": 1 << 40, **json.loads(sys.argv[1])}
connection.sendall(json.dumps(request).encode() + b"\\n")
print(connection.makefile().read())
"""

# Its child connects and begins to ask, and has ended before the whole question is there.
INHERITED = """
import array, fcntl, os, socket, sys
connection = socket.socket(socket.AF_UNIX)
child = os.fork()
if child == 0:
    connection.connect("/run/migrate/migrated.sock")
    connection.sendall(b"{")
    unread = array.array("i", [1])
    while unread[0]:
        fcntl.ioctl(connection, 0x5411, unread)  # SIOCOUTQ: until the daemon knows who asks.
    os._exit(0)
os.waitpid(child, 0)
connection.sendall(b'"command":"' + sys.argv[1].encode() + b'"}\\n')
print(connection.makefile().read())
"""


def lines(process, key):
    """What the program printed in lines that begin with `key`, as lists of words."""
    text = process.output.decode(errors="replace")
    return [line.split()[1:] for line in text.splitlines() if line.split()[:1] == [key]]


class ApiCase(unittest.TestCase):
    """All tests of a class share a testbed."""

    testbed = None
    options = ()

    @classmethod
    def setUpClass(cls):
        cls.testbed = Testbed(3, cls.options)
        cls.addClassCleanup(cls.testbed.down)
        cls.sums = {}

    def start(self, *words):
        process = self.testbed.start("hostA", PROGRAMS / "traveller", *words)
        self.addCleanup(process.kill)
        process.limit(60)
        return process

    def end(self, process, steps):
        """Waits for the end, and compares the numbers with those of a run that stayed."""
        self.assertEqual(process.wait(), harness.SURVIVED, self.told(process))
        self.assertEqual(lines(process, "sum"), [[self.sum_of(steps)]], self.told(process))

    def sum_of(self, steps):
        if steps not in self.sums:
            unmoved = self.start("points", steps)
            self.assertEqual(unmoved.wait(), harness.SURVIVED)
            self.sums[steps] = lines(unmoved, "sum")[0][0]
        return self.sums[steps]

    def told(self, process):
        return bytes(process.output[-2000:]).decode(errors="replace") + self.testbed.logs()

    def hosts_of(self, process):
        return [place[0] for place in lines(process, "place")]

    def check_places(self, process, hosts):
        """It was at these hosts, one after the other, as one process."""
        places = lines(process, "place")
        self.assertEqual([place[0] for place in places], hosts, self.told(process))
        self.assertEqual([int(place[2]) for place in places], list(range(len(hosts))))
        self.assertEqual({place[1] for place in places}, {"tcp://10.213.0.1:7070"})
        self.assertEqual(len({place[3] for place in places}), 1)
        self.assertTrue(places[0][3].startswith("hostA/"))

    def move_to_point(self, process, host, *options, from_host="hostA"):
        return self.testbed.control(from_host, "move", process.pid, host, "--at-point", *options)


class Asking(ApiCase):
    """migrate_self, migrate_check_self, migrate_here."""

    def test_it_moves_itself_around_the_hosts(self):
        process = self.start("self", "hostB", "hostC", "hostA", "hostB")
        self.end(process, 4)
        self.check_places(process, ["hostA", "hostB", "hostC", "hostA", "hostB"])
        self.assertEqual(lines(process, "status"), [["0"]] * 4)
        self.assertEqual(lines(process, "check"), [["0"]] * 4)  # At home, and as a guest.

    def test_to_where_it_is(self):
        process = self.start("self", "hostA", "hostB", "hostB")
        self.end(process, 3)
        self.assertEqual(self.hosts_of(process), ["hostA", "hostA", "hostB", "hostB"])
        self.assertEqual(lines(process, "status"), [["0"]] * 3)

    def test_other_threads_run_on(self):
        process = self.start("threads", "hostB", "hostC", "hostA")
        self.end(process, 3)
        self.check_places(process, ["hostA", "hostB", "hostC", "hostA"])

    def test_refusals_come_back_as_results(self):
        process = self.start("refused", "hostB")
        self.end(process, 0)
        self.assertEqual(lines(process, "status"), [["3"], ["3"], ["0"], ["0"]])
        self.assertEqual([words[0] for words in lines(process, "refusal")], ["SOCKET_KIND", "SOCKET_KIND"])
        self.assertEqual(self.hosts_of(process), ["hostB"])

    def test_no_such_host(self):
        process = self.start("self", "10.213.0.77", "hostB")
        self.end(process, 2)
        self.assertIn(lines(process, "status")[0], (["1"], ["2"], ["4"]))
        self.assertEqual(self.hosts_of(process), ["hostA", "hostA", "hostB"])

    def test_a_limit_ends_the_asking(self):
        process = self.start("limit", "10.213.0.77", "1")
        self.end(process, 1)
        # The daemon may find sooner that there is no such host.
        self.assertIn(lines(process, "status"), ([["6"]], [["4"]]))

    def test_who_asks_must_have_said_so_in_its_memory(self):
        other = self.start("points", 50)
        self.assertTrue(other.wait_ready())
        for what in ({"pid": 0}, {"pid": other.pid}, {"process": "ab12"}):
            outcome = self.testbed.run("hostA", "/usr/bin/python3", "-c", IMPOSTOR,
                                       harness.json.dumps(what))
            answers = [harness.json.loads(line) for line in outcome.text.split("\n") if line]
            self.assertEqual([answer["event"] for answer in answers], ["result"], outcome)
            self.assertIn(answers[0]["exit"], (harness.OTHER, harness.USAGE), outcome)
        self.end(other, 50)

    def test_the_pid_of_who_has_ended_is_not_his(self):
        """It may be another's by then, of whom nothing is told."""
        for command, status in (("ping", DONE), ("here", harness.OTHER)):
            outcome = self.testbed.run("hostA", "/usr/bin/python3", "-c", INHERITED, command)
            answer = harness.json.loads(outcome.text)
            self.assertEqual(answer["exit"], status, outcome)
            self.assertNotIn("identity", answer)

    def test_without_a_daemon(self):
        process = self.testbed.start("hostA", "env", "MIGRATE_SOCKET=/no/such/socket",
                                     PROGRAMS / "traveller", "self", "hostB")
        self.addCleanup(process.kill)
        self.end(process, 1)
        self.assertEqual(lines(process, "status"), [["1"]])
        self.assertIn("/no/such/socket", process.output.decode())

    def test_moved_from_outside(self):
        process = self.start("points", 150)
        self.assertTrue(process.wait_ready())
        for host in ("hostB", "hostC", "hostA"):
            outcome = self.testbed.move("hostA", process.pid, host)
            self.assertEqual(outcome.status, DONE, outcome)
        self.end(process, 150)

    def test_the_list_has_its_identity(self):
        process = self.start("points", 150)
        self.assertTrue(process.wait_ready())
        identities = set()
        for host in ("hostB", "hostC"):
            outcome = self.testbed.move("hostA", process.pid, host)
            self.assertEqual(outcome.status, DONE, outcome)
            identities.add(self.testbed.control("hostA", "show", process.pid).object["identity"])
            row = next(row for row in self.testbed.control(host, "ps").object["processes"]
                       if row["process"] == outcome.object["process"])
            identities.add(row["identity"])
        self.assertEqual(len(identities), 1, identities)
        self.end(process, 150)


class Points(ApiCase):
    """migrate_point, at an operator's request."""

    def test_it_is_moved_at_its_points(self):
        process = self.start("points", 300)
        self.assertTrue(process.wait_ready())
        for number, host in enumerate(("hostB", "hostC", "hostA"), 1):
            outcome = self.move_to_point(process, host)
            self.assertEqual(outcome.status, DONE, f"{outcome}{self.told(process)}")
            self.assertTrue(wait_until(lambda: len(lines(process, "place")) == number),
                            self.told(process))
        self.end(process, 300)
        self.assertEqual(self.hosts_of(process), ["hostB", "hostC", "hostA"])
        self.assertEqual(len(lines(process, "moved")), 3)

    def test_what_is_refused_there_runs_on(self):
        process = self.start("points", 100)
        self.assertTrue(process.wait_ready())
        outcome = self.move_to_point(process, "10.213.0.77")
        self.assertNotEqual(outcome.status, DONE, outcome)
        self.end(process, 100)
        self.assertEqual(lines(process, "moved"), [])

    def test_a_point_that_does_not_come(self):
        stop = self.testbed.new_path()
        process = self.start("hold", stop)
        self.assertTrue(process.wait_ready())
        outcome = self.move_to_point(process, "hostB", "--point-wait", "0.2")
        self.assertEqual((outcome.status, outcome.codes()), (REFUSED, ["POINT_NOT_REACHED"]))
        stop.touch()
        self.testbed.work.joinpath(stop.name + ".end").touch()
        self.end(process, 1)

    def test_the_same_where_it_is_a_guest(self):
        stop = self.testbed.new_path()
        process = self.start("hold", stop)
        self.assertTrue(process.wait_ready())
        stop.touch()
        self.assertTrue(process.wait_output(b"release"))
        self.assertEqual(self.testbed.move("hostA", process.pid, "hostB").status, DONE)
        outcome = self.move_to_point(process, "hostC", "--point-wait", "0.2")
        self.assertEqual((outcome.status, outcome.codes()), (REFUSED, ["POINT_NOT_REACHED"]))
        # Who waits for a point is in nobody's way.
        waits = self.testbed.start("hostA", "migratectl", "move", process.pid, "hostC",
                                   "--at-point")
        self.addCleanup(waits.kill)
        self.assertEqual(self.testbed.move("hostA", process.pid, "hostA").status, DONE)
        self.testbed.work.joinpath(stop.name + ".end").touch()
        self.end(process, 1)

    def test_a_program_without_points(self):
        process = self.testbed.start_program("hostA", "threads", "ids")
        self.addCleanup(process.kill)
        for _ in range(2):  # At home, and as a guest.
            outcome = self.move_to_point(process, "hostC")
            self.assertEqual((outcome.status, outcome.codes()), (REFUSED, ["NO_POINT"]))
            self.assertEqual(self.testbed.move("hostA", process.pid, "hostB").status, DONE)
        self.assertEqual(harness.finish(process), "")

    def test_others_may_not_ask_for_it(self):
        process = self.start("points", 150)
        self.assertTrue(process.wait_ready())
        outcome = self.testbed.run("hostA", *NOBODY, "migratectl", "--json", "move", process.pid,
                                   "hostB", "--at-point")
        self.assertEqual(outcome.status, REFUSED, outcome)
        self.assertEqual(self.testbed.move("hostA", process.pid, "hostB").status, DONE)
        outcome = self.testbed.run("hostB", *NOBODY, "migratectl", "--json", "move", process.pid,
                                   "hostC", "--at-point")
        self.assertNotEqual(outcome.status, DONE, outcome)
        self.end(process, 150)
        self.assertEqual(lines(process, "moved"), [])

    def test_who_asked_may_go_away(self):
        stop = self.testbed.new_path()
        process = self.start("hold", stop)
        self.assertTrue(process.wait_ready())
        asks = self.testbed.start("hostA", "migratectl", "move", process.pid, "hostB", "--at-point")
        self.addCleanup(asks.kill)
        self.assertTrue(wait_until(lambda: f"moves process {process.pid} " in self.testbed.logs()))
        asks.popen.send_signal(signal.SIGINT)
        self.assertEqual(asks.wait(), harness.FAILED, asks.output)
        stop.touch()
        self.testbed.work.joinpath(stop.name + ".end").touch()
        self.end(process, 1)


class Places(ApiCase):
    """Who waits for a point has one of the places that a user's connections have."""

    options = ("--daemon-arg=--max-connections=8",)

    def test_a_user_has_no_more_than_his_own(self):
        programs, waiting = [], []
        for _ in range(3):
            stop = self.testbed.new_path()
            programs.append((stop, self.testbed.start("hostA", *NOBODY, PROGRAMS / "traveller",
                                                      "hold", stop)))
            self.addCleanup(programs[-1][1].kill)
            self.assertTrue(programs[-1][1].wait_ready())
        for _, process in programs[:2]:  # A quarter of the places.
            waiting.append(self.testbed.start("hostA", *NOBODY, "migratectl", "move", process.pid,
                                              "hostB", "--at-point"))
            self.addCleanup(waiting[-1].kill)
            self.assertTrue(
                wait_until(lambda: f"moves process {process.pid} " in self.testbed.logs()))
        refused = self.testbed.run("hostA", *NOBODY, "migratectl", "move", programs[2][1].pid,
                                   "hostB", "--at-point")
        self.assertEqual(refused.status, harness.OTHER, refused)
        self.assertIn("--at-point", refused.errors)
        self.assertEqual(self.testbed.control("hostA", "ping").status, DONE)
        # A place is free again when nobody waits any more, and when the process has come there.
        waiting[0].popen.send_signal(signal.SIGINT)
        self.assertEqual(waiting[0].wait(), harness.FAILED, waiting[0].output)
        self.assertTrue(wait_until(lambda: self.testbed.run(
            "hostA", *NOBODY, "migratectl", "ping").status == DONE))


class Holding(ApiCase):
    """migrate_hold and migrate_release."""

    def test_a_move_waits_and_is_refused_in_the_end(self):
        stop = self.testbed.new_path()
        process = self.start("hold", stop)
        self.assertTrue(process.wait_ready())
        outcome = self.testbed.control("hostA", "move", process.pid, "hostB")
        self.assertEqual((outcome.status, outcome.codes()), (REFUSED, ["HELD"]), outcome)
        self.assertIn("remedy", outcome.object["refusals"][0])
        self.assertEqual(self.testbed.control("hostA", "check", process.pid).codes(), ["HELD"])
        said = self.testbed.run("hostA", "migratectl", "move", process.pid, "hostB", "--retry", "1").text
        self.assertEqual(said.count("inspect "), 1, said)
        waits = self.testbed.start("hostA", "migratectl", "move", process.pid, "hostB",
                                   "--retry", "30")
        self.addCleanup(waits.kill)
        stop.touch()
        self.assertEqual(waits.wait(), DONE, self.told(process))
        self.testbed.work.joinpath(stop.name + ".end").touch()
        self.end(process, 1)
        self.assertEqual(lines(process, "hold"), [["0", "0"]])
        self.assertEqual(lines(process, "release"), [["0", "0", "2"]])

    def test_no_move_comes_upon_a_section(self):
        process = self.start("sections", "5")
        self.assertTrue(process.wait_ready())
        moved = 0
        for host in ("hostB", "hostC", "hostA", "hostB"):
            outcome = self.testbed.control("hostA", "move", process.pid, host, "--retry", "20")
            if outcome.status not in (DONE, REFUSED):  # It may have ended.
                break
            moved += outcome.status == DONE
        self.end(process, 0)
        self.assertEqual(lines(process, "broken"), [["0"]])
        self.assertGreater(moved, 0, self.told(process))

    def test_a_child_holds_nothing(self):
        process = self.start("fork", "hostB")
        self.end(process, 0)
        self.assertEqual(self.hosts_of(process), ["hostB"])
        self.assertEqual(lines(process, "child"), [["7"]])
        self.assertEqual(lines(process, "release"), [["0", "2"]])


class Hooks(ApiCase):
    """What a program does before and after a move."""

    def start_hooks(self, how, *host):
        stop = self.testbed.new_path()
        process = self.start("hooks", how, stop, *host)
        self.addCleanup(stop.with_name(stop.name + ".go").touch)
        self.assertTrue(process.wait_output(b"ready"), self.told(process))
        return process, stop

    def end_hooks(self, process, stop):
        stop.touch()
        self.end(process, 0)
        self.assertEqual(lines(process, "open"), [["1"]])

    def test_without_hooks_both_are_refused(self):
        process, stop = self.start_hooks("none")
        outcome = self.testbed.control("hostA", "move", process.pid, "hostB")
        self.assertEqual(outcome.status, REFUSED, outcome)
        self.assertEqual(sorted(outcome.codes()), ["DEVICE", "SOCKET_KIND"])
        self.end_hooks(process, stop)

    def test_what_they_close_is_opened_there(self):
        process, stop = self.start_hooks("close")
        checked = self.testbed.control("hostA", "check", process.pid)
        self.assertEqual((checked.status, checked.object.get("hooks")), (REFUSED, True), checked)
        for number, host in enumerate(("hostB", "hostC", "hostA"), 1):
            options = ["--at-point"] if host == "hostC" else []
            outcome = self.testbed.control("hostA", "move", process.pid, host, *options)
            self.assertEqual(outcome.status, DONE, f"{outcome}{self.told(process)}")
            self.assertTrue(wait_until(lambda: len(lines(process, "after")) == number),
                            self.told(process))
        self.end_hooks(process, stop)
        self.assertEqual(lines(process, "add"), [["0", "0", "2"]])
        self.assertEqual(lines(process, "after"), [["hostB", "1"], ["hostC", "1"], ["hostA", "1"]])
        self.assertEqual(lines(process, "before"), [["keep"], ["close"]] * 3)
        self.assertEqual(lines(process, "failed"), [])

    def test_around_a_move_that_it_asks_for(self):
        process, stop = self.start_hooks("close", "hostB")
        self.assertTrue(process.wait_output(b"status"))
        self.end_hooks(process, stop)
        self.assertEqual(lines(process, "status"), [["0"]])
        self.assertEqual(lines(process, "after"), [["hostB", "1"]])

    def test_what_comes_to_nothing_is_opened_here(self):
        process, stop = self.start_hooks("close", "10.213.0.77")
        self.assertTrue(process.wait_output(b"status"))
        outcome = self.testbed.control("hostA", "move", process.pid, "10.213.0.77")
        self.assertNotEqual(outcome.status, DONE, outcome)
        self.assertTrue(wait_until(lambda: len(lines(process, "failed")) == 2), self.told(process))
        self.end_hooks(process, stop)
        self.assertEqual(lines(process, "after"), [])

    def test_what_they_do_not_close_is_refused(self):
        process, stop = self.start_hooks("keep")
        outcome = self.testbed.control("hostA", "move", process.pid, "hostB")
        self.assertEqual((outcome.status, sorted(outcome.codes())), (REFUSED, ["DEVICE", "SOCKET_KIND"]))
        self.end_hooks(process, stop)

    def test_a_veto_is_told(self):
        process, stop = self.start_hooks("veto")
        outcome = self.testbed.control("hostA", "move", process.pid, "hostB")
        self.assertEqual((outcome.status, outcome.codes()), (REFUSED, ["HOOK_VETO"]), outcome)
        self.assertIn("a phase that must not be cut", outcome.object["refusals"][0]["reason"])
        self.end_hooks(process, stop)
        self.assertEqual(lines(process, "before"), [["veto"]])  # The other one was not called.
        self.assertEqual(lines(process, "failed") + lines(process, "after"), [])

    def test_a_veto_against_itself(self):
        process, stop = self.start_hooks("veto", "hostB")
        self.assertTrue(process.wait_output(b"status"))
        self.end_hooks(process, stop)
        self.assertEqual(lines(process, "status"), [["3"]])
        self.assertEqual([words[0] for words in lines(process, "refusal")], ["HOOK_VETO"])

    def test_one_that_hangs_meets_the_deadline(self):
        process, stop = self.start_hooks("hang")
        outcome = self.testbed.control("hostA", "move", process.pid, "hostB", "--point-wait", "0.5")
        self.assertEqual((outcome.status, outcome.codes()), (REFUSED, ["HOOK_NOT_DONE"]), outcome)
        self.assertEqual(self.testbed.control("hostA", "ps").object["processes"], [])
        stop.with_name(stop.name + ".go").touch()
        self.assertTrue(process.wait_output(b"waits for it no more"), self.told(process))
        outcome = self.testbed.control("hostA", "move", process.pid, "hostB")
        self.assertEqual(outcome.status, DONE, f"{outcome}{self.told(process)}")
        outcome = self.testbed.control("hostA", "move", process.pid, "hostC")  # As a guest.
        self.assertEqual(outcome.status, DONE, f"{outcome}{self.told(process)}")
        self.end_hooks(process, stop)
        self.assertEqual([words[0] for words in lines(process, "after")], ["hostB", "hostC"])

    def test_the_same_as_a_guest(self):
        process, stop = self.start_hooks("veto")
        self.assertEqual(self.testbed.control("hostA", "check", process.pid).object["hooks"], True)
        stop.touch()
        self.end(process, 0)
        process, stop = self.start_hooks("close")
        self.assertEqual(self.testbed.move("hostA", process.pid, "hostB").status, DONE)
        os.kill(process.pid, 0)
        outcome = self.testbed.control("hostB", "check",
                                       self.testbed.control("hostA", "show", process.pid)
                                       .object["process"])
        self.assertEqual(outcome.object.get("hooks"), True, outcome)
        self.end_hooks(process, stop)

    def test_while_other_threads_fork_and_end(self):
        process, stop = self.start_hooks("fork")
        for host in ("hostB", "hostC", "hostA"):
            outcome = self.testbed.control("hostA", "move", process.pid, host, "--retry", "20")
            self.assertEqual(outcome.status, DONE, f"{outcome}{self.told(process)}")
        self.end_hooks(process, stop)
        self.assertEqual([words[0] for words in lines(process, "after")],
                         ["hostB", "hostC", "hostA"])
        self.assertEqual(lines(process, "child"), [])


class Examples(ApiCase):
    """The programs of examples/, moved in each way, give the numbers of a run that stayed."""

    def run_example(self, name, *words):
        path = harness.BUILD / "examples" / name
        if not path.exists():
            self.skipTest(f"{name} is not built: no compiler for it")
        process = self.testbed.start("hostA", path, *words)
        self.addCleanup(process.kill)
        process.limit(300)
        return process

    def sum_at_the_end(self, process):
        self.assertEqual(process.wait(200), 0, self.told(process))
        return process.output.decode().splitlines()[-1]

    def hosts_seen(self, process):
        words = [line.split() for line in process.output.decode().splitlines()]
        return [line[line.index("at") + 1] for line in words if "at" in line]

    def check_travels(self, name, *words):
        unmoved = self.run_example(name, *words)
        moved = self.run_example(name, *words, "hostB", "hostC", "hostA")
        self.assertEqual(self.sum_at_the_end(moved), self.sum_at_the_end(unmoved))
        self.assertEqual(self.hosts_seen(moved), ["hostA", "hostB", "hostC", "hostA"],
                         self.told(moved))

    def test_the_stencil_moves_itself(self):
        self.check_travels("stencil", 200, 200)

    def check_is_moved(self, *words):
        """At its points and from outside."""
        expected = self.sum_at_the_end(self.run_example(*words))
        moved = self.run_example(*words)
        self.assertTrue(moved.wait_output(b"at hostA"))
        for host, options in (("hostB", ["--at-point"]), ("hostC", []), ("hostA", ["--at-point"])):
            outcome = self.testbed.move("hostA", moved.pid, host, options=options)
            self.assertEqual(outcome.status, DONE, f"{outcome}{self.told(moved)}")
        self.assertEqual(self.sum_at_the_end(moved), expected)

    def check_computes(self, name, *words):
        """Those of which each host is one more share of the work."""
        alone = self.run_example(name, *words, "hostA", "hostA", "hostA")
        moved = self.run_example(name, *words, "hostB", "hostC", "hostA")
        self.assertEqual(self.sum_at_the_end(moved), self.sum_at_the_end(alone))
        self.assertEqual(self.hosts_seen(moved), ["hostA", "hostB", "hostC", "hostA"],
                         self.told(moved))

    def test_the_stencil_is_moved(self):
        self.check_is_moved("stencil", 400, 9000)

    def test_the_darts(self):
        self.check_computes("monte_carlo", 200000)

    def test_the_darts_are_moved(self):
        self.check_is_moved("monte_carlo", 100_000_000)

    def test_the_arena(self):
        self.check_computes("arena", 20)

    def test_the_arena_is_moved(self):
        self.check_is_moved("arena", 2000)

    def test_the_kernel(self):
        alone = self.run_example("kernel", 100, 20, "hostA", "hostA", "hostA")
        moved = self.run_example("kernel", 100, 20, "hostB", "hostC", "hostA")
        self.assertEqual(self.sum_at_the_end(moved), self.sum_at_the_end(alone))
        self.assertIn("hostC", self.hosts_seen(moved), self.told(moved))

    def test_the_kernel_is_told_why_it_stays(self):
        stays = self.run_example("kernel", 100, 20, "nowhere")
        self.sum_at_the_end(stays)
        self.assertRegex(bytes(stays.output), rb"stays: .*nowhere", self.told(stays))

    def test_the_kernel_is_moved(self):
        self.check_is_moved("kernel", 300, 40000)


class Deaths(ApiCase):
    """The daemon or the worker dies while the process waits for what it asked."""

    options = ("--daemon-arg=--debug-stops", "--supervise")

    def stop_at(self, host, step):
        directory = next(each["directory"] for each in self.testbed.hosts() if each["name"] == host)
        stops = pathlib.Path(directory) / "state" / "stops"
        (stops / step).touch()
        return stops

    def stopped(self, stops, step):
        """The worker that stands at the step."""
        found = wait_until(lambda: list(stops.glob(step + ".*")))
        self.assertTrue(found, self.testbed.logs())
        pid = int(found[0].suffix[1:])
        self.assertTrue(wait_until(lambda: harness.state_of(pid) == "T"))
        found[0].unlink()  # The next test stops there, too.
        return pid

    def check_death(self, step, victim, host="hostA"):
        stops = self.stop_at(host, step)
        hosts = ["hostB", "hostC"] if victim == "worker" else ["hostB"]  # C needs the home's daemon.
        process = self.start("self", *hosts)
        worker = self.stopped(stops, step)
        if victim == "daemon":
            self.testbed.command("kill-daemon", "hostA", check=True)
            os.kill(worker, signal.SIGCONT)
            self.testbed.command("restart", "hostA", check=True)
        else:
            os.kill(worker, signal.SIGKILL)
        self.end(process, len(hosts))
        self.check_places(process, ["hostA", *hosts])

    def test_the_worker_before_the_freeze(self):
        self.check_death("source.offered", "worker")

    def test_the_worker_while_it_is_frozen(self):
        self.check_death("source.captured", "worker")

    def test_the_worker_when_it_had_parked(self):
        self.check_death("source.parked", "worker")

    def test_the_worker_when_it_runs_there(self):
        self.check_death("source.running", "worker")

    def test_the_worker_of_a_guest(self):
        self.check_death("source.captured", "worker", "hostB")

    def test_the_daemon(self):
        self.check_death("source.offered", "daemon")


if __name__ == "__main__":
    harness.main()
