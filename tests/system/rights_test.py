#!/usr/bin/python3
"""Who may do what with a process: what the kernel would let him do to it himself, whatever it was
when it was started, offered or moved. MIGRATE_ROUNDS repeats what depends on moments (3)."""

import os
import pathlib
import shutil
import signal
import threading
import unittest

import harness
import steps
from harness import DONE, FAILED, REFUSED, Testbed, state_of, wait_until

ROUNDS = int(os.environ.get("MIGRATE_ROUNDS", "3"))
OWNER, STRANGER = 64001, 64002
SHADOW = 42  # any group that the owner is not in
CAP_NET_RAW = 13


def as_user(user):
    return ["setpriv", f"--reuid={user}", f"--regid={user}", "--clear-groups"]


ASKERS = {"owner": as_user(OWNER), "stranger": as_user(STRANGER), "root": []}


class RightsCase(steps.StepCase):
    """Programs of a user that have, gain and lose rights, on a testbed of the class."""

    hosts = 3

    @classmethod
    def setUpClass(cls):
        super().setUpClass()
        plain = cls.testbed.work / "plain"
        shutil.copy(harness.PROGRAMS / "credentials", plain)
        plain.chmod(0o755)
        cls.programs = {"plain": plain}
        for name, group, mode in (("setuid", 0, 0o4755), ("setgid", SHADOW, 0o2755),
                                  ("capable", 0, 0o755)):
            path = cls.programs[name] = cls.testbed.work / name
            shutil.copy(plain, path)
            os.chown(path, 0, group)
            path.chmod(mode)
        # vfs_cap_data, revision 2: permitted and effective.
        os.setxattr(cls.programs["capable"], "security.capability",
                    (0x02000001).to_bytes(4, "little") + (1 << CAP_NET_RAW).to_bytes(4, "little")
                    + bytes(12))

    def start(self, *words, prefix=ASKERS["owner"], ready=b"ready\n"):
        """Starts PROGRAM STEP..., whose words GO, STOP and LATER become paths."""
        go, stop, later = (self.testbed.new_path(name) for name in ("go", "stop", "later"))
        words = [{"GO": go, "STOP": stop, "LATER": later}.get(word, self.programs.get(word, word))
                 for word in words]
        process = self.testbed.start("hostA", *prefix, *words)
        process.go_file, process.stop_file, process.later_file = go, stop, later
        self.addCleanup(process.kill)
        self.assertTrue(process.wait_output(ready), bytes(process.output))
        return process

    def ask(self, asker, *words, host="hostA"):
        return self.testbed.run(host, *ASKERS[asker], "migratectl", "--json", *words, cwd="/")

    def move(self, asker, process, destination="hostB", **options):
        return self.ask(asker, "move", process.pid, destination, *options.get("more", ()))

    def change(self, process):
        """Lets it go on to what it becomes."""
        process.go_file.touch()
        self.assertTrue(process.wait_output(b"changed\n"), bytes(process.output))

    def ends_well(self, process):
        self.assertEqual(harness.finish(process), "", self.testbed.logs())

    def assert_refused(self, outcome, what):
        self.assertEqual(outcome.status, REFUSED, f"{what}: {outcome}\n{self.testbed.logs()}")
        said = outcome.codes() or outcome.object.get("error", {}).get("message", "")
        self.assertTrue(said == ["NOT_PERMITTED"] or "another user" in said, f"{what}: {outcome}")


class Here(RightsCase):
    """Before the first move."""

    KINDS = {
        "plain": (["plain", "say", "ready"], True),
        "setuid": (["setuid", "say", "ready"], False),
        "all-root": (["setuid", "root", "say", "ready"], False),
        "setgid": (["setgid", "say", "ready"], False),
        "file-capabilities": (["capable", "say", "ready"], False),
        "not-dumpable": (["plain", "hide", "say", "ready"], False),
        "shown-again": (["plain", "hide", "show", "say", "ready"], True),
    }

    def judge(self, process, owner_may, movable=True):
        """Who may check and move it; root moves it at the end, if that can be."""
        for words in (["check", process.pid], ["move", process.pid, "hostB"]):
            self.assert_refused(self.ask("stranger", *words), f"stranger {words}")
            if not owner_may:
                self.assert_refused(self.ask("owner", *words), f"owner {words}")
        checked = self.ask("root", "check", process.pid)
        self.assertEqual(checked.status, DONE if movable else REFUSED, checked)
        if owner_may:
            self.assertEqual(self.ask("owner", "check", process.pid).status, checked.status)
        if movable:
            moved = self.move("owner" if owner_may else "root", process)
            self.assertEqual(moved.status, DONE, f"{moved}\n{self.testbed.logs()}")
        self.ends_well(process)

    def test_kinds(self):
        for kind, (words, owner_may) in self.KINDS.items():
            with self.subTest(kind=kind):
                self.judge(self.start(*words, "wait", "STOP", "fork", "end"), owner_may)

    def test_dropped(self):
        """What was root's hides what root put there, until it shows it."""
        for more, owner_may in (([], False), (["show"], True)):
            with self.subTest(more=more):
                process = self.start("plain", "become", OWNER, *more, "say", "ready", "wait",
                                     "STOP", "end", prefix=[])
                self.judge(process, owner_may)

    def test_other_user_namespace(self):
        process = self.start("unshare", "--user", self.programs["plain"], "say", "ready", "wait",
                             "STOP", "end")
        self.assert_refused(self.ask("stranger", "check", process.pid), "stranger")
        for asker in ("owner", "root"):
            outcome = self.ask(asker, "move", process.pid, "hostB")
            self.assertEqual((outcome.status, outcome.codes()), (REFUSED, ["NAMESPACE"]), outcome)
        self.ends_well(process)

    def test_asker_in_a_user_namespace(self):
        """The kernel would let it attach to nothing outside, though its user is the same."""
        process = self.start("plain", "say", "ready", "wait", "STOP", "end")
        for words in (["check", process.pid], ["move", process.pid, "hostB"], ["ps"]):
            outcome = self.testbed.run("hostA", *ASKERS["owner"], "unshare", "--user",
                                       "migratectl", "--json", *words, cwd="/")
            self.assertEqual(outcome.status, REFUSED, outcome)
            self.assertIn("user namespace", outcome.text)
        self.ends_well(process)

    def test_root_without_capabilities(self):
        """Is asked of the kernel like anybody else."""
        process = self.start("plain", "say", "ready", "wait", "STOP", "end")
        outcome = self.testbed.run(
            "hostA", "setpriv", "--bounding-set=-all", "--inh-caps=-all", "/bin/sh", "-c",
            f"migratectl --json move {process.pid} hostB", cwd="/")
        self.assert_refused(outcome, "root without capabilities")
        self.assertEqual(self.move("root", process).status, DONE)
        self.ends_well(process)

    def test_moves_itself(self):
        """A program that asks about itself is asked of the kernel too: its user may have made it."""
        script = "import os,socket,sys;s=socket.socket(socket.AF_UNIX);" \
                 "s.connect('/run/migrate/migrated.sock');os.dup2(s.fileno(),1);" \
                 "os.set_inheritable(1,True);os.execv(sys.argv[1],sys.argv[1:])"
        line = '{"command":"check","pid":0}'
        process = self.testbed.start(
            "hostA", *ASKERS["owner"], "/usr/bin/python3", "-c",
            # The answer comes back on the socket, which nobody reads: the log tells.
            script, self.programs["setgid"], "say", line, "wait", self.testbed.new_path(), "end")
        self.addCleanup(process.kill)
        log = pathlib.Path(self.testbed._logs["hostA"])
        self.assertTrue(wait_until(
            lambda: f"refused user {OWNER} (pid {process.pid})" in log.read_text(), 10),
            self.testbed.logs())


class Away(RightsCase):
    """After a move, when it is no more what it was."""

    GAINS = {
        "all-root": (["setuid", "root", "say", "changed"], False),
        "setuid": (["setuid", "say", "changed"], True),  # its real user may still signal it
        "setgid": (["setgid", "say", "changed"], True),
        "not-dumpable": (["plain", "hide", "say", "changed"], True),
    }

    def start_and_move(self, *changed):
        process = self.start("plain", "say", "ready", "wait", "GO", "exec", *changed, "wait",
                             "STOP", "fork", "end")
        # In the network of its home, programs of others would give it no rights there.
        moved = self.move("owner", process, more=["--mode", "demand", "--network", "place"])
        self.assertEqual(moved.status, DONE, f"{moved}\n{self.testbed.logs()}")
        return process

    def pid_there(self, process):
        records = self.testbed.control("hostB", "ps").object["processes"]
        command = [each for each in records if each["role"] == "resident"
                   and str(process.stop_file) in each["command"]]
        self.assertEqual(len(command), 1, records)
        return command[0]["pid"]

    def test_gained(self):
        for kind, (words, _) in self.GAINS.items():
            with self.subTest(kind=kind):
                process = self.start_and_move(*words)
                self.change(process)
                for asker in ("owner", "stranger"):
                    for host in ("hostA", "hostB"):
                        pid = process.pid if host == "hostA" else self.pid_there(process)
                        for request in (["check", pid], ["move", pid, "hostC"]):
                            outcome = self.ask(asker, *request, host=host)
                            self.assert_refused(outcome, f"{kind}: {asker} at {host} {request}")
                # What a user sees of what he had moved is what /proc tells everybody.
                self.assertEqual(self.ask("owner", "show", process.pid).status, DONE)
                self.assertEqual(self.ask("stranger", "show", process.pid).status, REFUSED)
                self.assertEqual(self.ask("stranger", "wait", process.pid).status, REFUSED)
                moved = self.move("root", process, "hostC")
                self.assertEqual(moved.status, DONE, f"{moved}\n{self.testbed.logs()}")
                self.ends_well(process)

    def test_signals(self):
        """The deputy is still its first user's, who may signal what he could signal there."""
        for kind, (words, may) in self.GAINS.items():
            with self.subTest(kind=kind):
                process = self.start_and_move(*words)
                self.change(process)
                pid = self.pid_there(process)
                for number in ("TERM", "KILL"):
                    killed = self.testbed.run("hostA", *ASKERS["owner"], "kill", f"-{number}",
                                              process.pid)
                    self.assertEqual(killed.status, 0, killed)
                    ended = wait_until(lambda: state_of(pid) in ("", "Z"), 5 if may else 1)
                    self.assertEqual(bool(ended), may, f"{kind} {number}")
                    if may:
                        break
                if not may:
                    os.kill(pid, signal.SIGKILL)

    def test_dropped(self):
        """Root's process that becomes its user's is the user's to move where it is."""
        process = self.start("plain", "say", "ready", "wait", "GO", "become", OWNER, "show", "say",
                             "changed", "wait", "STOP", "end", prefix=[])
        self.assertEqual(self.move("root", process).status, DONE)
        self.change(process)
        self.assertEqual(self.move("root", process, "hostC").status, DONE, self.testbed.logs())
        self.ends_well(process)

    def test_resolve(self):
        """Deciding about a move in doubt takes the same right."""
        process = self.start("plain", "say", "ready", "wait", "STOP", "end")
        self.arm("source.restored")
        mover = threading.Thread(target=lambda: self.move("root", process))
        mover.start()
        worker = self.stopped_at("source.restored", "hostA")
        self.testbed.set_link("hostB", "down")
        self.addCleanup(self.testbed.set_link, "hostB", "up")
        os.kill(worker, signal.SIGCONT)
        self.assertTrue(self.in_doubt(process), self.testbed.logs())
        outcome = self.ask("stranger", "resolve", process.pid, "--give-up", "--yes")
        self.assertEqual(outcome.status, REFUSED, outcome)
        self.testbed.set_link("hostB", "up")
        mover.join()
        self.ends_well(process)


class Meanwhile(RightsCase):
    """A process that becomes someone else between the request and the freeze."""

    def change_at(self, step, process, *more):
        """What its owner's move comes to of a process that changes when the move has come to `step`."""
        self.arm(step)
        outcomes = []
        mover = threading.Thread(target=lambda: outcomes.append(
            self.move("owner", process, more=more)))
        mover.start()
        worker = self.stopped_at(step, "hostA")
        self.change(process)
        os.kill(worker, signal.SIGCONT)
        mover.join()
        return outcomes[0]

    def gain_at(self, step, kind, *more):
        process = self.start("plain", "say", "ready", "wait", "GO", "exec", kind, "say", "changed",
                             "wait", "STOP", "fork", "end")
        self.assert_refused(self.change_at(step, process, "--retry", "1", *more), kind)
        self.ends_well(process)

    def hide_at(self, step, *more):
        """The same program, so that only the frozen process tells."""
        process = self.start("plain", "say", "ready", "wait", "GO", "hide", "say", "changed",
                             "wait", "STOP", "end")
        self.assert_refused(self.change_at(step, process, *more), "hidden")
        self.ends_well(process)

    def test_gained_after_the_offer(self):
        for kind in ("setuid", "setgid", "capable"):
            for _ in range(ROUNDS):
                self.gain_at("source.offered", kind)

    def test_hidden_after_the_offer(self):
        for _ in range(ROUNDS):
            self.hide_at("source.offered")

    def test_changed_while_rounds_are_made(self):
        """Before the first page is sent, and when some were."""
        for step in ("source.watched", "source.round"):
            for mode in ("precopy", "hybrid"):
                for _ in range(ROUNDS):
                    self.gain_at(step, "setuid", "--mode", mode)
                    self.hide_at(step, "--mode", mode)


LISTENER = """
import socket, sys
server = socket.create_server(("127.0.0.1", int(sys.argv[1])))
print("ready", flush=True)
server.settimeout(20)
while True:
    connection, _ = server.accept()
    connection.settimeout(3)
    try:
        print("got", len(connection.recv(1 << 16)), flush=True)
    except OSError as error:
        print("got", error, flush=True)
"""


class Listeners(unittest.TestCase):
    """Where nothing authenticates hosts, pages go to root's daemons of this host only."""

    def test_user_listens(self):
        with Testbed(1, ["--no-daemon"]) as testbed:
            daemon = testbed.start("hostA", "migrated", "--listen", "tcp://127.0.0.1:7171",
                                   "--state", "/run/migrate/state", "--socket",
                                   "/run/migrate/migrated.sock", stderr=None)
            self.assertTrue(wait_until(lambda: testbed.control("hostA", "ps").status == DONE))
            listener = testbed.start("hostA", *as_user(OWNER), "/usr/bin/python3", "-c", LISTENER,
                                     9999, cwd="/")
            self.assertTrue(listener.wait_ready())
            keeper = testbed.start_keeper("hostA", prefix=as_user(OWNER))
            for asker in ("owner", "root"):
                for command in (["check", keeper.pid, "--to", "127.0.0.1:9999"],
                                ["move", keeper.pid, "127.0.0.1:9999"],
                                ["move", keeper.pid, "10.213.0.1:9999"]):
                    outcome = testbed.run("hostA", *ASKERS[asker], "migratectl", "--json",
                                          *command, cwd="/")
                    self.assertNotEqual(outcome.status, DONE, outcome)
                    self.assertIn(f"user {OWNER} listens there" if "127" in command[-1]
                                  else "", outcome.text)
            self.assertNotIn(b"got", listener.output.replace(b"got 0", b""))
            self.assertEqual(harness.finish(keeper), "")
            daemon.kill()

    def test_not_elsewhere(self):
        with Testbed(2, ["--no-daemon"]) as testbed:
            daemon = testbed.start("hostA", "migrated", "--listen", "tcp://127.0.0.1:7171",
                                   "--state", "/run/migrate/state", "--socket",
                                   "/run/migrate/migrated.sock", stderr=None)
            self.assertTrue(wait_until(lambda: testbed.control("hostA", "ps").status == DONE))
            listener = testbed.start("hostB", "/usr/bin/python3", "-c",
                                     LISTENER.replace("127.0.0.1", "10.213.0.2"), 9999)
            self.assertTrue(listener.wait_ready())
            keeper = testbed.start_keeper("hostA")
            outcome = testbed.control("hostA", "move", keeper.pid, "10.213.0.2:9999")
            self.assertEqual(outcome.status, FAILED, outcome)
            self.assertIn("nothing proves that a daemon of root listens there", outcome.text)
            self.assertEqual(harness.finish(keeper), "")
            daemon.kill()


if __name__ == "__main__":
    harness.main()
