#!/usr/bin/python3
"""What ordinary programs have of themselves goes with them, there and back, lazy and eager: paths,
files of their own folder of /proc, a pidfd; and handlers learn who has sent a signal."""

import os
import signal
import subprocess
import unittest

import harness
from faithful_test import FaithfulCase, codes
from harness import DONE, Testbed, wait_until

MODES = ("lazy", "eager")


class TravelCase(FaithfulCase):
    def travels(self, prepare, check, prefix=()):
        """A program goes to hostB and back, and finds there each time what `check` says."""
        for mode in MODES:
            with self.subTest(mode=mode):
                text = f"{check}\nprint('checked', flush=True)"
                process = self.start(prepare, prefix=prefix, change="".join(
                    f"\nwait_for(go)\nos.unlink(go)\n{text}" for _ in range(2)))
                for number, destination in enumerate(("hostB", "hostA"), 1):
                    outcome = self.testbed.move("hostA", process.pid, destination, mode)
                    self.assertEqual(outcome.status, DONE, f"{outcome}\n{self.testbed.logs()}")
                    process.go_file.touch()
                    self.assertTrue(wait_until(
                        lambda: process.output.count(b"checked\n") >= number
                        or process.popen.poll() is not None), self.testbed.logs())
                    self.assertEqual(process.output.count(b"checked\n"), number,
                                     bytes(process.output))
                self.ends_well(process)

    # The first line of the change waits for the file once more than is needed: see PROGRAM.
    def start(self, prepare, *words, change="", prefix=()):
        lines = change.split("\n")
        at = next((i for i, line in enumerate(lines) if line == "wait_for(go)"), None)
        if at is not None:
            del lines[at]
        return super().start(prepare, *words, change="\n".join(lines), prefix=prefix)

    def moves_and_tells(self, testbed, process, code, is_lost):
        """A process is moved; whether the loss `code` is told, before and then, is as it should be."""
        checked = testbed.control("hostA", "check", process.pid, "--to", "hostB")
        self.assertEqual(checked.status, DONE, checked)
        self.assertEqual(code in codes(checked.object["losses"]), is_lost, checked)
        moved = testbed.move("hostA", process.pid, "hostB")
        self.assertEqual(moved.status, DONE, moved)
        self.assertEqual(code in codes(moved.object["losses"]), is_lost, moved)


class Travels(TravelCase):
    def test_paths(self):
        self.travels("folder = os.open('/usr', os.O_PATH); name = os.open('/etc/passwd', os.O_PATH)",
                     "assert os.stat('bin', dir_fd=folder).st_ino == os.stat('/usr/bin').st_ino\n"
                     "assert os.fstat(name).st_ino == os.stat('/etc/passwd').st_ino\n"
                     "assert fcntl.fcntl(name, fcntl.F_GETFL) & os.O_PATH")

    def test_files_of_proc(self):
        self.travels(
            "status = open('/proc/self/status'); maps = open('/proc/self/maps', 'rb', 0)\n"
            "memory = os.open('/proc/meminfo', os.O_RDONLY)\n"
            "folder = os.open('/proc/self', os.O_RDONLY); status.read(10)",
            "status.seek(0)\n"
            "assert f'Pid:\\t{os.getpid()}\\n' in status.read()\n"
            "maps.seek(0)\n"
            "assert b'[stack]' in maps.read()\n"
            "assert os.pread(memory, 8, 0) == b'MemTotal'\n"
            "assert 'status' in os.listdir(folder)")

    def test_as_a_user(self):
        self.travels("maps = open('/proc/self/maps', 'rb', 0); own = os.pidfd_open(os.getpid())",
                     "maps.seek(0)\nassert b'[stack]' in maps.read()\n"
                     "import signal\nsignal.pidfd_send_signal(own, 0)",
                     prefix=["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups"])

    def test_pidfd(self):
        self.travels(
            "import signal\nown = os.pidfd_open(os.getpid())\n"
            "signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGUSR2])",
            "signal.pidfd_send_signal(own, signal.SIGUSR2)\n"
            "assert signal.sigtimedwait([signal.SIGUSR2], 5).si_pid == os.getpid()")

    def test_names_that_are_no_text(self):
        """Linux takes any bytes as names of files, folders and threads."""
        self.travels(
            "folder = os.fsencode(stop) + b'.\\xe9t\\xe9'; os.mkdir(folder); os.chdir(folder)\n"
            "path = folder + b'/caf\\xe9'\n"
            "with open(path, 'wb') as file: file.write(b'x' * 5000)\n"
            "opened = open(path, 'rb')\n"
            "mapped = mmap.mmap(opened.fileno(), 5000, mmap.MAP_PRIVATE, mmap.PROT_READ)\n"
            "libc = ctypes.CDLL(None); libc.prctl(15, b'\\xe9t\\xe9', 0, 0, 0)",
            "assert opened.read(1) == b'x' and mapped[4999] == ord('x')\n"
            "assert os.getcwdb() == folder, os.getcwdb()\n"
            "assert open('/proc/self/comm', 'rb').read() == b'\\xe9t\\xe9\\n'")

    def test_watches(self):
        prepare = ("folder = stop + '.folder'; os.mkdir(folder)\n"
                   "libc = ctypes.CDLL(None); watch = libc.inotify_init1(os.O_NONBLOCK)\n"
                   "assert libc.inotify_add_watch(watch, b'/usr', 0x100) == 1\n"
                   "assert libc.inotify_add_watch(watch, folder.encode(), 0x100) == 2")
        check = ("name = os.path.join(folder, 'new')\n"
                 "os.close(os.open(name, os.O_CREAT)); os.unlink(name)\n"
                 "event = os.read(watch, 4096)\n"
                 "assert event[:8] == b'\\2\\0\\0\\0\\0\\1\\0\\0' and event[16:19] == b'new', event")
        for prefix in ([], Senders.AS_NOBODY):
            self.travels(prepare, check, prefix)

    def test_events_that_wait(self):
        process = self.start("folder = stop + '.folder'; os.mkdir(folder)\n"
                             "libc = ctypes.CDLL(None); watch = libc.inotify_init1(0)\n"
                             "libc.inotify_add_watch(watch, folder.encode(), 0x100)\n"
                             "open(folder + '/new', 'w').close()",
                             change="os.read(watch, 4096)\nprint('read', flush=True)")
        self.refused(process, "INOTIFY_EVENTS")
        process.go_file.touch()
        self.assertTrue(process.wait_output(b"read"))
        self.moves(process)
        self.ends_well(process)


class PseudoTerminals(TravelCase):
    """Both sides of which the process has."""

    PREPARE = ("import signal, struct, termios, threading\n"
               "master, slave = os.openpty(); name = os.ttyname(slave)\n"
               "os.set_blocking(master, False); os.set_blocking(slave, False)\n"
               "def hear(fd):\n"
               "    import select\n"
               "    return os.read(fd, 10000) if select.select([fd], [], [], 0)[0] else b''\n")

    def test_what_waits_and_modes(self):
        prepare = (self.PREPARE +
                   "fcntl.ioctl(master, termios.TIOCSWINSZ, struct.pack('4H', 33, 99, 1, 2))\n"
                   "modes = termios.tcgetattr(slave); modes[6][termios.VKILL] = b'k'\n"
                   "termios.tcsetattr(slave, termios.TCSANOW, modes)\n"
                   "os.fchmod(slave, 0o640); before = os.fstat(slave)\n"
                   "def fill(): os.write(slave, b'said\\n'); os.write(master, b'typed\\nha')\n"
                   "fill()")
        check = ("assert os.ttyname(slave) == name and os.stat(name).st_mode & 0o777 == 0o640\n"
                 "assert os.stat(name).st_uid == before.st_uid == os.fstat(slave).st_uid\n"
                 "assert termios.tcgetattr(slave) == modes, termios.tcgetattr(slave)\n"
                 "size = fcntl.ioctl(slave, termios.TIOCGWINSZ, bytes(8))\n"
                 "assert struct.unpack('4H', size) == (33, 99, 1, 2)\n"
                 "heard = hear(master); assert heard == b'said\\r\\ntyped\\r\\nha', heard\n"
                 "heard = hear(slave); assert heard == b'typed\\n', heard\n"
                 "os.write(master, b'klf\\n')\n"  # The line that was begun is edited.
                 "heard = hear(slave); assert heard == b'lf\\n', heard\n"
                 "hear(master); os.close(os.open(name, os.O_RDWR | os.O_NOCTTY)); fill()")
        for prefix in ([], Senders.AS_NOBODY):
            self.travels(prepare, check, prefix)

    def test_somebody_waits_for_output(self):
        """As programs do that talk to others by a terminal (expect)."""
        self.travels(
            self.PREPARE + "os.set_blocking(master, True); lines = []\n"
            "def read():\n"
            "    while True: lines.append(os.read(master, 100))\n"
            "threading.Thread(target=read, daemon=True).start()",
            "lines.clear(); os.write(slave, b'here\\n')\n"
            "end = time.monotonic() + 20\n"
            # The kernel may pass it on in pieces.
            "while not b''.join(lines).endswith(b'\\n') and time.monotonic() < end: time.sleep(0.01)\n"
            "assert b''.join(lines) == b'here\\r\\n', lines")

    def test_of_its_own_session(self):
        """Its ^C comes to the process, and no hang-up does when its old one is closed."""
        self.travels(
            self.PREPARE + "fcntl.ioctl(slave, termios.TIOCSCTTY, 0); got = []\n"
            "def own_session(): return struct.unpack('i', fcntl.ioctl(slave, 0x5429, bytes(4)))[0]\n"
            "for number in (signal.SIGINT, signal.SIGHUP, signal.SIGCONT):\n"
            "    signal.signal(number, lambda number, frame: got.append(number))",
            "assert os.tcgetpgrp(slave) == os.getpgrp() and own_session() == os.getsid(0)\n"
            "os.close(os.open('/dev/tty', os.O_RDWR))\n"
            "os.write(master, b'\\x03'); end = time.monotonic() + 20\n"
            "while not got and time.monotonic() < end: time.sleep(0.01)\n"
            "assert got == [signal.SIGINT], got\n"
            "got.clear(); hear(master)")

    def test_the_other_side_is_closed(self):
        self.travels(self.PREPARE + "os.write(slave, b'last'); os.close(slave)",
                     "import select; poll = select.poll(); poll.register(master, 0)\n"
                     "assert poll.poll(0) == [(master, select.POLLHUP)]\n"
                     "assert os.read(master, 100) == b'last'\n"
                     "slave = os.open(name, os.O_RDWR | os.O_NOCTTY)\n"
                     "os.write(slave, b'last'); os.close(slave)")

    def test_a_child_has_the_other_side(self):
        process = self.start("import pty, signal\npid, master = pty.fork()\n"
                             "if pid == 0:\n    signal.pause()")
        self.refused(process, "CHILDREN", "TERMINAL_PAIR")
        self.ends_well(process)


class Senders(FaithfulCase):
    """si_pid and si_uid are those of the sender at home."""

    RECEIVE = """
import signal
signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGUSR1])
print("ready", flush=True)
while not os.path.exists(stop):
    info = signal.sigtimedwait([signal.SIGUSR1], 0.02)
    if info:
        print("got", info.si_code, info.si_pid, info.si_uid, flush=True)
"""
    AS_NOBODY = ["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups"]

    def got(self, process, sender):
        process.output.clear()
        sender()
        self.assertTrue(process.wait_output(b"got"), self.testbed.logs())
        self.assertTrue(wait_until(lambda: process.output.endswith(b"\n")))
        return process.output.decode().split()

    def test_there_and_at_home_again(self):
        for prefix in ([], self.AS_NOBODY):
            process = self.start(self.RECEIVE, prefix=prefix)
            for destination in ("hostB", "hostA"):
                self.moves_to(process, destination)
                for _ in range(3):
                    said = self.got(process, lambda: os.kill(process.pid, signal.SIGUSR1))
                    self.assertEqual(said, ["got", "0", str(os.getpid()), "0"])
            self.ends_well(process)

    def moves_to(self, process, destination):
        outcome = self.testbed.move("hostA", process.pid, destination)
        self.assertEqual(outcome.status, DONE, f"{outcome}\n{self.testbed.logs()}")

    def test_of_another_user(self):
        process = self.start(self.RECEIVE, prefix=self.AS_NOBODY)
        self.moves_to(process, "hostB")
        sender = self.testbed.start("hostA", *self.AS_NOBODY, "kill", "-USR1", process.pid)
        self.assertTrue(process.wait_output(b"got"), self.testbed.logs())
        self.assertTrue(wait_until(lambda: process.output.endswith(b"\n")))
        self.assertEqual(process.output.decode().splitlines()[-1],
                         f"got 0 {sender.pid} 65534")
        self.ends_well(process)


AS_LOGIN = ["sh", "-c", 'echo "$0" >/proc/self/loginuid && exec "$@"']


def login_can_be_set():
    process = subprocess.run([*AS_LOGIN, "1000", "cat", "/proc/self/loginuid"], check=False,
                             capture_output=True, text=True)
    return process.stdout == "1000"


@unittest.skipUnless(login_can_be_set(), "this kernel lets nobody say who has logged in")
class Logins(TravelCase):
    """The audit log goes on to name who has logged in."""

    CHECK = "assert open('/proc/self/loginuid').read() == '{}'"

    def test_of_any_user(self):
        self.travels("", self.CHECK.format(1000), prefix=[*AS_LOGIN, "1000"])

    def test_is_no_loss(self):
        process = self.start("", prefix=[*AS_LOGIN, "1000"])
        checked = self.testbed.control("hostA", "check", process.pid, "--to", "hostB")
        self.assertNotIn("LOGIN", codes(checked.object["losses"]))
        self.ends_well(process)

    def test_of_users_from_a_host_that_may_bring_no_root(self):
        with Testbed(2) as testbed:
            testbed.command("kill-daemon", "hostB", check=True)
            daemon = testbed.start("hostB", "migrated", "--listen", "tcp://10.213.0.2:7070",
                                   "--insecure", "--allow", "*@*")
            self.assertTrue(wait_until(lambda: testbed.run("hostB", "migratectl", "ps").status
                                       == DONE), bytes(daemon.output))
            for login, is_lost in ((65534, False), (1000, True)):
                process = testbed.start_keeper("hostA", prefix=[
                    *AS_LOGIN, str(login), *Senders.AS_NOBODY])
                self.moves_and_tells(testbed, process, "LOGIN", is_lost)
                there = next(each["pid"] for each in
                             testbed.control("hostB", "ps").object["processes"]
                             if each["state"] == "running-here")
                with open(f"/proc/{there}/loginuid") as file:
                    self.assertEqual(file.read(), "4294967295" if is_lost else str(login))
                self.assertEqual(harness.finish(process), "")
                self.assertTrue(wait_until(lambda: not [
                    each for each in testbed.control("hostB", "ps").object["processes"]
                    if each["state"] == "running-here"]))


class BoundingSets(TravelCase):
    """Nobody can give what he has not, so that a daemon without a capability takes it from them."""

    def test_what_the_daemon_has_not_is_told(self):
        with Testbed(2) as testbed:
            testbed.command("kill-daemon", "hostB", check=True)
            daemon = testbed.start("hostB", "setpriv", "--bounding-set=-sys_nice", "--inh-caps=-sys_nice",
                                   harness.BIN / "migrated", "--listen", "tcp://10.213.0.2:7070",
                                   "--insecure", "--allow", "*@*")
            self.assertTrue(wait_until(lambda: testbed.run("hostB", "migratectl", "ps").status
                                       == DONE), bytes(daemon.output))
            for prefix, is_lost in (((), True), (("setpriv", "--bounding-set=-sys_nice"), False)):
                process = testbed.start_keeper("hostA", prefix=[*prefix, *Senders.AS_NOBODY])
                self.moves_and_tells(testbed, process, "BOUNDING_SET", is_lost)
                self.assertEqual(harness.finish(process), "")


class Changing(FaithfulCase):
    """What a program does all the time is no refusal that comes and goes."""

    def test_one_that_walks_a_tree(self):
        process = self.start(
            "import threading\n"
            "def walk():\n"
            "    while True:\n"
            "        for root, dirs, files in os.walk('/usr/share/doc'):\n"
            "            os.chdir(root)\n"
            "            with open('/usr/bin/env', 'rb') as one: one.read(1)\n"
            "            os.close(os.open(root, os.O_RDONLY))\n"
            "threading.Thread(target=walk, daemon=True).start()")
        for _ in range(30):
            outcome = self.testbed.control("hostA", "check", process.pid)
            self.assertEqual(outcome.status, DONE, outcome)
        self.moves(process)
        self.ends_well(process)


if __name__ == "__main__":
    harness.main()
