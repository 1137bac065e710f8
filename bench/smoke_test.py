#!/usr/bin/python3
"""Runs the suite with little memory: everything is there in the result, CRIU's stand-in included.

Asserts that figures are there and are held against floors, never what they are.
"""

import json
import os
import pathlib
import stat
import subprocess
import sys
import tempfile
import unittest

ROOT = pathlib.Path(__file__).resolve().parent.parent

# Stops and goes on, which is what a heartbeat sees of a dump and a restore. Lazily, three programs run at a
# time: whoever dumps goes on with the process, since whoever restores is in a PID namespace of his own.
CRIU = """#!/usr/bin/python3
import os, pathlib, signal, sys, time
words = sys.argv[1:]
lazy = "--lazy-pages" in words
def file(name):
    return pathlib.Path(words[words.index("--images-dir") + 1]) / name
def wait(name):
    while not file(name).exists():
        time.sleep(0.01)
def ready():
    os.write(int(words[words.index("--status-fd") + 1]), bytes(1))
def go_on(pid):
    os.kill(pid, signal.SIGCONT)
    while os.path.exists(f"/proc/{pid}") and "State:\\tZ" not in open(f"/proc/{pid}/status").read():
        time.sleep(0.01)
if words[0] == "dump":
    pid = int(words[words.index("--tree") + 1])
    os.kill(pid, signal.SIGSTOP)
    file("pid").write_text(str(pid))
    if lazy:
        assert "--address" in words and "--port" in words
        ready()
        wait("restored")
        go_on(pid)
        file("ended").touch()
        time.sleep(60)
elif words[0] == "lazy-pages":
    assert "--page-server" in words
    ready()
    wait("restored")
elif words[0] == "restore" and lazy:
    assert os.getpid() == 1
    file("restored").touch()
    wait("ended")
elif words[0] == "restore":
    go_on(int(file("pid").read_text()))
"""


class Smoke(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        build = pathlib.Path(os.environ.get("MIGRATE_BUILD_DIR", ROOT / "build" / "release"))
        folder = tempfile.TemporaryDirectory(dir=build / "bench", prefix="smoke-")
        cls.addClassCleanup(folder.cleanup)
        criu = pathlib.Path(folder.name) / "criu"
        criu.write_text(CRIU)
        criu.chmod(criu.stat().st_mode | stat.S_IXUSR)
        done = subprocess.run([ROOT / "scripts" / "bench", "--smoke", "--out", folder.name, "--criu",
                               criu], capture_output=True, text=True, check=False, timeout=280)
        if done.returncode != 0:
            raise AssertionError(done.stdout + done.stderr)
        cls.results = json.loads((pathlib.Path(folder.name) / "results.json").read_text())
        cls.report = (pathlib.Path(folder.name) / "report.html").read_text()

    def test_nothing_failed(self):
        # A program or a library that this machine does not have is left out; nothing else is.
        reasons = [one["reason"] for one in self.results["skipped"]]
        self.assertEqual([], [reason for reason in reasons
                              if not any(words in reason for words in
                                         ("not installed", "built without", "RDMA"))])

    def test_every_mode_moved_every_workload(self):
        moved = {(row["name"], row["mode"]) for row in self.results["workloads"]}
        for name in ("zipf", "STREAM"):
            for mode in ("lazy", "demand", "eager"):
                self.assertIn((name, mode), moved)

    def test_each_series_is_held_against_its_floor(self):
        self.assertEqual({"freeze", "fault", "drain"},
                         {row["group"] for row in self.results["series"]})
        for row in self.results["series"]:
            self.assertGreater(row["floor"], 0)
            self.assertGreater(row["ratio"]["median"], 0)

    def test_what_the_program_saw_is_there(self):
        for row in self.results["workloads"]:
            for key in ("freeze_us", "wire_bytes", "daemons_cpu_seconds", "run_time_ratio"):
                self.assertIn(key, row["figures"])
            if row["mib"]:
                self.assertIn("longest_gap_us", row["figures"])
                self.assertIn("first_instruction_us", row["figures"])

    def test_pages_were_seen_to_arrive(self):
        self.assertEqual({one["mode"] for one in self.results["pictures"]},
                         {"lazy", "demand", "eager", "precopy", "hybrid"})
        for one in self.results["pictures"]:
            self.assertTrue(sum(map(len, one["ways"].values())), one)

    def test_the_peer_was_measured(self):
        for kind in ("eager", "lazy"):
            runs = self.results["peers"]["criu"][kind]
            self.assertIsInstance(runs, list, runs)
            self.assertGreater(runs[0]["longest_gap_us"], 0)
            self.assertGreater(runs[0]["seconds_until_independent"], 0)
            self.assertIn(f"CRIU, {kind}", self.report)


if __name__ == "__main__":
    if os.geteuid() != 0:
        sys.exit("needs root, for namespaces")
    unittest.main()
