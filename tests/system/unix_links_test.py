#!/usr/bin/python3
"""Connections of Unix domain sockets of moved programs: both ends see what they would without a move."""

import socket

import harness
from harness import DONE
from link_ends import PATIENCE, PYTHON, LinkCase, add_cases

# As those of links_test.
CASES = {
    "both_ways": "p:send hello|q:receive 5|move|q:send world|p:waits|p:receive 5|move|p:send again|"
                 "q:receive 5|p:close|q:to-end",
    "names": "p:names|p:maker|move|p:names|p:maker|move|p:names|p:maker|q:names",
    "peer_ends_its_half": "q:send unread|q:half|move|p:waits-for-end|p:receive 6|p:to-end|p:send answer|"
                          "move|q:receive 6|p:to-end|p:half|q:to-end",
    "process_ends_its_half": "p:send question|p:half|move|q:receive 8|q:to-end|q:send answer|"
                             "p:receive 6|move|q:send more|q:half|p:to-end|p:send x",
    "half_after_the_move": "move|p:half|q:to-end|q:send late|p:receive 4|move|q:close|p:to-end",
    "peer_closes": "q:send last|q:close|move|p:to-end|p:send x",
    "peer_closes_there": "move|q:send last|q:close|p:waits-for-end|p:receive 4|p:to-end|move|p:writes",
    "process_closes": "move|p:send last|p:close|q:waits-for-end|q:to-end|q:writes",
    "process_closes_then_moves_on": "move|p:send last|p:close|move|q:to-end|p:exit 3",
    "process_moves_on_after_a_close": "move|p:close|q:to-end|move|p:exit 3",
    "process_ends": "move|p:send bye|move|p:exit 7|q:to-end",
    "peer_closes_then_write": "q:close|p:to-end|move|p:writes",
    "unread_of_both": "p:send one|q:send two|move|p:send three|q:send four|move|p:receive 7|q:receive 8",
    "full_there": "move|p:fill|move|q:send tick|p:receive 4",
    "full": "p:fill|move|q:send tick|p:receive 4|move|p:close|q:to-end",
}


class UnixLinks(LinkCase):
    """The process begins in hostA, where its peer is."""

    cases = CASES

    def connect(self, family="unix", address=None, host="hostA", listens=False):
        return super().connect(family, address or f"{self.testbed.work}/socket-", host, listens)

    def refusal(self, program):
        process = self.testbed.start("hostA", PYTHON, "-c", "import socket, os, time\n" + program +
                                     "\nprint('ready', flush=True)\ntime.sleep(600)")
        self.assertTrue(process.wait_output(b"ready\n", PATIENCE), bytes(process.output))
        outcome = self.testbed.control("hostA", "check", process.pid)
        process.kill()
        return outcome

    def test_a_process_that_accepts(self):
        for case in ("both_ways", "names", "peer_closes_there"):
            with self.subTest(case=case):
                steps = CASES[case]
                self.assertEqual(self.observe(steps, ["hostB", "hostC"], listens=True),
                                 self.observe(steps, [], listens=True))

    def test_abstract_names(self):
        for listens in (False, True):
            with self.subTest(listens=listens):
                seen = self.observe(CASES["names"] + "|p:send hello|q:receive 5", ["hostB", "hostA"],
                                    address="@one ", listens=listens)
                self.assertEqual(seen[2:4], seen[:2])
                self.assertEqual(seen[4:6], seen[:2])
                self.assertIn("one", seen[0])

    def test_check_tells_how_it_would_go(self):
        process, peer = self.connect()
        outcome = self.testbed.control("hostA", "check", "--links", process.process.pid)
        links = [link for link in outcome.object["links"] if link["kind"] == "unix connection"]
        self.assertEqual([(link["way"], link["local"], link["peer"]) for link in links],
                         [("home", "", f"{self.testbed.work}/socket-{self.port}")], outcome)
        for end in (process, peer):
            end.process.kill()

    def test_data_both_ways_over_moves(self):
        self.pump()

    def test_no_byte_is_lost_by_deaths_of_workers(self):
        self.pump_over_deaths()
        self.assertNotIn("without a journal", self.testbed.logs(5000))

    def test_stdio_that_is_a_socket(self):
        """As programs have that a superserver or an editor starts."""
        ours, theirs = socket.socketpair()
        process = self.testbed.start("hostA", "/bin/sh", "-c", "exec cat >&0", stdin=theirs)
        theirs.close()
        ours.settimeout(PATIENCE)
        for number, place in enumerate(("hostB", "hostC", "hostA")):
            ours.sendall(b"line %d\n" % number)
            self.assertEqual(ours.recv(100), b"line %d\n" % number)
            outcome = self.testbed.move("hostA", process.pid, place)
            self.assertEqual(outcome.status, DONE, f"{outcome}\n{self.testbed.logs()}")
        ours.sendall(b"last")
        ours.shutdown(socket.SHUT_WR)
        self.assertEqual(ours.recv(100), b"last")
        self.assertEqual(ours.recv(100), b"")
        self.assertEqual(process.popen.wait(PATIENCE), 0)

    def test_what_is_refused_says_why(self):
        for program, code, word in (
                ("a, b = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)\n"
                 "if os.fork() == 0: os.setsid(); a.close(); time.sleep(600)\n"
                 "b.close()", "SOCKET", "stream"),
                ("a, b = socket.socketpair()\nb.setsockopt(socket.SOL_SOCKET, socket.SO_PASSCRED, 1)\n"
                 "if os.fork() == 0: os.setsid(); b.close(); time.sleep(600)\n"
                 "a.close()", "SOCKET", "SO_PASSCRED"),
                ("a, b = socket.socketpair()\nif os.fork() == 0: os.setsid(); time.sleep(600)\n"
                 "b.close()", "SOCKET_SHARED", "")):
            outcome = self.refusal(program)
            self.assertIn(code, outcome.codes(), outcome)
            self.assertIn(word, str(outcome))


add_cases(UnixLinks, CASES)


if __name__ == "__main__":
    harness.main()
