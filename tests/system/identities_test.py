#!/usr/bin/python3
"""Processes by their global names, from every host: kill, wait, show, watch, names and links, over
moves, restarts of every daemon, and pids that others have by now."""

import json
import os
import pathlib
import signal
import subprocess
import time
import unittest

import harness
from harness import DONE, OTHER, REFUSED, USAGE, Testbed, wait_until

NOBODY = ["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups"]
GAMES = ["setpriv", "--reuid=5", "--regid=60", "--clear-groups"]
SLEEPER = ["/usr/bin/python3", "-c", "print('ready', flush=True)\nimport time\ntime.sleep(600)"]
HOSTS = ("hostA", "hostB", "hostC")
ADDRESSES = {"hostA": "10.213.0.1", "hostB": "10.213.0.2", "hostC": "10.213.0.3"}
PEERS = tuple(f"--daemon-arg=--peers={host}" for host in HOSTS)


class Case(unittest.TestCase):
    options = PEERS

    @classmethod
    def setUpClass(cls):
        cls.testbed = Testbed(3, cls.options)
        cls.addClassCleanup(cls.testbed.down)

    def start(self, host="hostA", prefix=()):
        process = self.testbed.start(host, *prefix, *SLEEPER, cwd="/")
        self.addCleanup(process.kill)
        self.assertTrue(process.wait_output(b"ready"))
        process.identity = self.answer(host, "identity", process.pid)["identity"]
        return process

    def control(self, host, *words, as_user=(), **options):
        return self.testbed.run(host, *as_user, "migratectl", "--json", *words, **options)

    def answer(self, host, *words, **options):
        outcome = self.control(host, *words, **options)
        self.assertEqual(outcome.status, DONE, f"{words}: {outcome}\n{self.testbed.logs()}")
        return outcome.object

    def not_done(self, status, host, *words, **options):
        outcome = self.control(host, *words, **options)
        self.assertEqual(outcome.status, status, f"{words}: {outcome}")
        return outcome.object["error"]["message"]

    def move(self, process, destination):
        outcome = self.testbed.move("hostA", process.pid, destination)
        self.assertEqual(outcome.status, DONE, f"{outcome}\n{self.testbed.logs()}")

    def watch(self, host, identity):
        """Its events as they come."""
        watcher = self.testbed.start(host, "migratectl", "--json", "watch", identity, cwd="/")
        self.addCleanup(watcher.kill)
        return watcher

    def events(self, watcher):
        return [json.loads(line) for line in bytes(watcher.output).splitlines() if line.endswith(b"}")]

    def saw(self, watcher, where):
        self.assertTrue(wait_until(lambda: any(self.is_at(where, event) for event in
                                               self.events(watcher))),
                        f"{where}: {self.events(watcher)}\n{self.testbed.logs()}")

    def is_at(self, host, told):
        return any(name in told.get("where", "") for name in (host, ADDRESSES[host]))

    def restart_all(self):
        for host in HOSTS:
            self.testbed.command("restart", host, check=True)


class Identities(Case):
    def test_a_process_that_was_never_moved_has_a_name_everywhere(self):
        process = self.start()
        self.assertTrue(process.identity.startswith("hostA/"), process.identity)
        for host in HOSTS:
            shown = self.answer(host, "show", process.identity)
            self.assertEqual((shown["pid"], shown["state"]), (process.pid, "not-moved"))
            self.assertEqual(self.answer(host, "wait", process.identity)["identity"], process.identity)
        self.answer("hostC", "kill", process.identity, "-s", "USR1")
        self.assertEqual(process.wait(), -signal.SIGUSR1)
        self.assertIn("does not know it", self.not_done(OTHER, "hostC", "kill", process.identity))
        self.assertIn("does not know it", self.not_done(OTHER, "hostA", "kill", process.identity))

    def test_kill_and_wait_reach_it_wherever_it_is(self):
        process = self.start()
        waiter = self.testbed.start("hostC", "migratectl", "--json", "wait", process.identity, "--for",
                                    "exit", cwd="/")
        self.addCleanup(waiter.kill)
        for place in ("hostB", "hostC", "hostA"):
            self.move(process, place)
            self.assertEqual(self.answer("hostA", "identity", process.pid)["identity"], process.identity)
            for host in HOSTS:
                self.answer(host, "kill", process.identity, "--signal", "0")
        self.move(process, "hostB")
        self.assertTrue(self.is_at("hostB", self.answer("hostA", "show", process.identity)))
        self.assertTrue(self.is_at("hostB", self.answer("hostC", "kill", process.identity, "-s",
                                                        "SIGINT")))
        self.assertEqual(process.wait(), -signal.SIGINT)
        self.assertEqual(waiter.wait(), 128 + signal.SIGINT)
        ended = self.answer("hostB", "watch", process.identity)
        self.assertEqual(ended["state"], "exited")
        self.assertIn("has ended", self.not_done(OTHER, "hostC", "kill", process.identity))

    def test_a_job_is_stopped_and_goes_on_by_its_name(self):
        process = self.start()
        self.move(process, "hostB")
        self.answer("hostC", "kill", process.identity, "-s", "STOP")
        self.assertTrue(wait_until(lambda: harness.state_of(process.pid) in ("T", "t")))
        self.answer("hostC", "kill", process.identity, "-s", "CONT")
        self.assertTrue(wait_until(lambda: harness.state_of(process.pid) not in ("T", "t")))
        self.answer("hostC", "kill", process.identity, "-s", "KILL")
        self.assertEqual(process.wait(), -signal.SIGKILL)

    def test_whoever_watches_hears_of_moves_and_of_the_end(self):
        process = self.start()
        watchers = [self.watch(host, process.identity) for host in HOSTS]
        for watcher in watchers:
            self.saw(watcher, "hostA")
        for place in ("hostB", "hostC"):
            self.move(process, place)
            for watcher in watchers:
                self.saw(watcher, place)
        process.popen.send_signal(signal.SIGTERM)
        for watcher in watchers:
            self.assertEqual(watcher.wait(), DONE)
            self.assertEqual(self.events(watcher)[-1]["exit_status"], int(signal.SIGTERM))

    def test_all_of_it_outlives_moves_daemons_and_the_pid(self):
        process, other, third = self.start(), self.start("hostB"), self.start("hostC")
        name = f"outlives-{process.pid}"
        self.answer("hostC", "name", "set", name, process.identity)
        self.answer("hostC", "link", process.identity, other.identity)
        self.answer("hostA", "link", "--one-way", "-s", "TERM", process.identity, third.identity)
        watcher = self.watch("hostC", process.identity)
        self.saw(watcher, "hostA")
        for place in ("hostB", "hostC", "hostB"):
            self.move(process, place)
            self.restart_all()
            self.saw(watcher, place)
            self.assertEqual(self.answer("hostB", "name", "get", name)["identity"], process.identity)
            self.answer("hostC", "kill", process.identity, "-s", "0")
        self.answer("hostC", "kill", process.identity, "-s", "KILL")
        self.assertEqual(process.wait(), -signal.SIGKILL)
        self.assertEqual(other.wait(), -signal.SIGKILL)
        self.assertEqual(third.wait(), -signal.SIGTERM)
        self.assertEqual(watcher.wait(), DONE)
        self.assertEqual(self.events(watcher)[-1]["exit_status"], int(signal.SIGKILL))
        # Another process with that pid is not meant.
        successor = self.with_pid(process.pid)
        if successor is not None:
            self.assertIn("has ended", self.not_done(OTHER, "hostC", "kill", process.identity))
            self.assertIsNone(successor.poll())
            successor.kill()
            successor.wait()
        self.not_done(OTHER, "hostA", "name", "get", name)

    def with_pid(self, pid):
        """A process that has this pid, if that is still free."""
        last = pathlib.Path("/proc/sys/kernel/ns_last_pid")
        for _ in range(50):
            last.write_text(str(pid - 1))
            process = subprocess.Popen(["sleep", "600"])
            if process.pid == pid:
                return process
            process.kill()
            process.wait()
        return None

    def test_links_end_what_they_link_and_nothing_else(self):
        first, second, third = self.start(), self.start("hostB"), self.start("hostC")
        self.answer("hostC", "link", first.identity, second.identity)
        self.answer("hostC", "link", second.identity, third.identity)
        self.answer("hostA", "link", "--remove", third.identity, second.identity)
        self.assertIn("has none", self.not_done(OTHER, "hostB", "link", "--remove", third.identity,
                                                second.identity))
        self.move(first, "hostC")
        self.answer("hostC", "kill", second.identity, "-s", "TERM")
        self.assertEqual(second.wait(), -signal.SIGTERM)
        self.assertEqual(first.wait(), -signal.SIGKILL)
        time.sleep(1.5)
        self.assertIsNone(third.popen.poll())
        self.assertIn("two processes", self.not_done(USAGE, "hostC", "link", third.identity,
                                                     third.identity))
        # A link with what has ended is none, and leaves no half.
        self.not_done(OTHER, "hostA", "link", third.identity, second.identity)
        self.not_done(OTHER, "hostA", "link", "--remove", third.identity, second.identity)

    def test_a_link_waits_for_a_home_that_does_not_answer(self):
        first, second = self.start(), self.start("hostB")
        self.answer("hostA", "link", first.identity, second.identity)
        self.testbed.command("kill-daemon", "hostB", check=True)
        first.popen.kill()
        time.sleep(1.5)
        self.assertIsNone(second.popen.poll())
        self.testbed.command("restart", "hostB", check=True)
        self.assertEqual(second.wait(), -signal.SIGKILL)

    def test_links_to_nowhere_hold_up_nobody(self):
        """One child of the daemon follows all links, whoever made how many to hosts that never answer."""
        first, second, ends = self.start(), self.start("hostB"), self.start()
        for number in range(20):
            self.answer("hostA", "link", "--one-way", ends.identity, f"192.0.2.{number + 1}/1/2")
        ends.popen.kill()
        time.sleep(2)
        self.answer("hostA", "link", first.identity, second.identity)
        first.popen.kill()
        self.assertEqual(second.wait(), -signal.SIGKILL)
        keepers = [pid for pid, name in harness.processes_of(self.testbed.hosts()[0]).items()
                   if name == "migrated-links"]
        self.assertEqual(len(keepers), 1)
        for number in range(20):
            self.answer("hostA", "link", "--remove", "--one-way", ends.identity, f"192.0.2.{number + 1}/1/2")
        self.assertTrue(wait_until(lambda: "migrated-links" not in harness.processes_of(
            self.testbed.hosts()[0]).values()))

    def test_names_are_of_living_processes(self):
        process, other = self.start(), self.start("hostB")
        given = self.answer("hostC", "name", "set", "solver", process.identity)
        self.assertEqual(given["host"], "hostA")
        for spelled in ("solver", "solver@hostA"):
            self.assertEqual(self.answer("hostC", "name", "get", spelled)["identity"], process.identity)
        self.not_done(OTHER, "hostC", "name", "get", "solver@hostB")
        self.assertEqual(self.answer("hostC", "name", "list", "hostA")["names"], [given])
        # Two homes may have one name; then it has to be said whose.
        self.answer("hostB", "name", "set", "solver", other.identity)
        self.assertIn("several", self.not_done(USAGE, "hostC", "name", "get", "solver"))
        self.assertEqual(self.answer("hostC", "name", "get", "solver@hostB")["identity"], other.identity)
        third = self.start()
        self.assertIn("another process", self.not_done(REFUSED, "hostA", "name", "set", "solver",
                                                       third.pid))
        process.popen.kill()
        process.wait()
        self.answer("hostA", "name", "set", "solver", third.pid)
        self.answer("hostC", "name", "unset", "solver@hostA")
        self.assertEqual(self.answer("hostC", "name", "get", "solver")["identity"], other.identity)
        for bad in ("-x", "", "a/b", "a b", "12", "x" * 65, "solver@"):
            self.control("hostA", "name", "get", "--", bad)
            self.assertIn(self.control("hostA", "name", "set", "--", bad, third.pid).status, (USAGE, OTHER))

    def test_what_is_no_process_is_told(self):
        self.assertIn("ORIGIN/SERIAL/EPOCH", self.not_done(USAGE, "hostA", "kill", "hostA/x/y"))
        self.assertIn("no host that is known", self.not_done(OTHER, "hostA", "kill", "nowhere/1/2"))
        self.assertIn("does not know it", self.not_done(OTHER, "hostA", "kill", "hostB/1/2"))
        self.assertIn("name or number", self.not_done(USAGE, "hostA", "kill", "1", "-s", "NOSUCH"))
        self.not_done(OTHER, "hostA", "identity", 4000000)

    def test_where_it_runs_it_is_killed_when_its_home_is_gone(self):
        process = self.start()
        self.move(process, "hostB")
        self.testbed.command("kill-daemon", "hostA", check=True)
        try:
            self.answer("hostB", "kill", process.identity, "-s", "TERM")
        finally:
            self.testbed.command("restart", "hostA", check=True)
        self.assertEqual(process.wait(), -signal.SIGTERM)


class Strangers(Case):
    """Users of the hosts, and hosts from which root's processes are not taken."""

    options = (*PEERS, "--daemon-arg=--allow=*@*")

    def test_users_reach_their_own_processes_only(self):
        own, roots = self.start(prefix=NOBODY), self.start()
        for host in HOSTS:
            self.answer(host, "kill", own.identity, "-s", "0", as_user=NOBODY)
            self.answer(host, "show", own.identity, as_user=NOBODY)
            for command in (("kill", "-s", "KILL"), ("show",), ("wait",), ("watch",), ("name", "set", "mine")):
                self.assertIn("does not know it", self.not_done(
                    OTHER, host, *command, roots.identity, as_user=NOBODY))
                self.not_done(OTHER, host, *command, own.identity, as_user=GAMES)
            self.not_done(OTHER, host, "link", own.identity, roots.identity, as_user=NOBODY)
        self.answer("hostB", "name", "set", "own", own.identity, as_user=NOBODY)
        self.not_done(REFUSED, "hostC", "name", "unset", "own@hostA", as_user=GAMES)
        self.answer("hostC", "name", "unset", "own@hostA", as_user=NOBODY)
        self.answer("hostC", "kill", own.identity, as_user=NOBODY)
        self.assertEqual(own.wait(), -signal.SIGTERM)
        self.assertIsNone(roots.popen.poll())

    def test_root_of_a_host_is_no_root_elsewhere(self):
        own, roots = self.start(prefix=NOBODY), self.start()
        for process in (own, roots):
            for command in ("kill", "show", "watch"):
                self.assertIn("takes no process of that user", self.not_done(
                    REFUSED, "hostB", command, process.identity))
            self.answer("hostA", "show", process.identity)
        self.not_done(REFUSED, "hostB", "link", own.identity, roots.identity)
        self.assertIsNone(own.popen.poll())

    def test_a_program_with_other_rights_is_not_its_users_to_end(self):
        """What has become another user's, or may not be signalled, is judged as it is now."""
        path = self.testbed.work / "becomes"
        path.write_bytes(pathlib.Path("/usr/bin/python3").resolve().read_bytes())
        os.chown(path, 5, 60)
        path.chmod(0o6755)
        process = self.testbed.start("hostA", *NOBODY, path, "-c",
                                     "import os\nos.setuid(5)\nprint('ready', flush=True)\n"
                                     "import time\ntime.sleep(600)", cwd="/")
        self.addCleanup(process.kill)
        self.assertTrue(process.wait_output(b"ready"))
        identity = self.answer("hostA", "identity", process.pid)["identity"]
        # kill(2): his real user id is what he began with.
        mine = subprocess.run([*NOBODY, "kill", "-0", str(process.pid)], check=False,
                              capture_output=True).returncode
        outcome = self.control("hostC", "kill", identity, "-s", "0", as_user=NOBODY)
        self.assertEqual(outcome.status == DONE, mine == 0, outcome)


if __name__ == "__main__":
    harness.main()
