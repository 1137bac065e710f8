#!/usr/bin/python3
"""`check` keeps its word: what would be lost is told, and what may not be moved is refused, also
what becomes so between the look at the running process and the moment when it stands still."""

import json
import os
import shutil
import signal
import subprocess
import threading
import unittest

import harness
import steps
from harness import DONE, FAILED, REFUSED
from rights_test import ASKERS, OWNER

# A program that runs `prepare`, says "ready", runs `change` once there is the file GO, says
# "changed", and ends well once there is the file STOP.
PROGRAM = """
import ctypes, fcntl, mmap, os, sys, time
go, stop, *words = sys.argv[1:]
def wait_for(path):
    while not os.path.exists(path):
        time.sleep(0.005)
{prepare}
print("ready", flush=True)
{change}
wait_for(stop)
print("ok")
sys.exit(42)
"""
CHANGE = """
wait_for(go)
{0}
print("changed", flush=True)
"""
F_SETSIG = 10


def codes(things):
    return sorted({thing["code"] for thing in things})


class FaithfulCase(steps.StepCase):
    def start(self, prepare, *words, change="", prefix=()):
        go, stop = (self.testbed.new_path(name) for name in ("go", "stop"))
        text = PROGRAM.format(prepare=prepare, change=change and CHANGE.format(change))
        process = self.testbed.start("hostA", "setsid", *prefix, "/usr/bin/python3", "-c", text,
                                     go, stop, *words)
        process.go_file, process.stop_file = go, stop
        self.addCleanup(process.kill)
        self.assertTrue(process.wait_ready(), bytes(process.output))
        return process

    def change_at_offer(self, process, *options):
        """Moves a process, which changes after it was inspected and before it is stopped."""
        self.arm("source.offered")
        outcomes = []
        mover = threading.Thread(target=lambda: outcomes.append(self.testbed.control(
            "hostA", "move", process.pid, "hostB", *options)))
        mover.start()
        worker = self.stopped_at("source.offered", "hostA")
        process.go_file.touch()
        changed = process.wait_output(b"changed\n")
        os.kill(worker, signal.SIGCONT)
        mover.join()
        self.assertTrue(changed, bytes(process.output))
        return outcomes[0]

    def moves(self, process, *options):
        outcome = self.testbed.move("hostA", process.pid, "hostB", options=options)
        self.assertEqual(outcome.status, DONE, f"{outcome}\n{self.testbed.logs()}")
        return outcome.object

    def refused(self, process, *expected):
        """By check and by move."""
        for words in (["check", process.pid], ["move", process.pid, "hostB"]):
            outcome = self.testbed.control("hostA", *words)
            self.assertEqual((outcome.status, outcome.codes()), (REFUSED, sorted(expected)),
                             outcome)

    def ends_well(self, process):
        self.assertEqual(harness.finish(process), "", self.testbed.logs())


class Losses(FaithfulCase):
    """Of what is not carried, each process is told what it has."""

    SIGNAL = f"pipe = os.pipe(); fcntl.fcntl(pipe[0], {F_SETSIG}, 12)"

    def test_told_by_check_and_move(self):
        process = self.start(self.SIGNAL)
        checked = self.testbed.control("hostA", "check", process.pid)
        self.assertEqual((checked.status, checked.object["movable"], checked.object["pid"]),
                         (DONE, True, process.pid), checked)
        self.assertIn("DESCRIPTOR_OWNER", codes(checked.object["losses"]))
        for loss in checked.object["losses"]:
            self.assertTrue(all(loss.values()), loss)
        said = self.testbed.run("hostA", "migratectl", "check", process.pid)
        self.assertTrue(said.text.startswith("movable\n"), said)
        self.assertIn("DESCRIPTOR_OWNER", said.text)
        moved = self.moves(process)
        self.assertEqual(moved["losses"], checked.object["losses"])
        shown = self.testbed.control("hostA", "show", process.pid).object
        self.assertIn("DESCRIPTOR_OWNER", codes(shown["last_move"]["losses"]))
        again = self.testbed.control("hostA", "check", process.pid, "--to", "hostA")
        self.assertNotIn("DESCRIPTOR_OWNER", codes(again.object["losses"]))  # It has it no more.
        self.ends_well(process)

    def test_strict_refuses(self):
        process = self.start(self.SIGNAL)
        for words in (["check", process.pid], ["move", process.pid, "hostB"]):
            outcome = self.testbed.control("hostA", *words, "--strict")
            self.assertEqual((outcome.status, outcome.codes()), (REFUSED, ["LOSS"]), outcome)
            said = [each["object"] for each in outcome.object["refusals"]]
            self.assertTrue(any("DESCRIPTOR_OWNER" in each for each in said), outcome)
        self.moves(process)
        self.ends_well(process)

    def test_what_came_after_the_inspection(self):
        process = self.start("", change=self.SIGNAL)
        before = self.testbed.control("hostA", "check", process.pid).object["losses"]
        self.assertNotIn("DESCRIPTOR_OWNER", codes(before))
        outcome = self.change_at_offer(process)
        self.assertEqual(outcome.status, DONE, outcome)
        self.assertIn("DESCRIPTOR_OWNER", codes(outcome.object["losses"]))
        self.ends_well(process)

    def test_strict_refuses_what_came_after_the_inspection(self):
        process = self.start("", change=self.SIGNAL)
        if self.testbed.control("hostA", "check", process.pid, "--strict").status != DONE:
            self.skipTest("whoever runs the tests has something to lose himself")
        outcome = self.change_at_offer(process, "--strict")
        self.assertEqual((outcome.status, outcome.codes()), (REFUSED, ["LOSS"]), outcome)
        self.ends_well(process)


class WriteOnly(FaithfulCase):
    """A file of root's without a name, which a user's process may only write, becomes memory of that
    process, in its parked record too."""

    def start_with(self, redirections):
        path = self.testbed.new_path("secret")
        start = f'umask 077; echo secret >"$0"; {redirections}; rm "$0"; exec "$@"'
        return self.start("", prefix=["sh", "-c", start, path, *ASKERS["owner"]])

    def test_is_refused(self):
        process = self.start_with('exec 7>>"$0"')
        self.refused(process, "NOT_READABLE")
        self.ends_well(process)

    def test_readable_by_another_descriptor(self):
        process = self.start_with('exec 7>>"$0" 8<"$0"')
        self.moves(process)
        self.ends_well(process)

    def test_owner_may_read_it(self):
        process = self.start_with(f'exec 7>>"$0"; chown {OWNER} "$0"')
        self.moves(process)
        self.ends_well(process)


class MappedElsewhere(FaithfulCase):
    """A deleted file that another process has no descriptor of any more, but maps."""

    MAP = "f = open(words[0], 'r+b'); m = mmap.mmap(f.fileno(), 4096, {flags}); f.close()"

    def test_is_refused(self):
        for flags in ("mmap.MAP_SHARED", "mmap.MAP_PRIVATE"):
            with self.subTest(flags=flags):
                path = self.testbed.new_path("memory")
                path.write_bytes(bytes(4096))
                other = self.start(self.MAP.format(flags=flags), path)
                process = self.start(self.MAP.format(flags="mmap.MAP_SHARED"), path)
                path.unlink()
                self.refused(process, "SHARED_MEMORY_OUTSIDE")
                self.ends_well(other)
                self.moves(process)
                self.ends_well(process)


class BornLate(FaithfulCase):
    """Who is born between check and stop is a child, or has what its grandparent has."""

    # Ends with the file STOP, also when it has become an orphan.
    CHILD = """
if os.fork() == 0:
    wait_for(stop)
    os._exit(0)
"""
    ORPHAN = """
child = os.fork()
if child == 0:
    if os.fork() == 0:
        wait_for(stop)
    os._exit(0)
os.waitpid(child, 0)
"""

    def refuses(self, prepare, change, code):
        process = self.start(prepare, change=change)
        self.assertEqual(self.testbed.control("hostA", "check", process.pid).status, DONE)
        outcome = self.change_at_offer(process)
        self.assertEqual((outcome.status, outcome.codes()), (REFUSED, [code]), outcome)
        self.ends_well(process)

    def test_child(self):
        self.refuses("", self.CHILD, "CHILDREN")

    def test_orphan_with_shared_memory(self):
        self.refuses("m = mmap.mmap(-1, 4096)", self.ORPHAN, "SHARED_MEMORY_OUTSIDE")

    def test_orphan_with_a_memory_file(self):
        self.refuses("fd = os.memfd_create('x'); os.ftruncate(fd, 4096); "
                     "m = mmap.mmap(fd, 4096); os.close(fd)", self.ORPHAN, "SHARED_MEMORY_OUTSIDE")

    def test_orphan_with_an_open_file(self):
        self.refuses("ctypes.CDLL(None).eventfd(0, 0)", self.ORPHAN, "SHARED_FILE")

    def test_orphan_with_a_pipe(self):
        self.refuses("pipe = os.pipe(); os.set_inheritable(pipe[0], True)", self.ORPHAN,
                     "PIPE_SHARED")


class BornBefore(FaithfulCase):
    """Ancestors share what they shared at check, also if so many processes were born meanwhile that
    all are looked at again."""

    def test_position_of_an_ancestor(self):
        file = self.testbed.new_path("file")
        file.touch()
        shell = self.start("os.lseek(7, 3, 0)",
                           prefix=["bash", "-c", 'exec 7<"$0"; "$@" & wait $!', file])
        with open(f"/proc/{shell.pid}/task/{shell.pid}/children", encoding="ascii") as children:
            process = int(children.read())
        self.arm("source.offered")
        outcomes = []
        mover = threading.Thread(target=lambda: outcomes.append(self.testbed.control(
            "hostA", "move", process, "hostB")))
        mover.start()
        worker = self.stopped_at("source.offered", "hostA")
        for _ in range(100):
            subprocess.run(["/bin/true"], check=True)
        os.kill(worker, signal.SIGCONT)
        mover.join()
        self.assertEqual(outcomes[0].status, DONE, f"{outcomes[0]}\n{self.testbed.logs()}")
        self.ends_well(shell)


class Users(FaithfulCase):
    """Root's programs that give root up, and what a user may only execute."""

    GIVE_UP = f"os.setgroups([]); os.setresgid({OWNER}, {OWNER}, {OWNER}); " \
              f"os.setresuid({OWNER}, {OWNER}, {OWNER})"

    def test_gives_root_up_abroad(self):
        process = self.start("", change=self.GIVE_UP)
        self.moves(process)
        process.go_file.touch()
        self.assertTrue(process.wait_output(b"changed\n"), bytes(process.output))
        for host in ("hostA", "hostB", "hostA"):
            outcome = self.testbed.move("hostA", process.pid, host)
            self.assertEqual(outcome.status, DONE, f"{outcome}\n{self.testbed.logs()}")
        self.ends_well(process)

    def test_gives_root_up_between_check_and_stop(self):
        """What was prepared is another user's: it is prepared anew."""
        process = self.start("", change=self.GIVE_UP)
        outcome = self.change_at_offer(process)
        self.assertEqual(outcome.status, DONE, f"{outcome}\n{self.testbed.logs()}")
        self.ends_well(process)

    def test_may_only_be_executed(self):
        program, stop = self.testbed.new_path("program"), self.testbed.new_path("stop")
        shutil.copy(harness.PROGRAMS / "threads", program)
        program.chmod(0o111)
        process = self.testbed.start("hostA", *ASKERS["owner"], program, "ids", stop, 300)
        process.stop_file = stop
        self.addCleanup(process.kill)
        self.assertTrue(process.wait_ready(), bytes(process.output))
        for host in ("hostB", "hostA", "hostB"):
            outcome = self.testbed.move("hostA", process.pid, host)
            self.assertEqual(outcome.status, DONE, f"{outcome}\n{self.testbed.logs()}")
        self.ends_well(process)


class Executables(FaithfulCase):
    """Programs whose file has no name any more: removed, as by an upgrade, or never given one."""

    FROM_MEMORY = """
import os, sys
memory = os.memfd_create("program", os.MFD_CLOEXEC)
with open(sys.argv[1], "rb") as program:
    os.write(memory, program.read())
os.execve(memory, sys.argv[1:], os.environ)
"""

    def travels(self, *prefix, program):
        stop = self.testbed.new_path("stop")
        process = self.testbed.start("hostA", "setsid", *prefix, program, "ids", stop, 300)
        process.stop_file = stop
        self.addCleanup(process.kill)
        self.assertTrue(process.wait_ready(), bytes(process.output))
        if program != harness.PROGRAMS / "threads":
            program.unlink()
        checked = self.testbed.control("hostA", "check", process.pid)
        self.assertEqual((checked.status, codes(checked.object["losses"])),
                         (DONE, ["EXECUTABLE"]), checked)
        for number, (host, mode) in enumerate([("hostB", "lazy"), ("hostA", "eager"),
                                               ("hostB", "precopy"), ("hostA", "lazy")]):
            outcome = self.testbed.move("hostA", process.pid, host, mode=mode)
            self.assertEqual(outcome.status, DONE, f"{outcome}\n{self.testbed.logs()}")
            self.assertEqual(codes(outcome.object.get("losses", [])),
                             [] if number else ["EXECUTABLE"])
        self.ends_well(process)

    def test_removed(self):
        program = self.testbed.new_path("program")
        shutil.copy(harness.PROGRAMS / "threads", program)
        program.chmod(0o755)
        self.travels(program=program)

    def test_of_a_user(self):
        program = self.testbed.new_path("program")
        shutil.copy(harness.PROGRAMS / "threads", program)
        program.chmod(0o755)
        self.travels(*ASKERS["owner"], program=program)

    def test_of_memory(self):
        self.travels("/usr/bin/python3", "-c", self.FROM_MEMORY,
                     program=harness.PROGRAMS / "threads")


class TemporaryFiles(FaithfulCase):
    """A file of the source's own /tmp that is mapped shared, as every Java has one."""

    PREPARE = """
path = os.path.join("/tmp", os.path.basename(go))
libc = ctypes.CDLL(None)
libc.mmap.restype = ctypes.c_void_p
def mapped(file, rights, size):  # The module mmap keeps a descriptor.
    return (ctypes.c_char * size).from_address(
        libc.mmap(None, ctypes.c_size_t(size), rights, mmap.MAP_SHARED, file.fileno(), 0))
with open(path, "wb+") as file:
    file.write(b"first" + bytes(9995) + b"untouched" + bytes(9996))
    file.flush()
    memory = mapped(file, mmap.PROT_READ | mmap.PROT_WRITE, 20005)
    reader = mapped(file, mmap.PROT_READ, 4096)
def write(text):
    memory[:len(text)] = memory[12000:12000 + len(text)] = text
write(b"second")
memory[16384] = 7
"""
    CHANGE = """
whole = memory[:6] == reader[:6] == memory[12000:12006] == b"second" and memory[16384] == b"\\7"
whole = whole and memory[10000:10009] == b"untouched"
write(b"third")
print("whole" if whole and reader[:6] == b"thirdd" and not os.path.exists(path) else "torn")
"""

    def start_with_file(self):
        process = self.start(self.PREPARE, change=self.CHANGE)
        return process, f"/proc/{process.pid}/root/tmp/{process.go_file.name}"

    def test_travels(self):
        for mode, path in (("lazy", ["hostB"]), ("eager", ["hostB"]), ("precopy", ["hostB"]),
                           ("lazy", ["hostB", "hostA", "hostB"])):
            with self.subTest(mode=mode, path=path):
                process, file = self.start_with_file()
                checked = self.testbed.control("hostA", "check", process.pid, "--to", "hostB")
                self.assertEqual((checked.status, codes(checked.object["losses"])),
                                 (DONE, ["FILE_AS_MEMORY"]), checked)
                for number, host in enumerate(path):
                    outcome = self.testbed.move("hostA", process.pid, host, mode=mode)
                    self.assertEqual(outcome.status, DONE, f"{outcome}\n{self.testbed.logs()}")
                    self.assertEqual(codes(outcome.object.get("losses", [])),
                                     [] if number else ["FILE_AS_MEMORY"])
                process.go_file.touch()
                self.assertTrue(process.wait_output(b"changed\n"), bytes(process.output))
                self.assertIn(b"whole", process.output)
                self.ends_well(process)

    def test_that_another_has_open(self):
        process, file = self.start_with_file()
        with open(file, "rb"):
            outcome = self.testbed.move("hostA", process.pid, "hostB")
            self.assertEqual(outcome.status, REFUSED, outcome)
        outcome = self.testbed.move("hostA", process.pid, "hostB", options=["--strict"])
        self.assertEqual((outcome.status, outcome.codes()), (REFUSED, ["LOSS"]), outcome)
        self.moves(process)
        process.stop_file.touch()


class Locks(FaithfulCase):
    """A lock of an open file that an ancestor has too would stay at home."""

    def start_below(self, taking):
        file = self.testbed.new_path("file")
        file.touch()
        return self.start(taking, prefix=["bash", "-c", 'exec 7<"$0"; "$@" & wait $!', file])

    def test_inherited_is_refused(self):
        for taking in ("fcntl.flock(7, fcntl.LOCK_SH)",
                       "fcntl.lockf(7, fcntl.LOCK_SH, 5)"):
            with self.subTest(taking=taking):
                shell = self.start_below(taking)
                with open(f"/proc/{shell.pid}/task/{shell.pid}/children",
                          encoding="ascii") as file:
                    child = int(file.read())
                for words in (["check", child], ["move", child, "hostB"]):
                    outcome = self.testbed.control("hostA", *words)
                    self.assertEqual((outcome.status, outcome.codes()), (REFUSED, ["FILE_LOCK"]),
                                     outcome)
                self.ends_well(shell)


class HugePages(FaithfulCase):
    """Of hugetlbfs, without a file: private, and shared with children to come; and memory files."""

    POOL = "/proc/sys/vm/nr_hugepages"
    PREPARE = """
MAP_ANONYMOUS, MAP_HUGETLB = 0x20, 0x40000
size = 4 << 20
def mapped(kind):
    memory = mmap.mmap(-1, size, kind | MAP_ANONYMOUS | MAP_HUGETLB)
    for at in range(0, size // 2, 5000):
        memory[at] = at % 251
    return memory
libc = ctypes.CDLL(None)
libc.mmap.restype = ctypes.c_void_p
def of_memory_file(stays_open):
    file = os.memfd_create("huge", 4)  # MFD_HUGETLB
    os.ftruncate(file, size)
    start = libc.mmap(None, ctypes.c_size_t(size), 3, mmap.MAP_SHARED, file, ctypes.c_long(0))
    memory = (ctypes.c_ubyte * size).from_address(start)
    for at in range(0, size // 2, 5000):
        memory[at] = at % 251
    if not stays_open:
        os.close(file)
    return memory
memories = [mapped(mmap.MAP_PRIVATE), mapped(mmap.MAP_SHARED), of_memory_file(True),
            of_memory_file(False)]
def same(memory):
    return all(memory[at] == at % 251 for at in range(0, size // 2, 5000)) and memory[size - 1] == 0
"""
    CHANGE = """
whole = all(same(memory) for memory in memories)
if os.fork() == 0:
    memories[0][0] = memories[1][0] = 7
    os._exit(0)
os.wait()
print("whole" if whole and memories[0][0] == 0 and memories[1][0] == 7 else "torn")
"""

    def setUp(self):
        with open(self.POOL, encoding="ascii") as pool:
            before = pool.read()
        self.addCleanup(self.set_pool, before)
        self.set_pool(str(int(before) + 16))
        with open(self.POOL, encoding="ascii") as pool:
            if int(pool.read()) < int(before) + 8:
                self.skipTest("no huge pages")

    def set_pool(self, pages):
        try:
            with open(self.POOL, "w", encoding="ascii") as pool:
                pool.write(pages)
        except OSError as error:
            self.skipTest(f"no huge pages: {error}")

    def test_travel(self):
        for mode in ("lazy", "demand", "eager"):
            with self.subTest(mode=mode):
                process = self.start(self.PREPARE, change=self.CHANGE)
                for number, host in enumerate(["hostB", "hostA", "hostB"]):
                    outcome = self.testbed.move("hostA", process.pid, host, mode=mode)
                    self.assertEqual(outcome.status, DONE, f"{outcome}\n{self.testbed.logs()}")
                    self.assertEqual(codes(outcome.object.get("losses", [])),
                                     [] if number else ["HUGE_PAGES"])
                process.go_file.touch()
                self.assertTrue(process.wait_output(b"changed\n"), bytes(process.output))
                self.assertIn(b"whole", process.output)
                self.ends_well(process)

    def test_not_in_rounds(self):
        process = self.start(self.PREPARE, change=self.CHANGE)
        outcome = self.testbed.move("hostA", process.pid, "hostB", mode="precopy")
        self.assertEqual((outcome.status, outcome.codes()), (REFUSED, ["NO_WRITE_TRACKING"]),
                         outcome)
        process.go_file.touch()
        self.assertTrue(process.wait_output(b"whole\n"), bytes(process.output))
        self.ends_well(process)


class ManyMappings(FaithfulCase):
    """Nearly as many as the kernel lets a process have (vm.max_map_count)."""

    PREPARE = """
pages, step = 65000, 16
memory = mmap.mmap(-1, pages * 4096, mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
for page in range(0, pages, step):
    memory[page * 4096] = page % 251
start = ctypes.addressof(ctypes.c_char.from_buffer(memory))
libc = ctypes.CDLL(None, use_errno=True)
for page in range(1, pages, 2):
    if libc.mprotect(ctypes.c_void_p(start + page * 4096), ctypes.c_size_t(4096), 1) != 0:
        raise OSError(ctypes.get_errno(), "mprotect")
"""
    CHANGE = """
whole = all(memory[page * 4096] == page % 251 for page in range(0, pages, step))
print("whole" if whole else "torn")
"""

    def test_travel(self):
        for mode in ("eager", "lazy"):
            with self.subTest(mode=mode):
                process = self.start(self.PREPARE, change=self.CHANGE)
                checked = self.testbed.control("hostA", "check", process.pid, "--to", "hostB")
                self.assertEqual(checked.status, DONE, checked)
                outcome = self.testbed.move("hostA", process.pid, "hostB", mode=mode)
                self.assertEqual(outcome.status, DONE, f"{outcome}\n{self.testbed.logs()}")
                process.go_file.touch()
                self.assertTrue(process.wait_output(b"changed\n"), bytes(process.output))
                self.assertIn(b"whole", process.output)
                self.ends_well(process)


class SparseMemory(FaithfulCase):
    """The double mapping of a just-in-time compiler: a memory file of terabytes, mapped twice."""

    PREPARE = """
tera = 1 << 40
memory = os.memfd_create("doublemapper")
os.ftruncate(memory, 2 * tera)
pieces = [(mmap.mmap(memory, 65536, offset=at), mmap.mmap(memory, 65536, mmap.MAP_SHARED,
           mmap.PROT_READ | mmap.PROT_EXEC, offset=at)) for at in (0, 1 << 20, tera, 2 * tera - 65536)]
def same(text):
    return all(read[:len(text)] == text for _, read in pieces)
for write, _ in pieces:
    write[:5] = b"first"
"""
    CHANGE = """
ok = same(b"first") and os.fstat(memory).st_size == 2 * tera
for write, _ in pieces:
    write[:6] = b"second"
print("whole" if ok and same(b"second") and os.pread(memory, 6, tera) == b"second" else "torn")
"""

    def test_travels(self):
        for mode in ("lazy", "demand", "eager"):
            with self.subTest(mode=mode):
                process = self.start(self.PREPARE, change=self.CHANGE)
                for host in ("hostB", "hostA", "hostB"):
                    outcome = self.testbed.move("hostA", process.pid, host, mode=mode)
                    self.assertEqual(outcome.status, DONE, f"{outcome}\n{self.testbed.logs()}")
                process.go_file.touch()
                self.assertTrue(process.wait_output(b"changed\n"), bytes(process.output))
                self.assertIn(b"whole", process.output)
                self.ends_well(process)


class Words(FaithfulCase):
    """What is said of a refusal."""

    def test_of_one_kind_once(self):
        count = 40
        process = self.start(f"""
import select
watched = select.epoll()
for _ in range({count}):
    pipe = os.pipe()
    os.dup(pipe[0])
    watched.register(pipe[0])
    os.close(pipe[0])""")
        checked = self.testbed.control("hostA", "check", process.pid)
        (refusal,) = checked.object["refusals"]
        self.assertEqual((refusal["code"], refusal["count"], len(refusal["others"])),
                         ("EPOLL_STALE", count, 15), checked)
        said = self.testbed.run("hostA", "migratectl", "check", process.pid).text.splitlines()
        self.assertEqual(said[0], f"not movable, for one reason (EPOLL_STALE): {refusal['remedy']}")
        self.assertIn(f"and {count - 4} more", said[-1])
        self.ends_well(process)

    def test_of_several_kinds(self):
        process = self.start("import socket; s = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW)\n"
                             "c = ctypes.CDLL(None)\n"
                             "c.inotify_add_watch(c.inotify_init1(0), b'/proc', 2)")
        said = self.testbed.run("hostA", "migratectl", "check", process.pid).text.splitlines()
        self.assertEqual(said[0], "not movable, for 2 reasons; nothing was stopped")
        self.ends_well(process)

    def test_what_is_ours(self):
        process = self.start("")
        self.moves(process)
        (row,) = [row for row in self.records("hostA") if row["pid"] == process.pid]
        (daemon,) = [host["daemon_pid"] for host in self.testbed.hosts() if host["name"] == "hostA"]
        for pid in (1, daemon, row["worker"]):
            for words in (["check", pid], ["move", pid, "hostB"]):
                outcome = self.testbed.control("hostA", *words)
                self.assertEqual((outcome.status, outcome.codes()), (REFUSED, ["SELF"]), outcome)
        self.ends_well(process)

    def test_of_who_may_not(self):
        process = self.start("")
        for words in (["check", process.pid], ["move", process.pid, "hostB"]):
            outcome = self.testbed.run("hostA", *ASKERS["stranger"], "migratectl", "--json", *words,
                                       cwd="/")
            self.assertEqual((outcome.status, outcome.codes()), (REFUSED, ["NOT_PERMITTED"]),
                             outcome)
        self.ends_well(process)


class Cancelled(FaithfulCase):
    """An interrupt takes a move back while that can be."""

    def interrupted_at(self, step, mode="lazy"):
        """A process, and what came of its move that was interrupted at a step."""
        process = self.start("")
        self.arm(step)
        mover = self.testbed.start("hostA", "migratectl", "--json", "move", process.pid, "hostB",
                                   "--mode", mode, stderr=subprocess.PIPE)
        worker = self.stopped_at(step, "hostA")
        mover.popen.send_signal(signal.SIGINT)
        self.assertIn(b"cancelling", mover.popen.stderr.readline())
        os.kill(worker, signal.SIGCONT)
        status = mover.wait()
        mover.popen.stderr.close()
        self.assertIsNotNone(status, self.testbed.logs())
        result = json.loads(bytes(mover.output))
        self.assertEqual(harness.output_problem(["move"], result), "")
        return process, status, result

    def test_before_it_runs_there(self):
        for step in ("source.offered", "source.frozen", "source.restored"):
            for mode in ("lazy", "eager"):
                with self.subTest(step=step, mode=mode):
                    process, status, result = self.interrupted_at(step, mode)
                    self.assertEqual((status, result.get("error", {}).get("code")),
                                     (FAILED, "cancelled"), result)
                    self.assertFalse([row for row in self.records("hostA")
                                      if row["pid"] == process.pid])
                    self.assertFalse([row for row in self.records("hostB")
                                      if row["state"] != "exited"])
                    self.moves(process)  # It is as it was.
                    self.ends_well(process)

    def test_too_late(self):
        process, status, result = self.interrupted_at("source.run_sent")
        self.assertIn("losses", result)
        self.assertEqual((status, result["pid"]), (DONE, process.pid), result)
        self.assertTrue(self.runs_there(process))
        self.ends_well(process)


def load_tests(_loader, tests, _pattern):
    """Not those that were imported."""
    return unittest.TestSuite(test for test in harness.flatten(tests)
                              if type(test).__module__ == __name__)


if __name__ == "__main__":
    harness.main()
