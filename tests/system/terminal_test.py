#!/usr/bin/python3
"""Terminals of moved programs: the user's terminal is a pseudo-terminal that the test types into."""

import errno
import fcntl
import os
import pathlib
import pty
import re
import select
import shutil
import signal
import struct
import sys
import termios
import time
import unittest

import harness
from harness import DONE, MODES, wait_until

PYTHON = "/usr/bin/python3"
PATIENCE = 40

# Answers questions about its terminal, one a line.
SUBJECT = r"""
import fcntl, os, signal, struct, sys, termios
def size():
    return "%d %d" % struct.unpack("HHHH", fcntl.ioctl(0, termios.TIOCGWINSZ, b"\0" * 8))[:2]
def told(number, frame):
    print("signal", number, size() if number == signal.SIGWINCH else "", flush=True)
for number in (signal.SIGINT, signal.SIGQUIT, signal.SIGWINCH, signal.SIGHUP):
    signal.signal(number, told)
print("pid", os.getpid(), "ready", flush=True)
while True:
    line = sys.stdin.readline()
    if not line:
        print("end of file", flush=True)
        sys.exit(7)
    word = line.strip()
    if word == "tty":
        with open("/dev/tty", "w") as terminal:
            same = os.ttyname(0) == os.ttyname(1)
            terminal.write("isatty %s %s %s\n" % (os.isatty(0), os.isatty(terminal.fileno()), same))
        with open("/dev/stdout", "w") as again:
            again.write("reopened %s\n" % os.isatty(again.fileno()))
    elif word == "size":
        print("size", size(), flush=True)
    elif word == "groups":
        print("group", os.tcgetpgrp(0) == os.getpgrp(), os.getpid() == os.getpgrp(), flush=True)
    elif word == "raw":
        before = termios.tcgetattr(0)
        mode = termios.tcgetattr(0)
        mode[3] &= ~(termios.ICANON | termios.ECHO | termios.ISIG)
        mode[0] &= ~termios.ICRNL
        termios.tcsetattr(0, termios.TCSANOW, mode)
        print("raw now", flush=True)
        seen = b""
        while not seen.endswith(b"q"):
            seen += os.read(0, 100)
        print("raw got", seen.hex(), flush=True)
        termios.tcsetattr(0, termios.TCSANOW, before)
        print("cooked now", flush=True)
    elif word == "exit":
        print("bye", flush=True)
        sys.exit(42)
    else:
        print("got", repr(word), flush=True)
"""


class Terminal:
    """A user's terminal, with a program (or a shell) on it as the leader of its session."""

    def __init__(self, testbed, command, env=None):
        self.testbed = testbed
        self.screen = b""
        self.place = 0
        self.status = None
        environment = dict(os.environ, TERM="xterm", PS1="$ ", **(env or {}))
        self.pid, self.master = pty.fork()
        if self.pid == 0:
            try:
                os.chdir(testbed.work)
                os.closerange(3, 1024)  # What ctest has open is nobody's of the test.
                os.execvpe(command[0], command, environment)
            finally:
                os._exit(127)
        os.set_inheritable(self.master, False)
        self.resize(24, 80)

    def resize(self, rows, columns):
        fcntl.ioctl(self.master, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))

    def type(self, text):
        os.write(self.master, text if isinstance(text, bytes) else text.encode())

    def read(self, seconds=0.05):
        ready, _, _ = select.select([self.master], [], [], seconds)
        if not ready:
            return False
        try:
            data = os.read(self.master, 65536)
        except OSError as error:
            if error.errno != errno.EIO:
                raise
            data = b""
        self.screen += data
        return bool(data)

    def expect(self, pattern, seconds=PATIENCE):
        """Waits until the screen shows `pattern` (bytes) behind what was expected last."""
        end = time.monotonic() + seconds
        while True:
            found = re.search(pattern, self.screen[self.place:], re.DOTALL)
            if found:
                self.place += found.end()
                return found
            if time.monotonic() > end:
                raise AssertionError(f"{pattern} is not shown: {self.screen[self.place:][-1500:]}\n"
                                     + self.testbed.logs(25))
            self.read()

    def expect_told(self, pattern, typed="\r", seconds=PATIENCE):
        """As `expect` of what is told only of what is typed at the right moment: a shell of its
        jobs before it prompts anew, a prompt of ^C once its line runs."""
        end = time.monotonic() + seconds
        while not re.search(pattern, self.screen[self.place:], re.DOTALL):
            if time.monotonic() > end:
                break
            self.type(typed)
            for _ in range(10):
                self.read(0.1)
        return self.expect(pattern, 1)

    def expect_foreground(self, group):
        if not wait_until(lambda: os.tcgetpgrp(self.master) == group, PATIENCE):
            raise AssertionError(f"{group} is not in the foreground")

    def modes(self):
        return termios.tcgetattr(self.master)

    def wait(self, seconds=PATIENCE):
        """The exit status of the program, all of whose output is on the screen then."""
        def ended():
            self.read(0.01)
            pid, status = os.waitpid(self.pid, os.WNOHANG)
            if pid:
                self.status = os.waitstatus_to_exitcode(status)
            return self.status is not None
        wait_until(ended, seconds)
        while self.status is not None and self.read(0.01):
            pass
        return self.status

    def close(self):
        if self.status is None:
            try:
                os.kill(self.pid, signal.SIGKILL)
                os.waitpid(self.pid, 0)
            except (ProcessLookupError, ChildProcessError):
                pass
        os.close(self.master)


class TerminalTest(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.testbed = harness.Testbed(3)
        (cls.testbed.work / "subject.py").write_text(SUBJECT)

    @classmethod
    def tearDownClass(cls):
        cls.testbed.down()

    def open(self, *command, **options):
        terminal = Terminal(self.testbed, [str(word) for word in command], **options)
        self.addCleanup(terminal.close)
        return terminal

    def words(self, *command):
        return self.testbed.words("hostA", *command)

    def start_subject(self):
        """The subject, in a shell with job control: (terminal, pid)."""
        terminal = self.open(*self.words("bash", "--norc", "-i"))
        terminal.expect(rb"\$ ")
        terminal.type(f"{PYTHON} subject.py\r")
        found = terminal.expect(rb"pid (\d+) ready")
        return terminal, int(found[1])

    def move(self, pid, host, mode="lazy", wait="done"):
        outcome = self.testbed.move("hostA", pid, host, mode, wait)
        self.assertEqual(outcome.status, DONE, f"{outcome}\n{self.testbed.logs()}")

    def end(self, terminal):
        """The subject ends, and the shell has the terminal as before."""
        terminal.type("exit\r")
        terminal.expect(rb"bye\r\n.*\$ ")
        terminal.type("echo status $? $((3 * 4))\r")
        terminal.expect(rb"status 42 12\r\n")

    def check_terminal(self, terminal):
        terminal.type("tty\r")
        terminal.expect(rb"isatty True True True\r\n")
        terminal.expect(rb"reopened True\r\n")
        terminal.type("groups\r")
        terminal.expect(rb"group True True\r\n")

    def test_it_is_a_terminal_there_onward_and_back(self):
        for mode in MODES:
            with self.subTest(mode=mode):
                terminal, pid = self.start_subject()
                self.check_terminal(terminal)
                for number, host in enumerate(("hostB", "hostC", "hostA")):
                    self.move(pid, host, mode, "resumed" if mode == "demand" else "done")
                    self.check_terminal(terminal)
                    terminal.resize(30 + number, 100)
                    terminal.expect(b"signal 28 %d 100\r\n" % (30 + number))
                    terminal.type("size\r")
                    terminal.expect(b"size %d 100\r\n" % (30 + number))
                self.end(terminal)

    def test_interrupt_and_quit(self):
        terminal, pid = self.start_subject()
        self.move(pid, "hostB")
        terminal.type("\x03")
        terminal.expect(rb"signal 2 \r\n")
        terminal.type("\x1c")
        terminal.expect(rb"signal 3 \r\n")
        terminal.type("some\r")
        terminal.expect(rb"got 'some'\r\n")
        self.end(terminal)

    def test_stop_and_go_on(self):
        terminal, pid = self.start_subject()
        for host in ("hostB", "hostA"):
            self.move(pid, host)
            terminal.type("a\r")
            terminal.expect(rb"got 'a'\r\n")
            terminal.type("\x1a")
            terminal.expect(rb"Stopped.*\$ ")
            terminal.type("echo shell $((6 * 7))\r")
            terminal.expect(rb"shell 42\r\n.*\$ ")
            terminal.type("fg\r")
            terminal.expect(rb"subject.py\r\n")
            terminal.type("b\r")
            terminal.expect(rb"got 'b'\r\n")
            terminal.type("\x1a")
            terminal.expect(rb"Stopped.*\$ ")
            terminal.type("bg\r")  # It reads from the background, and is stopped for that.
            terminal.expect(rb"\$ ")
            terminal.expect_told(rb"Stopped.*subject")
            terminal.type("fg\r")
            terminal.expect(rb"subject.py\r\n")
            terminal.expect_foreground(pid)  # The shell says so before it does.
            terminal.type("\x03")
            terminal.expect(rb"signal 2 \r\n")
        self.end(terminal)

    def test_modes(self):
        terminal, pid = self.start_subject()
        self.move(pid, "hostB")
        terminal.type("raw\r")
        terminal.expect(rb"raw now")
        terminal.type("\x03\r\x1a")
        self.move(pid, "hostC")
        terminal.type("\x04q")
        terminal.expect(rb"raw got 030d1a0471\r\n")
        terminal.expect(rb"cooked now")
        terminal.type("line\r")
        terminal.expect(rb"got 'line'\r\n")
        self.end(terminal)
        terminal.type(f"{PYTHON} subject.py\r")
        pid = int(terminal.expect(rb"pid (\d+) ready")[1])
        terminal.type("raw\r")
        terminal.expect(rb"raw now")
        self.move(pid, "hostB")
        terminal.type("\x03q")
        terminal.expect(rb"raw got 0371\r\n")
        terminal.type("exit\r")
        terminal.expect(rb"bye\r\n.*\$ ")
        terminal.type("stty -a; echo end\r")
        shown = terminal.expect(rb"speed.*\nend\r\n")[0]
        self.assertLessEqual({b"icanon", b"echo", b"isig", b"icrnl", b"opost"}, set(shown.split()))

    @staticmethod
    def read_lines(terminal):
        """What the program says to have read; a terminal's echo may be in the midst of that."""
        while terminal.read():
            pass
        said = re.sub(rb"(?<!')line \d \d\r\n", b"", terminal.screen)
        return re.findall(rb"got '(.*?)'\r\n", said)

    def test_typed_ahead(self):
        """What is typed during moves comes once and in order; what nobody read is the shell's."""
        terminal, pid = self.start_subject()
        for number, host in enumerate(("hostB", "hostC", "hostA", "hostB")):
            mover = self.testbed.start("hostA", "migratectl", "move", pid, host, "--wait", "resumed",
                                       "--retry", "10")
            for line in range(10):
                terminal.type(f"line {number} {line}\r")
                time.sleep(0.01)  # A person's pace: the move is at another step for each.
            self.assertEqual(mover.wait(), DONE, bytes(mover.output))
            wait_until(lambda: len(self.read_lines(terminal)) > 9 + number * 10, 20)
            self.assertEqual(self.read_lines(terminal),
                             [b"line %d %d" % (turn, line) for turn in range(number + 1)
                              for line in range(10)], terminal.screen)
        terminal.type("exit\recho ahead $((2 * 4))\r")
        terminal.expect(rb"bye\r\n")
        terminal.expect(rb"ahead 8\r\n")

    def test_dev_tty_beside_standard_input(self):
        (self.testbed.work / "tty2.py").write_text(
            'import os\n'
            't = open("/dev/tty")\n'
            'print("pid", os.getpid(), "ready", flush=True)\n'
            'for i in range(6):\n'
            '    print("GOT", i, repr(t.readline()), os.isatty(0), flush=True)\n')
        terminal = self.open(*self.words("bash", "--norc", "-i"))
        terminal.expect(rb"\$ ")
        terminal.type(f"{PYTHON} tty2.py\r")
        pid = int(terminal.expect(rb"pid (\d+) ready")[1])
        self.move(pid, "hostB")
        for number in range(6):
            terminal.type(f"line {number}\r")
            terminal.expect(b"GOT %d 'line %d\\\\n' True\r\n" % (number, number))
        terminal.expect(rb"\$ ")

    def test_end_of_file_and_hang_up(self):
        terminal, pid = self.start_subject()
        self.move(pid, "hostB")
        terminal.type("\x04")
        terminal.expect(rb"end of file\r\n.*\$ ")
        terminal.type("echo status $?\r")
        terminal.expect(rb"status 7\r\n")
        log = self.testbed.new_path("hangup")
        (self.testbed.work / "hangup.py").write_text(
            "import os, signal, sys\n"
            "def told(number, frame):\n"
            f"    open({str(log)!r}, 'w').write('hung up')\n"
            "    os._exit(0)\n"
            "signal.signal(signal.SIGHUP, told)\n"
            "print('pid', os.getpid(), 'ready', flush=True)\n"
            "while True:\n"
            "    signal.pause()\n")
        other = self.open(*self.words(PYTHON, "hangup.py"))
        pid = int(other.expect(rb"pid (\d+) ready")[1])
        self.move(pid, "hostB")
        os.close(other.master)
        other.master = os.open("/dev/null", os.O_RDWR)
        self.assertTrue(wait_until(log.exists, PATIENCE), self.testbed.logs())

    def test_session_leader(self):
        """As in a window of its own, where no shell is between."""
        terminal = self.open(*self.words(PYTHON, "subject.py"))
        pid = int(terminal.expect(rb"pid (\d+) ready")[1])
        self.move(pid, "hostB")
        self.check_terminal(terminal)
        terminal.type("\x03")
        terminal.expect(rb"signal 2 \r\n")
        terminal.type("exit\r")
        terminal.expect(rb"bye\r\n")
        self.assertEqual(terminal.wait(), 42)

    def test_python_prompt(self):
        for mode in MODES:
            with self.subTest(mode=mode):
                terminal = self.open(*self.words("bash", "--norc", "-i"))
                terminal.expect(rb"\$ ")
                terminal.type(f"{PYTHON} -q\r")
                terminal.expect(rb">>> ")
                terminal.type("import os; print('pid', os.getpid())\r")
                pid = int(terminal.expect(rb"pid (\d+)\r\n.*>>> ")[1])
                for host in ("hostB", "hostA"):
                    self.move(pid, host, mode, "resumed" if mode == "demand" else "done")
                    terminal.type("6 * 7\r")
                    terminal.expect(rb"42\r\n.*>>> ")
                    terminal.type("wrong\x15input('name? ')\r")
                    terminal.expect(rb"name\? ")
                    terminal.type("me\r")
                    terminal.expect(rb"'me'\r\n.*>>> ")
                    terminal.type("while True: pass\r\r")
                    terminal.expect(rb"\.\.\. ")
                    terminal.expect_told(rb"KeyboardInterrupt.*>>> ", "\x03")
                terminal.type("\x04")
                terminal.expect(rb"\$ ")
                terminal.type("stty -a; echo end\r")
                self.assertIn(b"icanon", terminal.expect(rb"speed.*\nend\r\n")[0].split())

    def test_shell(self):
        """A shell that was moved has its own jobs there, and ^C and ^Z reach them."""
        terminal = self.open(*self.words("bash", "--norc", "-i"))
        terminal.expect(rb"\$ ")
        terminal.type("bash --norc -i\r")
        terminal.expect(rb"\$ ")
        terminal.type("echo pid $$ x\r")
        pid = int(terminal.expect(rb"pid (\d+) x\r\n.*\$ ")[1])
        self.move(pid, "hostB")
        terminal.type("sleep 1000\r")
        time.sleep(0.3)
        terminal.type("\x03")
        terminal.expect(rb"\$ ")
        terminal.type("echo was $?\r")
        terminal.expect(rb"was 130\r\n.*\$ ")
        terminal.type("sleep 1000\r")
        time.sleep(0.3)
        terminal.type("\x1a")
        terminal.expect(rb"Stopped.*\$ ")
        terminal.type("kill %1; wait; exit 5\r")
        terminal.expect(rb"exit.*\$ ")
        terminal.type("echo outer $?\r")
        terminal.expect(rb"outer \d+\r\n")

    @unittest.skipUnless(shutil.which("vim"), "vim is not installed")
    def test_vim(self):
        for mode in MODES:
            with self.subTest(mode=mode):
                path = self.testbed.new_path("text")
                path.write_text("first\nlast\n")
                terminal = self.open(*self.words("bash", "--norc", "-i"))
                terminal.expect(rb"\$ ")
                terminal.type(f"vim -u NONE -n {path.name}\r")
                terminal.expect(rb"first.*last")
                pid = self.pid_of("vim", path.name)
                self.move(pid, "hostB", mode, "resumed" if mode == "demand" else "done")
                terminal.type("ostart ")
                terminal.expect(rb"start")
                self.move(pid, "hostA", mode, "resumed" if mode == "demand" else "done")
                terminal.type("end\x1b:w\r")
                self.assertTrue(wait_until(lambda: "start end" in path.read_text(), PATIENCE),
                                terminal.screen[-500:])
                terminal.type("\x1a")
                terminal.expect(rb"Stopped.*\$ ")
                terminal.type("fg\r")
                terminal.resize(40, 100)
                terminal.type(":q\r")
                terminal.expect(rb"\x1b\[\?1049l.*\$ ")
                terminal.type("stty -a; echo end\r")
                self.assertIn(b"icanon", terminal.expect(rb"speed.*\nend\r\n")[0].split())
                self.assertEqual(path.read_text(), "first\nstart end\nlast\n")

    def pid_of(self, program, word):
        def find():
            for entry in os.listdir("/proc"):
                if not entry.isdigit():
                    continue
                try:
                    with open(f"/proc/{entry}/cmdline", "rb") as file:
                        words = file.read().decode(errors="replace").split("\0")
                except OSError:
                    continue
                if words[0].endswith(program) and any(word in each for each in words[1:]):
                    return int(entry)
            return 0
        pid = wait_until(find)
        self.assertTrue(pid, f"no {program} {word}")
        return pid

    @unittest.skipUnless(shutil.which("tmux") and shutil.which("top"), "no tmux or top")
    def test_in_tmux(self):
        """Python, vim and top in windows of tmux, which has no other terminal."""
        socket = self.testbed.new_path("tmux")

        def tmux(*words):
            done = self.testbed.run("hostA", "tmux", "-f", "/dev/null", "-S", socket, *words,
                                    env=dict(os.environ, TERM="xterm"))
            self.assertEqual(done.status, 0, done)
            return done.text

        def shows(words):
            self.assertTrue(wait_until(lambda: words in tmux("capture-pane", "-p"), PATIENCE),
                            f"{words!r} is not in {tmux('capture-pane', '-p')}\n{self.testbed.logs(25)}")

        def pane_pid():
            return int(tmux("display-message", "-p", "#{pane_pid}"))
        tmux("new-session", "-d", "-x", "90", "-y", "25", "top -d 0.3")
        self.addCleanup(tmux, "kill-server")
        shows("load average")
        pid = pane_pid()
        for host in ("hostB", "hostA"):
            self.move(pid, host)
            tmux("send-keys", "h")
            shows("Help for Interactive Commands")
            tmux("send-keys", "q")
            shows("load average")
        tmux("new-window", f"{PYTHON} -q")
        shows(">>>")
        pid = pane_pid()
        self.move(pid, "hostB")
        tmux("send-keys", "print(6 * 7, 'there')", "Enter")
        shows("42 there")
        path = self.testbed.new_path("text")
        tmux("new-window", f"exec vim -u NONE -n {path}")
        shows("[New")
        pid = pane_pid()
        self.move(pid, "hostB")
        tmux("send-keys", "ihello", "Escape", ":wq", "Enter")
        self.assertTrue(wait_until(path.exists, PATIENCE))
        self.assertTrue(wait_until(lambda: path.read_text() == "hello\n", PATIENCE))

    def test_home_worker_is_killed(self):
        """Its successor goes on with the terminal, and leaves it as it has to be."""
        terminal, pid = self.start_subject()
        self.move(pid, "hostB")
        terminal.type("a\r")
        terminal.expect(rb"got 'a'\r\n")
        status = pathlib.Path(f"/proc/{pid}/status").read_text()
        tracer = int(re.search(r"TracerPid:\s*(\d+)", status)[1])
        os.kill(tracer, signal.SIGKILL)
        terminal.type("b\r")
        terminal.expect(rb"got 'b'\r\n")
        self.end(terminal)

    def test_what_is_refused(self):
        terminal, pid = self.start_subject()
        name = os.readlink(f"/proc/{pid}/fd/0")
        opened = os.open(name, os.O_RDWR | os.O_NOCTTY)
        self.addCleanup(os.close, opened)
        fcntl.ioctl(opened, termios.TIOCEXCL)
        outcome = self.testbed.control("hostA", "check", pid, "--to", "hostB")
        fcntl.ioctl(opened, termios.TIOCNXCL)
        self.assertIn("TERMINAL_STATE", outcome.codes())
        self.end(terminal)


if __name__ == "__main__":
    sys.dont_write_bytecode = True
    harness.main()
