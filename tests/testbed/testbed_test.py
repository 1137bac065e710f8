#!/usr/bin/env python3
"""System test of tools/testbed. Usage: testbed_test.py TESTBED [unittest arguments]. Needs root."""

import json
import os
import pathlib
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import unittest

TESTBED = ""
HERE = pathlib.Path(__file__).resolve().parent
FAKE = HERE / "fake_migrated.py"
STATES = pathlib.Path("/run/migrate-testbed")


def mounts(word):
    """Mounts of this mount namespace whose line holds `word`."""
    lines = pathlib.Path("/proc/self/mountinfo").read_text().splitlines()
    return [line for line in lines if word in line]


def network_namespaces():
    """Network namespaces that some process is in, by inode."""
    found = set()
    for path in pathlib.Path("/proc").glob("[0-9]*/ns/net"):
        try:
            found.add(path.stat().st_ino)
        except OSError:
            pass
    return found


def wait_until(condition, seconds=30.0):
    end = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > end:
            return False
        time.sleep(0.01)
    return True


def groups(controller):
    """Where groups of this process's children with that controller are made; None if it cannot be seen."""
    for line in pathlib.Path("/proc/self/cgroup").read_text().splitlines():
        _, controllers, path = line.split(":", 2)
        if controller in controllers.split(","):
            return pathlib.Path("/sys/fs/cgroup") / controllers / path.lstrip("/")
    return None


class TestbedCase(unittest.TestCase):
    """Each test has testbeds of its own name, which never outlive it."""

    def setUp(self):
        self.name = f"test-{os.getpid()}"
        self.addCleanup(self.call, "down")

    def call(self, *arguments, name=None, check=True, **options):
        result = subprocess.run(
            [TESTBED, "--name", name or self.name, *map(str, arguments)],
            capture_output=True, text=True, timeout=60, **options)
        if check:
            self.assertEqual(result.returncode, 0, result.stderr)
        return result

    def up(self, *arguments):
        return self.call("up", *arguments, "--migrated", FAKE)

    def run_in(self, host, *command, **options):
        return self.call("exec", host, "--", *command, **options)

    def hosts(self):
        return json.loads(self.call("list", "--json").stdout)["hosts"]

    def spawn_in(self, host, *command, **options):
        process = subprocess.Popen(
            [TESTBED, "--name", self.name, "exec", host, "--", *command],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, **options)
        self.addCleanup(process.communicate)
        self.addCleanup(process.kill)
        return process


class Hosts(TestbedCase):
    def test_each_has_its_name_address_and_folders(self):
        self.up(3)
        for number, name in enumerate(["hostA", "hostB", "hostC"], 1):
            self.assertEqual(self.run_in(name, "hostname").stdout, name + "\n")
            self.assertIn(f"10.213.0.{number}/24", self.run_in(name, "ip", "-4", "addr").stdout)
            self.assertEqual(self.run_in(name, "ls", "/run").stdout, "migrate\n")
            self.run_in(name, "sh", "-c", "echo $0 >/tmp/mine; echo $0 >/run/mine", name)
        for name in ["hostA", "hostB", "hostC"]:
            self.assertEqual(self.run_in(name, "cat", "/tmp/mine").stdout, name + "\n")
            self.assertEqual(self.run_in(name, "cat", "/run/mine").stdout, name + "\n")
        self.assertFalse(pathlib.Path("/tmp/mine").exists() or pathlib.Path("/run/mine").exists())

    def test_share_everything_else(self):
        self.up()
        with tempfile.NamedTemporaryFile("w", dir="/var/tmp") as file:
            file.write("seen")
            file.flush()
            self.assertEqual(self.run_in("hostB", "cat", file.name).stdout, "seen")

    def test_share_the_machines_pids(self):
        self.up()
        process = self.spawn_in("hostA", "sleep", "60")
        namespace = os.readlink(f"/proc/{process.pid}/ns/pid")
        self.assertEqual(namespace, os.readlink("/proc/self/ns/pid"))

    def test_reach_each_other_by_name(self):
        self.up(2)
        script = ("import socket, sys; s = socket.create_connection((sys.argv[1], 7070), 5);"
                  "print(s.recv(100).decode())")
        for here, there in [("hostA", "hostB"), ("hostB", "hostA"), ("hostA", "hostA")]:
            result = self.run_in(here, sys.executable, "-c", script, there)
            self.assertEqual(result.stdout, there + "\n")
        self.run_in("hostA", "getent", "hosts", "localhost")

    @unittest.skipUnless(groups("cpu"), "no hierarchy of version 1 with quotas of processors")
    def test_have_processors_of_their_own(self):
        self.up(3, "--cpus", "1,0.5,0.25")
        self.assertEqual([host["cpus"] for host in self.hosts()], [1, 0.5, 0.25])
        self.assertIn("cpus 0.25", self.call("list").stdout)
        for number, host in enumerate(self.hosts()):
            made = groups("cpu") / f"testbed-{self.name}-{host['name']}"
            quota, period = (int((made / f"cpu.cfs_{what}_us").read_text()) for what in ("quota", "period"))
            self.assertEqual(quota / period, 2 ** -number)
            # The daemon is beside it.
            child = self.run_in(host["name"], "sh", "-c", "cat /proc/self/cgroup; :").stdout
            daemon = pathlib.Path(f"/proc/{host['daemon_pid']}/cgroup").read_text()
            for words, place in ((child, "/programs"), (daemon, "-daemon")):
                self.assertRegex(words, rf"(?m)^\d+:([a-z]+,)*cpu(,[a-z]+)*:.*/{made.name}{place}$")
            # As quotas of machines are: nobody in it has that limit.
            seen = self.run_in(host["name"], "cat", f"/sys/fs/cgroup/{made.parent.name}/cpu.cfs_quota_us").stdout
            self.assertEqual(int(seen), quota)
        self.call("down")
        self.assertEqual(list(groups("cpu").glob(f"testbed-{self.name}-*")), [])

    def test_have_as_many_quotas_as_there_are_hosts(self):
        for words in (("2", "--cpus", "1"), ("1", "--cpus", "0")):
            self.assertEqual(self.call("up", *words, check=False).returncode, 2, words)

    @unittest.skipUnless(groups("cpu"), "no hierarchy of version 1 with quotas of processors")
    def test_say_that_there_are_no_quotas(self):
        hidden = subprocess.run(
            ["unshare", "--mount", "sh", "-c", f"mount -o remount,bind,ro {groups('cpu')}; exec \"$@\"", "sh", TESTBED,
             "--name", self.name, "up", "2", "--no-daemon", "--cpus", "1,1"],
            capture_output=True, text=True, timeout=60, check=False)
        self.assertEqual(hidden.returncode, 1, hidden)
        self.assertIn("without --cpus", hidden.stderr)
        self.assertEqual(self.call("list", check=False).returncode, 2)

    def test_twenty_six(self):
        self.up(26)
        self.assertEqual(len(self.hosts()), 26)
        self.assertEqual(self.hosts()[25]["name"], "hostZ")
        self.assertTrue(all(host["daemon_pid"] for host in self.hosts()))

    def test_two_testbeds_at_once(self):
        other = self.name + "-other"
        self.addCleanup(self.call, "down", name=other)
        self.up()
        self.call("up", "--migrated", FAKE, name=other)
        self.run_in("hostA", "touch", "/tmp/first")
        result = self.call("exec", "hostA", "--", "test", "-e", "/tmp/first", name=other,
                              check=False)
        self.assertEqual(result.returncode, 1)
        self.call("down")
        self.assertEqual(self.call("exec", "hostA", "--", "hostname", name=other).stdout,
                         "hostA\n")

    def test_name_from_the_environment(self):
        self.up()
        result = subprocess.run([TESTBED, "exec", "hostB", "--", "hostname"], text=True,
                                capture_output=True, check=True,
                                env=os.environ | {"MIGRATE_TESTBED": self.name})
        self.assertEqual(result.stdout, "hostB\n")


class Overlay(TestbedCase):
    def test_changes_stay_in_one_host(self):
        folder = pathlib.Path(tempfile.mkdtemp(dir="/var/tmp"))
        self.addCleanup(shutil.rmtree, folder)
        (folder / "file").write_text("machine")
        folder.chmod(0o750)
        self.up(2, "--overlay", folder)
        self.run_in("hostA", "sh", "-c", f"echo A >{folder}/file")
        self.assertEqual(self.run_in("hostA", "cat", folder / "file").stdout, "A\n")
        self.assertEqual(self.run_in("hostB", "cat", folder / "file").stdout, "machine")
        self.assertEqual(self.run_in("hostB", "stat", "-c", "%a", folder).stdout, "750\n")
        self.assertEqual((folder / "file").read_text(), "machine")

    def test_several_folders(self):
        folders = [tempfile.mkdtemp(dir="/var/tmp") for _ in range(2)]
        for folder in folders:
            self.addCleanup(shutil.rmtree, folder)
        self.up(2, "--overlay", ",".join(folders))
        for folder in folders:
            self.run_in("hostB", "touch", folder + "/new")
            self.assertEqual(os.listdir(folder), [])

    def test_refuses_folders_that_cannot_have_one(self):
        for folder in ["/", "/tmp", "/proc", "/no/such/folder"]:
            result = self.call("up", "--no-daemon", "--overlay", folder, check=False)
            self.assertEqual(result.returncode, 2, result.stderr)
            self.assertFalse((STATES / self.name).exists())


class Exec(TestbedCase):
    def setUp(self):
        super().setUp()
        self.call("up", "--no-daemon")

    def test_passes_on_exit_status_and_streams(self):
        result = self.run_in("hostA", "sh", "-c", "cat; echo err >&2; exit 41", input="some input",
                             check=False)
        self.assertEqual((result.returncode, result.stdout, result.stderr),
                         (41, "some input", "err\n"))

    def test_is_replaced_by_the_command_and_so_gets_its_signals(self):
        process = self.spawn_in("hostA", "sleep", "60")
        comm = pathlib.Path(f"/proc/{process.pid}/comm")
        self.assertTrue(wait_until(lambda: comm.read_text() == "sleep\n"))
        self.assertEqual(os.getsid(process.pid), os.getsid(0))
        self.assertEqual(os.getpgid(process.pid), os.getpgid(0))
        process.send_signal(signal.SIGUSR1)
        self.assertEqual(process.wait(), -signal.SIGUSR1)

    def test_keeps_folder_and_environment(self):
        result = self.run_in("hostA", "sh", "-c", "pwd; env | grep -v -e ^PATH -e ^PWD -e ^_=",
                             cwd="/usr/share", env={"X": "1", "PATH": os.environ["PATH"]})
        self.assertEqual(result.stdout, "/usr/share\nX=1\n")
        folder = tempfile.mkdtemp(dir="/tmp")
        self.addCleanup(os.rmdir, folder)
        self.assertEqual(self.run_in("hostA", "pwd", cwd=folder).stdout, "/\n")

    def test_finds_the_tools_first(self):
        path = self.run_in("hostA", "sh", "-c", "echo $PATH; command -v testbed").stdout.split()
        self.assertEqual(path[0].split(":")[0], os.path.dirname(TESTBED))
        self.assertEqual(path[1], TESTBED)

    def test_leaves_the_commands_own_dashes_alone(self):
        self.assertEqual(self.run_in("hostA", "echo", "--", "--json", "-x").stdout,
                         "-- --json -x\n")

    def test_says_what_is_wrong(self):
        for arguments, status, words in [
                (["exec", "hostQ", "--", "true"], 2, "hostQ"),
                (["exec", "hostA"], 2, "usage"),
                (["exec", "hostA", "--"], 2, "usage"),
                (["exec", "hostA", "--", "no-such-command"], 127, "no-such-command"),
                (["exec", "hostA", "--", "/etc/passwd"], 126, "/etc/passwd"),
                (["restart", "hostQ"], 2, "hostQ"),
                (["restart", "hostA"], 1, "--no-daemon"),
                (["frobnicate"], 2, ""),
                (["up", "27"], 2, ""),
                (["up"], 1, "down")]:
            result = self.call(*arguments, check=False)
            self.assertEqual(result.returncode, status, f"{arguments}: {result.stderr}")
            self.assertIn(words, result.stdout + result.stderr)
        for name in ["no-such-testbed", "../etc", ""]:
            result = subprocess.run([TESTBED, f"--name={name}", "exec", "hostA", "--", "true"],
                                    capture_output=True, text=True, check=False)
            self.assertEqual(result.returncode, 2, result.stderr)


class Daemons(TestbedCase):
    def test_run_in_sessions_of_their_own(self):
        self.up()
        for host in self.hosts():
            pid, session = self.run_in(host["name"], "cat", "/var/lib/migrate/session").stdout.split()
            self.assertEqual(int(pid), host["daemon_pid"])
            self.assertEqual(pid, session)
            log = pathlib.Path(host["log"]).read_text()
            self.assertIn(f"fake migrated on {host['name']}", log)
            self.assertIn(f"listen='tcp://{host['address']}:7070', "
                          "allow=['*@*', 'root@*'], insecure=True", log)

    def test_restart_and_kill(self):
        self.up(2, "--daemon-arg=--stubborn")
        first = [host["daemon_pid"] for host in self.hosts()]
        self.call("restart", "hostA")
        second = [host["daemon_pid"] for host in self.hosts()]
        self.assertNotEqual(first[0], second[0])
        self.assertEqual(first[1], second[1])
        self.call("kill-daemon", "hostB")
        self.assertIsNone(self.hosts()[1]["daemon_pid"])
        self.call("kill-daemon", "hostB")
        self.call("restart", "hostB")
        self.assertTrue(self.hosts()[1]["daemon_pid"])
        self.assertIn("stubborn=True", pathlib.Path(self.hosts()[1]["log"]).read_text())

    def test_supervised_ones_come_again_unless_ended_on_purpose(self):
        self.up(2, "--supervise")
        first = self.hosts()[0]["daemon_pid"]
        os.kill(first, signal.SIGKILL)
        end = time.monotonic() + 10
        while self.hosts()[0]["daemon_pid"] in (None, first) and time.monotonic() < end:
            time.sleep(0.05)
        second = self.hosts()[0]["daemon_pid"]
        self.assertNotIn(second, (None, first))
        self.call("kill-daemon", "hostA")
        time.sleep(1)
        self.assertIsNone(self.hosts()[0]["daemon_pid"])
        self.call("restart", "hostA")
        self.assertNotIn(self.hosts()[0]["daemon_pid"], (None, first, second))

    def test_that_fails_fails_up_and_leaves_nothing(self):
        result = self.call("up", "--migrated", FAKE, "--daemon-arg=--fail", check=False)
        self.assertEqual(result.returncode, 1)
        self.assertIn("failing as told", result.stderr)
        self.assertFalse((STATES / self.name).exists())
        self.assertEqual(mounts(self.name), [])

    def test_absent(self):
        result = self.call("up", "--migrated", "/no/such/migrated", check=False)
        self.assertEqual(result.returncode, 2)
        self.call("up", "--no-daemon")
        self.assertIsNone(self.hosts()[0]["daemon_pid"])


class Down(TestbedCase):
    def test_leaves_nothing(self):
        folder = tempfile.mkdtemp(dir="/var/tmp")
        self.addCleanup(os.rmdir, folder)
        self.up(3, "--overlay", folder)
        made = {path.stat().st_ino for path in (STATES / self.name).glob("*/net")}
        self.assertEqual(len(made), 4)
        self.assertEqual(len(made & network_namespaces()), 3)
        self.call("down")
        self.assertEqual(mounts(self.name), [])
        self.assertEqual(made & network_namespaces(), set())
        self.assertFalse((STATES / self.name).exists())
        self.call("down")

    def test_ends_every_process_inside(self):
        self.up(2, "--daemon-arg=--stubborn")
        stubborn = self.spawn_in("hostA", "sh", "-c", "trap '' TERM; echo; while :; do sleep 1; done")
        stopped = self.spawn_in("hostB", "sh", "-c", "echo; kill -STOP $$")
        nested = self.spawn_in("hostB", "unshare", "--pid", "--fork", "--mount-proc",
                               "sh", "-c", "echo; sleep 600 & wait")
        unlinked = self.spawn_in("hostA", "unshare", "--net", "sh", "-c", "echo; exec sleep 600")
        for process in [stubborn, stopped, nested, unlinked]:
            process.stdout.readline()
        self.assertGreaterEqual(self.hosts()[0]["processes"], 2)
        self.call("down")
        self.assertEqual(stubborn.wait(), -signal.SIGKILL)
        self.assertEqual(stopped.wait(), -signal.SIGKILL)
        nested.wait()
        self.assertEqual(unlinked.wait(), -signal.SIGTERM)

    def test_after_a_killed_up(self):
        for delay in [0.002, 0.005, 0.01, 0.02, 0.04]:
            process = subprocess.Popen([TESTBED, "--name", self.name, "up", "6",
                                        "--migrated", str(FAKE)], stderr=subprocess.DEVNULL)
            time.sleep(delay)
            process.kill()
            process.wait()
            self.call("down")
            self.assertFalse((STATES / self.name).exists())
        self.up()

    def test_nothing_leaks_to_the_machine(self):
        name, links = os.uname().nodename, os.listdir("/sys/class/net")
        hosts = pathlib.Path("/etc/hosts").read_text()
        self.up()
        self.assertEqual(os.uname().nodename, name)
        self.assertEqual(os.listdir("/sys/class/net"), links)
        self.assertEqual(pathlib.Path("/etc/hosts").read_text(), hosts)
        self.assertTrue(all("/run/migrate-testbed" in line for line in mounts(self.name)))


if __name__ == "__main__":
    TESTBED = os.path.realpath(sys.argv.pop(1))
    if os.geteuid() != 0:
        sys.exit("testbed_test needs root")
    unittest.main()
