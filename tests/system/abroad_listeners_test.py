#!/usr/bin/python3
"""Listeners that a program makes where it is a guest: who connects to its home comes to them, and they
go on with it, as they would without a move."""

import os
import signal
import subprocess
import unittest

import harness
from harness import DONE, wait_until
from link_ends import HOSTS, PATIENCE, PYTHON, End, add_cases, worker_of
from listeners_test import CALLERS, ECHO
from open_sockets_test import PROGRAM

# What such a program does beside what PROGRAM can. Home has what is made abroad some moments later.
LISTENING = r"""
def listen(number, name, family=AF_INET, backlog=60):
    make(number, SOCK_STREAM, family)
    on(number, SOL_SOCKET, SO_REUSEADDR, 1)
    s[number].bind(name)
    s[number].listen(backlog)
def accept(number, by):
    s[number], who = s[by].accept()
    return who[0], s[number].getpeername() == who, s[number].getsockname()[:2]
def attempt(number, name):
    make(number, SOCK_STREAM, AF_INET6 if ":" in name[0] else AF_INET)
    return s[number].connect_ex(name)
def until(number, name, error):
    end = time.monotonic() + 20
    while attempt(number, name) != error and time.monotonic() < end:
        time.sleep(0.02)
    return s[number].fileno() >= 0
def reach(number, name):
    return until(number, name, 0)
def refused(number, name):
    return until(number, name, errno.ECONNREFUSED)
def reach_many(count, name):
    return all([reach(number, name) and s[number].send(b"%d" % number) for number in range(count)])
def serve_many(count, by):
    for number in range(100, 100 + count):
        accept(number, by)
    for number in range(100, 100 + count):
        s[number].send(s[number].recv(9) * 2)
def check_many(count):
    return [s[number].recv(9) for number in range(count)] == [b"%d%d" % (n, n) for n in range(count)]
print("ready", flush=True)
"""
LISTENER = PROGRAM.replace('print("ready", flush=True)\n', LISTENING)

# What the process (p) does, a program in hostC (q) and one at its home (h). HOME is the address of its
# home, SIX another.
CASES = {
    "made_abroad": "move|p:listen(1,('HOME',PORT))|q:reach(1,('HOME',PORT))|p:accept(2,1)|"
                   "q:s[1].send(b'hello')|p:s[2].recv(9)|p:s[2].send(b'world')|q:s[1].recv(9)|"
                   "h:reach(1,('HOME',PORT))|p:accept(3,1)|h:s[1].send(b'there')|p:s[3].recv(9)|move|"
                   "q:s[1].send(b'again')|p:s[2].recv(9)|q:reach(2,('HOME',PORT))|p:accept(4,1)|"
                   "p:s[4].send(b'x')|q:s[2].recv(9)|p:polled(1)|move|p:s[3].send(b'late')|h:s[1].recv(9)|"
                   "h:reach(2,('HOME',PORT))|p:accept(5,1)|h:s[2].close()|p:s[5].recv(9)|"
                   "p:s[2].close()|q:s[1].recv(9)|p:s[1].close()|q:refused(3,('HOME',PORT))",
    "of_all_addresses": "move|p:listen(1,('',PORT))|h:reach(1,('127.0.0.1',PORT))|p:accept(2,1)|"
                        "h:s[1].send(b'x')|p:s[2].recv(9)|q:reach(1,('HOME',PORT))|p:accept(3,1)|"
                        "p:s[3].send(b'y')|q:s[1].recv(9)|p:attempt(4,('127.0.0.1',PORT))|p:accept(5,1)|"
                        "p:s[4].close()|p:s[5].recv(9)|p:s[5].close()|move|h:s[1].send(b'z')|p:s[2].recv(9)",
    "of_ipv6": "move|p:listen(1,('::',PORT),AF_INET6)|q:reach(1,('HOME',PORT))|p:accept(2,1)|"
               "h:reach(1,('::1',PORT))|p:accept(3,1)|h:reach(2,('SIX',PORT))|p:accept(4,1)|move|"
               "q:s[1].send(b'x')|p:s[2].recv(9)|h:s[1].send(b'y')|p:s[3].recv(9)|"
               "p:s[4].send(b'z')|h:s[2].recv(9)",
    "of_a_socket_of_before": "p:make(1)|p:on(1,SOL_SOCKET,SO_REUSEADDR,1)|p:s[1].bind(('HOME',PORT))|move|"
                             "p:s[1].listen(3)|q:reach(1,('HOME',PORT))|p:accept(2,1)|q:s[1].send(b'x')|"
                             "p:s[2].recv(9)|move|p:s[2].send(b'y')|q:s[1].recv(9)",
    "queue_goes_on": "move|p:listen(1,('HOME',PORT))|q:reach(1,('HOME',PORT))|q:s[1].send(b'early')|"
                     "q:reach(2,('HOME',PORT))|p:readable(1)|move|p:accept(2,1)|p:accept(3,1)|"
                     "p:s[2].recv(9)|p:s[3].send(b'x')|q:s[2].recv(9)|move|p:s[2].send(b'y')|q:s[1].recv(9)",
    "made_again": "p:listen(1,('HOME',PORT))|move|q:reach(1,('HOME',PORT))|p:accept(2,1)|p:s[1].close()|"
                  "p:time.sleep(0.5)|p:listen(1,('HOME',PORT))|q:reach(2,('HOME',PORT))|p:accept(3,1)|p:s[3].send(b'x')|"
                  "q:s[2].recv(9)|move|p:s[2].send(b'y')|q:s[1].recv(9)",
    "moves_on_at_once": "move|p:listen(1,('HOME',PORT))|move|q:reach(1,('HOME',PORT))|p:accept(2,1)|"
                        "p:s[2].send(b'x')|q:s[1].recv(9)|p:listen(3,('HOME',PORT+1000))|move|"
                        "q:reach(2,('HOME',PORT+1000))|p:accept(4,3)|p:s[4].send(b'y')|q:s[2].recv(9)",
    "fifty": "move|p:listen(1,('HOME',PORT))|q:reach_many(50,('HOME',PORT))|p:serve_many(50,1)|"
             "q:check_many(50)|move|p:[s[n].send(b'%d' % n) for n in range(100,150)]|"
             "q:[s[n].recv(9) for n in range(50)]",
}


class AbroadListeners(unittest.TestCase):
    """The process begins in hostA."""

    HOME_SIX = "fd00:213::1"

    @classmethod
    def setUpClass(cls):
        cls.testbed = harness.Testbed(3)
        cls.addClassCleanup(cls.testbed.down)
        cls.testbed.run("hostA", "ip", "-6", "addr", "add", cls.HOME_SIX + "/64", "dev", "lo", "nodad")
        cls.port = 6400

    def start(self, host, *user, **options):
        end = End.__new__(End)
        end.process = self.testbed.start(host, *user, PYTHON, "-c", LISTENER, stdin=subprocess.PIPE,
                                         **options)
        self.addCleanup(end.process.kill)
        return end.ready()

    def next_port(self):
        type(self).port += 1
        return self.port

    def ask(self, end, what):
        end.tell(what)
        return end.answer()

    def move(self, process, destination):
        outcome = self.testbed.move("hostA", process.pid, destination)
        self.assertEqual(outcome.status, DONE, f"{outcome}\n{self.testbed.logs()}")

    def observe(self, steps, places):
        port = self.next_port()
        for word, value in (("HOME", HOSTS["hostA"]), ("SIX", self.HOME_SIX), ("PORT", port)):
            steps = steps.replace(word, str(value))
        ends = {"p": self.start("hostA"), "q": self.start("hostC"), "h": self.start("hostA")}
        places = iter(places)
        seen = []
        for step in steps.split("|"):
            if step == "move":
                if place := next(places, None):
                    self.move(ends["p"].process, place)
                continue
            answer = self.ask(ends[step[0]], step[2:]).replace(str(port + 1000), "NEXT")
            seen.append(f"{step}: {answer}".replace(str(port), "PORT"))
        for end in ends.values():
            end.process.kill()
        return seen

    def compare(self, name):
        expected = self.observe(CASES[name], [])
        places = ["hostB", "hostC", "hostA"]
        self.assertEqual(self.observe(CASES[name], places), expected, self.testbed.logs(15))

    def listener_of(self, process):
        """What `show` says at home of its listener, once home has tried to listen."""
        def shown():
            links = self.testbed.control("hostA", "show", process.pid).object.get("links", [])
            return next((link for link in links if link["kind"] == "listener"), None)
        return wait_until(shown, PATIENCE)

    def test_port_that_the_kernel_has_chosen(self):
        end, far = self.start("hostA"), self.start("hostC")
        self.move(end.process, "hostB")
        port = self.ask(end, f"listen(1, ('{HOSTS['hostA']}', 0)) or s[1].getsockname()[1]")
        self.assertEqual(self.ask(far, f"reach(1, ('{HOSTS['hostA']}', {port}))"), "True")
        self.assertIn(HOSTS["hostC"], self.ask(end, "accept(2, 1)"))
        self.assertTrue(wait_until(lambda: self.listener_of(end.process)["accepted"] == 1, PATIENCE))
        end.process.kill()
        self.assertEqual(self.ask(far, f"refused(2, ('{HOSTS['hostA']}', {port}))"), "True")

    def test_port_that_is_taken_at_home(self):
        end, other = self.start("hostA"), self.start("hostA")
        name = f"('{HOSTS['hostA']}', {self.next_port()})"
        self.ask(other, f"listen(1, {name})")
        self.move(end.process, "hostB")
        self.assertEqual(self.ask(end, f"listen(1, {name})"), "None")
        self.assertTrue(wait_until(lambda: "error" in self.listener_of(end.process), PATIENCE))
        link = self.listener_of(end.process)
        self.assertEqual((link["way"], link["error"]), ("inside", "Address already in use"))
        self.assertIn("Address already in use", self.testbed.run("hostA", "migratectl", "show",
                                                                 end.process.pid).text)
        self.assertIn("Address already in use", self.testbed.logs(15))
        self.assertEqual(self.ask(end, f"attempt(2, {name})"), "0")
        self.ask(end, "accept(3, 1)")
        self.assertEqual(self.ask(end, "s[2].send(b'x') and s[3].recv(9)"), "b'x'")
        self.assertEqual(self.ask(other, f"attempt(2, {name})"), "0")
        self.assertIn(HOSTS["hostA"], self.ask(other, "accept(3, 1)"))

    def test_a_users_program_has_no_privileged_port(self):
        """Not where it is, and if that does not mind, not at home."""
        end = self.start("hostA", "setpriv", "--reuid=65534", "--regid=65534", "--clear-groups", cwd="/")
        self.move(end.process, "hostB")
        self.assertEqual(self.ask(end, "listen(1, ('', 99))"), "'EACCES'")
        process = self.testbed.control("hostA", "show", end.process.pid).object["process"]
        guest = self.testbed.control("hostB", "show", process).object["pid"]
        subprocess.run(["nsenter", f"--net=/proc/{guest}/ns/net", "sh", "-c",
                        "echo 0 > /proc/sys/net/ipv4/ip_unprivileged_port_start"], check=True)
        self.assertEqual(self.ask(end, "listen(1, ('', 99))"), "None")
        self.assertTrue(wait_until(lambda: "error" in self.listener_of(end.process), PATIENCE))
        self.assertEqual(self.listener_of(end.process)["error"], "Permission denied")
        self.assertEqual(self.ask(self.start("hostA"), "attempt(1, ('127.0.0.1', 99))"), "111")

    def start_echo(self, stay, rounds):
        """A server that listens in hostB, and clients of its home."""
        port = self.next_port()
        server = self.testbed.start(
            "hostA", PYTHON, "-c", ECHO.replace("asyncio.run(main())",
                                                "print('ready', flush=True); input(); asyncio.run(main())")
            .replace('"ready"', '"serves"'), HOSTS["hostA"], port, stdin=subprocess.PIPE)
        self.assertTrue(server.wait_ready(), bytes(server.output))
        self.move(server, "hostB")
        server.stdin.write(b"\n")
        server.stdin.flush()
        self.assertTrue(server.wait_output(b"serves", PATIENCE), bytes(server.output))
        probe = self.start("hostC")
        self.assertEqual(self.ask(probe, f"reach(1, ('{HOSTS['hostA']}', {port}))"), "True")
        probe.process.kill()
        callers = self.testbed.start("hostC", PYTHON, "-c", CALLERS, HOSTS["hostA"], port, stay, rounds)
        self.addCleanup(server.kill)
        return server, callers

    def wait_at(self, callers, mark):
        self.assertTrue(callers.wait_output(b"at %d\n" % mark, PATIENCE),
                        f"{bytes(callers.output[-2000:])}\n{self.testbed.logs()}")

    def check_callers(self, callers, rounds):
        self.assertEqual(callers.wait(), 0, bytes(callers.output[-2000:]))
        self.assertTrue(callers.output.endswith(b"all %d\n" % rounds), bytes(callers.output[-300:]))

    def test_clients_stay_and_come_while_it_moves(self):
        server, callers = self.start_echo(50, 350)
        for place, mark in (("hostC", 50), ("hostA", 150), ("hostB", 250)):
            self.wait_at(callers, mark)
            self.move(server, place)
        self.check_callers(callers, 350)

    def test_no_connection_is_lost_by_deaths_of_workers(self):
        server, callers = self.start_echo(5, 300)
        for mark in range(50, 300, 50):
            self.wait_at(callers, mark)
            os.kill(worker_of(self.testbed, "hostA" if mark % 100 else "hostB", server), signal.SIGKILL)
        self.check_callers(callers, 300)


add_cases(AbroadListeners, CASES)


if __name__ == "__main__":
    harness.main()
