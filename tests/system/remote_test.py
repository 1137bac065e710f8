#!/usr/bin/python3
"""Functions of a program that run elsewhere (migrate::async, migrate::map)."""

import os
import pathlib
import re
import unittest

import harness
from harness import DONE, PROGRAMS, Testbed, wait_until

HIDDEN = "/opt/remote"


def lines(process, key):
    """What follows `key` in the lines that begin with it."""
    text = process.output.decode(errors="replace")
    return [line.split(" ", 1)[1] for line in text.splitlines() if line.startswith(key + " ")]


class RemoteCase(unittest.TestCase):
    """All tests of a class share a testbed."""

    testbed = None
    options = ()

    @classmethod
    def setUpClass(cls):
        cls.testbed = Testbed(3, cls.options)
        cls.addClassCleanup(cls.testbed.down)

    def run_remote(self, *words, status=0, program=None, seconds=120):
        process = self.testbed.start("hostA", program or PROGRAMS / "remote", *words)
        self.addCleanup(process.kill)
        process.limit(seconds)
        self.assertEqual(process.wait(seconds), status, self.told(process))
        return process

    def told(self, process):
        return bytes(process.output[-2000:]).decode(errors="replace") + self.testbed.logs()

    def hosted(self, host):
        return self.testbed.control(host, "ps").object["processes"]

    def check_nothing_is_left(self):
        for host in ("hostA", "hostB", "hostC"):
            self.assertTrue(wait_until(lambda: not self.hosted(host)), self.hosted(host))

    def received_bytes(self, host):
        """By the network interfaces of a host."""
        text = self.testbed.run(host, "cat", "/proc/net/dev").text
        return sum(int(counts.split()[0]) for name, counts in
                   re.findall(r"^\s*(\S+):(.*)$", text, re.MULTILINE) if name != "lo")


class Functions(RemoteCase):
    def test_values_and_exceptions_come_home(self):
        process = self.run_remote("values", "hostB")
        self.assertEqual(process.output.decode().splitlines(),
                         ["host hostB", "number 42", "changed 1", "vector 100000 1",
                          "text 3145728", "caught too far",
                          "remote (anonymous namespace)::Diverged: after 7 steps", "end"],
                         self.told(process))
        self.check_nothing_is_left()

    def test_many_over_hosts(self):
        process = self.run_remote("many", "40", "hostB", "hostC")
        self.assertEqual(lines(process, "sum"), [str(3 * 39 * 40 // 2)], self.told(process))
        ran = dict(each.split() for each in lines(process, "ran"))
        self.assertEqual(sum(map(int, ran.values())), 40)
        self.assertEqual(set(ran), {"hostB", "hostC"})
        self.check_nothing_is_left()

    def test_what_is_not_touched_is_not_sent(self):
        before = self.received_bytes("hostB")
        process = self.run_remote("touch", "hostB", "128")
        self.assertEqual(lines(process, "same"), ["1"], self.told(process))
        self.assertLess(self.received_bytes("hostB") - before, (128 << 20) // 10)

    def test_what_is_refused_is_called_nowhere(self):
        process = self.run_remote("refused", "hostB")
        self.assertEqual(lines(process, "error"), ["3"], self.told(process))
        self.assertEqual(lines(process, "refusal"), ["SHARED_MEMORY_OUTSIDE"])
        self.assertNotIn(b"called", process.output)
        process = self.run_remote("unknown", "10.213.0.77")
        self.assertIn(lines(process, "error"), (["1"], ["2"], ["4"]), self.told(process))
        self.assertNotIn(b"called", process.output)
        self.check_nothing_is_left()

    def test_what_is_given_up_ends(self):
        process = self.run_remote("cancel", "hostB")
        self.assertEqual(process.output.decode().splitlines(),
                         ["waited 0", "cancelled", "host hostB", "end"], self.told(process))
        self.check_nothing_is_left()

    def test_one_that_is_killed_is_lost(self):
        process = self.run_remote("kill", "hostB")
        self.assertEqual(lines(process, "error"), ["5"], self.told(process))
        self.assertIn("by signal 9", lines(process, "message")[0])
        self.check_nothing_is_left()

    def test_beside_threads(self):
        process = self.run_remote("threads", "hostB", "20")
        self.assertEqual(lines(process, "sum"), [str(19 * 20 // 2)], self.told(process))
        self.check_nothing_is_left()

    def test_what_is_printed_is_printed_once(self):
        process = self.run_remote("prints", "hostB")
        self.assertEqual(sorted(process.output.decode().splitlines()),
                         ["after", "before", "end", "there hostB"])

    def test_of_a_program_without_standard_input(self):
        process = self.run_remote("closed", "hostB")
        self.assertEqual(lines(process, "open"), ["0 0 0"], self.told(process))

    def test_a_function_moves_on(self):
        process = self.run_remote("nested", "hostB", "hostC")
        self.assertEqual(lines(process, "hosts"), ["hostB hostC"], self.told(process))
        self.check_nothing_is_left()

    def test_one_of_a_function_that_is_away_says_what_to_do(self):
        process = self.run_remote("within", "hostB", "hostC")
        self.assertEqual(lines(process, "said"), ["BORN_AWAY"], self.told(process))
        self.check_nothing_is_left()

    def test_output_into_a_file_that_all_write(self):
        def run(into):
            output = self.testbed.new_path("output")
            ran = self.testbed.run("hostA", "sh", "-c", into, PROGRAMS / "remote", output)
            return ran, output.read_text()
        ran, written = run('"$0" many 20 hostB hostC >>"$1"')
        self.assertEqual(ran.status, 0, f"{ran}{written}")
        self.assertIn(f"sum {3 * 19 * 20 // 2}", written)
        ran, written = run('"$0" many 20 hostB hostC | cat >"$1"')
        self.assertIn(f"sum {3 * 19 * 20 // 2}", written)
        # With one position for all of them it is refused, which says what to do.
        ran, written = run('"$0" many 20 hostB hostC >"$1"')
        self.assertIn("SHARED_FILE", written)
        self.assertIn(">> in a shell", written)
        self.check_nothing_is_left()

    def test_a_daemon_that_starts_anew_is_waited_for(self):
        self.testbed.command("kill-daemon", "hostA", check=True)
        process = self.testbed.start("hostA", PROGRAMS / "remote", "values", "hostB")
        self.addCleanup(process.kill)
        # The first thing that it prints comes after its first function.
        self.assertFalse(wait_until(lambda: process.output, 1))
        self.testbed.command("restart", "hostA", check=True)
        self.assertEqual(process.wait(60), 0, self.told(process))
        self.assertEqual(lines(process, "number"), ["42"], self.told(process))
        self.check_nothing_is_left()

    def test_a_program_that_ends_leaves_nothing(self):
        process = self.testbed.start("hostA", PROGRAMS / "remote", "cancel", "hostB")
        self.addCleanup(process.kill)
        self.assertTrue(wait_until(lambda: len(self.hosted("hostB")) == 2), self.told(process))
        process.kill()
        # They run on until they write; nobody is there who would read it.
        for row in self.hosted("hostA"):
            os.kill(row["pid"], 9)
        self.check_nothing_is_left()


class Files(RemoteCase):
    """The destination has not the program."""

    options = ("--overlay", "/opt")

    def test_code_is_sent_as_it_is_executed(self):
        path = pathlib.Path(HIDDEN)
        copied = self.testbed.run("hostA", "cp", PROGRAMS / "remote", path)
        self.assertEqual(copied.status, DONE, copied)
        process = self.run_remote("values", "hostB", program=path)
        self.assertIn("host hostB", process.output.decode())
        self.assertIn("end", process.output.decode())


if __name__ == "__main__":
    harness.main()
