#!/usr/bin/python3
"""Connections of moved programs: what both ends see is what they would see without a move."""

import os
import subprocess

import harness
from harness import DONE, REFUSED, wait_until
from link_ends import HOSTS, PATIENCE, PYTHON, End, LinkCase, add_cases

# Steps of the process (p), the peer (q); "move" where it moves on, if it is to be moved. Each step
# waits for what the end says.
CASES = {
    "both_ways": "p:send hello|q:receive 5|move|q:send world|p:waits|p:receive 5|move|p:send again|"
                 "q:receive 5|p:close|q:to-end",
    "names_and_options": "p:set|p:names|p:options|move|p:names|p:options|move|p:names|p:options|"
                         "q:names|p:send x|q:receive 1",
    "peer_ends_its_half": "q:send unread|q:half|move|p:waits-for-end|p:receive 6|p:to-end|p:send answer|"
                          "move|q:receive 6|p:to-end|p:half|q:to-end",
    "process_ends_its_half": "p:send question|p:half|move|q:receive 8|q:to-end|q:send answer|"
                             "p:receive 6|move|q:send more|q:half|p:to-end|p:send x",
    "half_after_the_move": "move|p:half|q:to-end|q:send late|p:receive 4|move|q:close|p:to-end",
    "peer_resets": "q:linger|move|q:close|p:waits|p:to-end|p:options|p:to-end|p:send x",
    "peer_has_reset": "q:linger|q:close|move|p:to-end|p:to-end",
    "peer_resets_a_writer": "move|q:linger|q:close|p:writes",
    "process_resets": "p:send last|q:receive 4|p:linger|move|p:close|q:to-end",
    "process_closes_unread": "q:send unread|p:waits|move|p:waits|p:close|q:to-end",
    "peer_closes_unread": "p:send unread|move|q:waits|q:close|p:to-end",
    "process_closes_then_moves_on": "move|p:send last|p:close|move|q:to-end|p:exit 3",
    "process_moves_on_after_a_close": "move|p:close|q:to-end|move|p:exit 3",
    "urgent_is_read_ahead": "q:send ab|q:urgent c|p:receive-urgent|p:receive 2|q:send d|"
                            "p:receive 1|move|q:urgent e|p:receive-urgent|q:send f|p:receive 1|move|"
                            "q:send g|p:receive 1",
    "process_ends": "move|p:send bye|move|p:exit 7|q:to-end",
    "peer_closes_then_write": "q:close|p:to-end|move|p:writes",
    "urgent_to_process": "q:send ab|q:urgent c|move|p:receive 2|p:receive-urgent|q:send de|"
                         "p:receive 2|move|q:urgent f|p:receive-urgent",
    "urgent_to_peer": "p:send ab|move|p:urgent c|q:receive-urgent|q:receive 2|p:send de|q:receive 2",
    "full_there": "move|p:fill|move|q:send tick|p:receive 4",
    "full": "p:fill|move|q:send tick|p:receive 4|move|p:close|q:to-end",
}


class Links(LinkCase):
    cases = CASES

    def test_data_both_ways_over_moves(self):
        self.pump()

    def test_no_byte_is_lost_by_deaths_of_workers(self):
        self.pump_over_deaths()

    def test_data_both_ways_over_ipv6(self):
        self.pump(family="6", address="::1", host="hostA")

    def test_data_both_ways_over_loopback(self):
        self.pump(address="127.0.0.1", host="hostA")

    def test_curl_goes_on_downloading(self):
        source = self.testbed.work / "source"
        source.write_bytes(os.urandom(12 << 20))
        type(self).port += 1
        server = self.testbed.start("hostC", PYTHON, "-u", "-m", "http.server", self.port,
                                    "--bind", HOSTS["hostC"])
        self.assertTrue(server.wait_output(b"Serving", PATIENCE))
        copy = self.testbed.work / "copy"
        curl = self.testbed.start("hostA", "curl", "--silent", "--show-error", "--limit-rate", "3M",
                                  "--output", copy, f"http://{HOSTS['hostC']}:{self.port}/source")
        for mib, place in ((1, "hostB"), (4, "hostC"), (7, "hostA")):
            self.assertTrue(wait_until(lambda mib=mib: copy.exists() and
                                       copy.stat().st_size >= mib << 20, PATIENCE))
            outcome = self.testbed.move("hostA", curl.pid, place)
            self.assertEqual(outcome.status, DONE, outcome)
            self.assertIsNone(curl.popen.poll())
        self.assertEqual(curl.wait(), 0, bytes(curl.output))
        self.assertEqual(copy.read_bytes(), source.read_bytes())

    def test_both_ends_are_inside(self):
        process = self.testbed.start("hostA", PYTHON, "-c", "import socket, sys\n"
                                     "l = socket.create_server(('127.0.0.1', 0))\n"
                                     "one = socket.create_connection(l.getsockname())\n"
                                     "other, name = l.accept()\n"
                                     "l.close()\n"
                                     "print('ready', flush=True)\n"
                                     "for line in sys.stdin:\n"
                                     "    one.sendall(line.encode())\n"
                                     "    back = other.recv(100)\n"
                                     "    other.sendall(back)\n"
                                     "    print(one.recv(100), name == one.getsockname() ==\n"
                                     "          other.getpeername(), flush=True)\n",
                                     stdin=subprocess.PIPE)
        self.assertTrue(process.wait_ready())
        for place in ("hostB", "hostC", "hostA"):
            outcome = self.testbed.move("hostA", process.pid, place)
            self.assertEqual(outcome.status, DONE, outcome)
            process.stdin.write(place.encode() + b"\n")
            process.stdin.flush()
            self.assertTrue(process.wait_output(b"b'%s\\n' True\n" % place.encode(), PATIENCE),
                            bytes(process.output))
        process.stdin.close()
        self.assertEqual(process.wait(), 0)

    def test_a_connection_made_in_the_network_of_the_place_is_refused(self):
        type(self).port += 1
        server = End(self.testbed, "hostC", "listen", "4", HOSTS["hostC"], self.port).ready()
        guest = self.testbed.start("hostA", PYTHON, "-c", "import socket, sys\n"
                                   "print('ready', flush=True); input()\n"
                                   f"s = socket.create_connection(('{HOSTS['hostC']}', {self.port}))\n"
                                   "print('connected', flush=True); input()", stdin=subprocess.PIPE)
        self.assertTrue(guest.wait_ready())
        outcome = self.testbed.move("hostA", guest.pid, "hostB", options=("--network", "place"))
        self.assertEqual(outcome.status, DONE, outcome)
        guest.stdin.write(b"\n")
        guest.stdin.flush()
        self.assertTrue(guest.wait_output(b"connected", PATIENCE))
        outcome = self.testbed.control("hostA", "move", guest.pid, "hostA")
        self.assertEqual((outcome.status, outcome.codes()), (REFUSED, ["SOCKET_ABROAD"]), outcome)
        guest.stdin.write(b"\n")
        guest.stdin.flush()
        self.assertEqual(guest.wait(), 0)
        server.process.kill()

    def test_a_connection_that_two_have_is_refused(self):
        heir = self.testbed.start("hostA", PYTHON, "-c", "import socket, os, time\n"
                                  "l = socket.create_server(('127.0.0.1', 0))\n"
                                  "s = socket.create_connection(l.getsockname())\n"
                                  "if os.fork() == 0: os.setsid()\n"
                                  "else: l.close(); print('ready', flush=True)\n"
                                  "time.sleep(600)")
        self.assertTrue(heir.wait_output(b"ready\n", PATIENCE))
        outcome = self.testbed.control("hostA", "check", heir.pid)
        self.assertIn("SOCKET_SHARED", outcome.codes(), outcome)

    def test_a_mapped_address(self):
        self.compare("both_ways", family="6", address="::ffff:127.0.0.1", host="hostA")

    def test_ipv6(self):
        self.compare("both_ways", family="6", address="::1", host="hostA")
        self.compare("names_and_options", family="6", address="::1", host="hostA")

    def test_a_connection_that_was_accepted(self):
        self.compare("both_ways", listens=True)


add_cases(Links, CASES)


if __name__ == "__main__":
    harness.main()
