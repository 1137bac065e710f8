#!/usr/bin/python3
"""Who may do what: hosts without or with the wrong keys, replayed proofs, other users, pages outside
the process, what the wire shows, and limits. Everything refused must be in a log."""

import json
import os
import pathlib
import shutil
import signal
import sys
import time
import unittest

import harness
import wire
from harness import DONE, FAILED, OTHER, REFUSED, Testbed, finish, wait_until

HERE = pathlib.Path(__file__).resolve().parent
NOBODY = ["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups"]
KEYS = "/var/lib/migrate/keys"
ADDRESSES = {"hostA": "10.213.0.1", "hostB": "10.213.0.2", "hostC": "10.213.0.3"}
SESSION = "00112233445566778899aabbccddeeff"
# Would not otherwise be on the wire.
SECRET = "libmigrate-must-not-show-this-20261122 "


def remove(directory):
    """What keeps an empty directory from being removed, if anything."""
    try:
        directory.rmdir()
    except OSError as error:
        return error
    return None


class SecurityCase(unittest.TestCase):
    """All tests of a class share a testbed."""

    options = ()
    hosts = 2

    @classmethod
    def setUpClass(cls):
        cls.testbed = Testbed(cls.hosts, cls.options)
        cls.addClassCleanup(cls.testbed.down)

    def log(self, host):
        return pathlib.Path(self.testbed._logs[host]).read_text(errors="replace")

    def assert_logged(self, host, *words):
        """A line of the host's log holds all of `words`."""
        def found():
            return any(all(word in line for word in words) for line in self.log(host).splitlines())
        self.assertTrue(wait_until(found), f"{words} not in\n{self.log(host)[-3000:]}")

    def peer(self, host, *words, **options):
        outcome = self.testbed.run(host, "/usr/bin/python3", HERE / "wire.py", *words, **options)
        self.assertEqual(outcome.status, 0, outcome)
        return outcome.object

    def start(self, host="hostA", *words, **options):
        process = self.testbed.start_program(host, *(words or ("threads", "ids")), **options)
        self.addCleanup(process.kill)
        return process

    def start_keeper(self, *prefix, **options):
        process = self.testbed.start_keeper("hostA", SECRET, prefix=prefix, **options)
        self.addCleanup(process.kill)
        return process

    def ends_well(self, process):
        self.assertEqual(finish(process), "", self.testbed.logs())

    def moved(self, process, destination, **options):
        outcome = self.testbed.move("hostA", process.pid, destination, **options)
        self.assertEqual(outcome.status, DONE, f"{outcome}\n{self.testbed.logs()}")
        return outcome.object

    def capture(self, host):
        """Begins to record what a host's network carries; the result ends it and gives it."""
        path = self.testbed.new_path("capture")
        sniffer = self.testbed.start(host, "/usr/bin/python3", HERE / "wire.py", "sniff", path)
        self.assertTrue(sniffer.wait_ready())

        def end():
            os.kill(sniffer.pid, signal.SIGTERM)
            self.assertEqual(sniffer.wait(), 0, bytes(sniffer.output))
            return wire.read_streams(path)
        return end


class Encrypted(SecurityCase):
    """Hosts with keys."""

    options = ("--tls",)
    hosts = 3

    def test_a_process_comes_and_goes(self):
        process = self.start()
        for host in ("hostB", "hostC", "hostA", "hostB"):
            self.moved(process, host, mode="lazy", wait="done")
        shown = self.testbed.control("hostA", "hosts").object["hosts"]
        self.assertEqual({host.get("trust") for host in shown}, {"tls"}, shown)
        self.assertEqual(finish(process), "", self.testbed.logs())

    def test_peer_without_keys(self):
        for purpose in (wire.OFFER, wire.QUERY):
            answer = self.peer("hostA", "plain", ADDRESSES["hostB"], purpose, SESSION, "00" * 64)
            self.assertNotIn("hostB".encode().hex(), answer["answer"])
        self.assert_logged("hostB", "refused", ADDRESSES["hostA"])

    def test_peer_without_certificate(self):
        answer = self.peer("hostA", "tls", ADDRESSES["hostB"], wire.QUERY, SESSION, KEYS, "hostA",
                           "--no-certificate")
        self.assertFalse(answer.get("bound"), answer)
        self.assert_logged("hostB", "refused", "certificate")

    def test_certificate_of_another_authority(self):
        keys = self.testbed.work / "strange-keys"
        for words in (["init"], ["add-host", "hostA", "--also", ADDRESSES["hostA"]]):
            outcome = self.testbed.run("hostA", "migratectl", "keys", *words, "--dir", keys)
            self.assertEqual(outcome.status, DONE, outcome)
        self.assertEqual([path.stat().st_mode & 0o77 for path in keys.iterdir()], [0] * 4)
        answer = self.peer("hostA", "tls", ADDRESSES["hostB"], wire.QUERY, SESSION, keys, "hostA")
        self.assertFalse(answer.get("bound"), answer)
        self.assert_logged("hostB", "refused", "not trusted")
        again = self.testbed.run("hostA", "migratectl", "keys", "init", "--dir", keys)
        self.assertEqual(again.status, OTHER, again)  # Never overwritten.
        self.assertIn("there already", again.errors)

    def test_hosts_that_this_one_refuses(self):
        """The log of the refusing host says so on the connecting side too."""
        process = self.start("hostA", "memory", "anonymous")
        keys = self.testbed.work / "other-keys"
        for words in (["init"], ["add-host", "hostB", "--also", ADDRESSES["hostB"]]):
            outcome = self.testbed.run("hostB", "migratectl", "keys", *words, "--dir", keys)
            self.assertEqual(outcome.status, DONE, outcome)
        daemon = self.testbed.start(
            "hostB", "migrated", "--listen", f"tcp://{ADDRESSES['hostB']}:7171", "--keys", keys,
            "--state", "/run/migrate/7171-state", "--socket", "/run/migrate/7171.sock")
        self.addCleanup(daemon.kill)
        self.assertTrue(daemon.wait_output(b"state in"), bytes(daemon.output))
        outcome = self.testbed.control("hostA", "check", process.pid, "--to", "hostB:7171")
        self.assertIn("not trusted", outcome.text)
        self.assert_logged("hostA", "hostB:7171", "not trusted", "ca.crt")
        # The same address in a form that the certificate does not name.
        outcome = self.testbed.control("hostA", "check", process.pid, "--to", "10.213.2")
        self.assertIn("--also 10.213.2", outcome.text)
        self.assert_logged("hostA", f"it is for hostB, {ADDRESSES['hostB']}, not for 10.213.2",
                           "--also 10.213.2")
        self.assertEqual(finish(process), "", self.testbed.logs())

    def test_own_certificate_is_good(self):
        """What the tests above lack is the only thing that they lack."""
        answer = self.peer("hostA", "tls", ADDRESSES["hostB"], wire.COMMAND, SESSION, KEYS, "hostA")
        self.assertFalse(answer.get("bound"))  # No such session: nobody answers.
        self.assert_logged("hostB", SESSION, "no worker here")

    def test_session_of_another_host(self):
        """A host of the cluster cannot join a move that is not its own."""
        process = self.start("hostA", "memory", "anonymous")
        session = self.moved(process, "hostB", mode="demand")["id"]
        for purpose in (wire.URGENT, wire.BULK, wire.RESUME):
            self.peer("hostC", "tls", ADDRESSES["hostB"], purpose, session, KEYS, "hostC")
        self.assert_logged("hostB", "refused", "hostC", "offered by hostA")
        self.peer("hostC", "tls", ADDRESSES["hostB"], wire.COMMAND, session, KEYS, "hostC")
        self.assert_logged("hostB", "refused", "hostC", "home is")
        # The host that may, without the token.
        self.peer("hostA", "tls", ADDRESSES["hostB"], wire.URGENT, session, KEYS, "hostA")
        self.moved(process, "hostA")
        self.assertEqual(finish(process), "", self.testbed.logs())

    def test_wire_shows_nothing(self):
        process = self.start_keeper()
        end = self.capture("hostB")
        self.moved(process, "hostB", wait="done")
        carried = b"".join(end())
        self.assertGreater(len(carried), 16 << 20)
        self.assertEqual(carried.count(SECRET.encode()), 0)
        self.ends_well(process)

    def test_secrets_stay_where_they_are(self):
        for entry in self.testbed.hosts():
            state = pathlib.Path(entry["state"])
            self.assertEqual(state.stat().st_mode & 0o777, 0o700)
            words = pathlib.Path(f"/proc/{entry['daemon_pid']}/cmdline").read_bytes()
            self.assertNotIn(b"PRIVATE", words)
            self.assertNotIn("PRIVATE", self.log(entry["name"]))


class Plain(SecurityCase):
    """Hosts without keys, which the network sees through: what still holds."""

    def test_wire_shows_all(self):
        """The counter-proof of Encrypted.test_wire_shows_nothing."""
        process = self.start_keeper()
        end = self.capture("hostB")
        self.moved(process, "hostB", wait="done")
        self.assertGreater(b"".join(end()).count(SECRET.encode()), 100_000)
        self.ends_well(process)

    def test_replayed_proof(self):
        process = self.start()
        session = self.moved(process, "hostB", wait="done")["id"]
        end = self.capture("hostB")
        self.assertEqual(self.testbed.control("hostA", "check", process.pid).status, DONE)
        begin = wire.preamble(wire.COMMAND, session)
        (overheard,) = [stream for stream in end() if stream.startswith(begin)]
        frames = []
        rest = overheard[len(begin):]
        while rest:
            length = int.from_bytes(rest[:4], "little")
            frames.append(rest[4:4 + length].hex())
            rest = rest[4 + length:]
        self.assertIn("check", bytes.fromhex(frames[1]).decode())
        answer = self.peer("hostA", "plain", ADDRESSES["hostB"], wire.COMMAND, session, *frames)
        self.assertEqual(len(bytes.fromhex(answer["answer"])), 4 + 32, answer)  # The question only.
        self.assert_logged("hostB", "refused", "its proof is wrong", "replayed")
        self.assertEqual(finish(process), "", self.testbed.logs())

    def test_another_users_process(self):
        process = self.start()
        outcome = self.testbed.run("hostA", *NOBODY, "migratectl", "--json", "move", process.pid,
                                   "hostB", cwd="/")
        self.assertEqual(outcome.status, REFUSED, outcome)
        self.assert_logged("hostA", "refused user 65534", f"process {process.pid}")
        self.assertEqual(finish(process), "")

    def test_pages_outside_the_process(self):
        process = self.start_keeper()
        maps = pathlib.Path(f"/proc/{process.pid}/maps").read_text().splitlines()
        (stack,) = [line.split()[0] for line in maps if line.endswith("[stack]")]
        last_page = f"{int(stack.split('-')[1], 16) - 4096:x}"
        hostile = self.testbed.start("hostB", "/usr/bin/python3", HERE / "wire.py", "destination",
                                     7171, env={**os.environ, "INSIDE": last_page})
        self.assertTrue(hostile.wait_ready())
        self.testbed.control("hostA", "move", process.pid, "hostB:7171", "--mode", "demand")
        self.assertEqual(hostile.wait(), 0, f"{bytes(hostile.output)}\n{self.testbed.logs()}")
        answers = json.loads(bytes(hostile.output).split(b"\n", 1)[1])
        self.assertEqual(answers["inside"], [0, 4096], answers)
        for place in ("outside", "across"):
            self.assertEqual(answers[place], [2, 0], answers)
        self.assertEqual(answers["kernel"], "closed", answers)
        self.assert_logged("hostA", "refused a request for pages outside the process")

    def test_other_versions_are_told(self):
        answer = self.testbed.run(
            "hostA", "/usr/bin/python3", "-c",
            f"import sys; sys.path.insert(0, {str(HERE)!r}); import wire\n"
            f"c = wire.connect({ADDRESSES['hostB']!r})\n"
            f"c.sendall(wire.preamble(1, {SESSION!r}, version=wire.PROTOCOL_VERSION + 1))\n"
            "print(wire.receive_all(c).hex())")
        self.assertEqual(answer.text.strip(), wire.preamble(0, 32 * "0").hex(), answer)
        self.assert_logged("hostB", f"speaks version {wire.PROTOCOL_VERSION + 1}")


class Local(SecurityCase):
    """Daemons on loopback, as without settings: nothing authenticates who connects."""

    hosts = 1

    def daemon(self, port):
        daemon = self.testbed.start(
            "hostA", "migrated", "--listen", f"tcp://127.0.0.1:{port}", "--allow", "root@*",
            "--host-name", f"local{port}", "--state", f"/run/migrate/{port}-state",
            "--socket", f"/run/migrate/{port}.sock")
        self.addCleanup(daemon.kill)
        self.assertTrue(daemon.wait_output(b"state in"), bytes(daemon.output))
        return daemon

    def ask(self, port, purpose, source, prefix=()):
        """How many bytes a program of the host gets that connects from the address `source`."""
        outcome = self.testbed.run(
            "hostA", *prefix, "/usr/bin/python3", "-c",
            f"import socket, sys; sys.path.insert(0, {str(HERE)!r}); import wire\n"
            f"c = socket.create_connection(('127.0.0.1', {port}), wire.SECONDS, ({source!r}, 0))\n"
            f"c.sendall(wire.preamble({purpose}, {SESSION!r}))\n"
            "try:\n    print(len(wire.receive_frame(c)))\n"
            "except (ConnectionError, EOFError):\n    print(0)", cwd="/")
        self.assertEqual(outcome.status, 0, outcome)
        return int(outcome.text)

    def test_other_users_are_refused(self):
        daemon = self.daemon(7501)
        for source in ("127.0.0.1", "127.0.0.9", ADDRESSES["hostA"]):
            for purpose in (wire.OFFER, wire.QUERY, wire.RESUME, wire.HOME):
                self.assertEqual(self.ask(7501, purpose, source, NOBODY), 0, (source, purpose))
            self.assertTrue(daemon.wait_output(f"connection from tcp://{source}:".encode(), 5))
            self.assertGreater(self.ask(7501, wire.QUERY, source), 0)
        lines = [line for line in daemon.output.decode().splitlines() if "user 65534" in line]
        self.assertEqual(len(lines), 12, bytes(daemon.output))
        for line in lines:
            self.assertIn("migratectl keys", line)

    def test_roots_daemons_know_each_other(self):
        process = self.start("hostA", "memory", "anonymous")
        daemons = {port: self.daemon(port) for port in (7502, 7503)}
        for port in (7503, 7502):
            outcome = self.testbed.control("hostA", "--socket", "/run/migrate/7502.sock", "move",
                                           process.pid, f"127.0.0.1:{port}", "--wait", "done")
            self.assertEqual(outcome.status, DONE,
                             (str(outcome), *(bytes(each.output) for each in daemons.values())))
        self.assertEqual(finish(process), "")


@unittest.skipUnless(shutil.which("munged") or os.path.exists("/usr/sbin/munged"),
                     "no munged (Debian package munge)")
class Munge(SecurityCase):
    """Hosts that share a MUNGE key: each has a munged and a further daemon that uses it."""

    port = 7400

    def setUp(self):
        self.keys = {name: self.new_key(name) for name in ("ours", "theirs")}

    def new_key(self, name):
        path = self.testbed.new_path(name)
        path.write_bytes(os.urandom(128))
        path.chmod(0o600)
        return path

    def daemon(self, host, key="ours"):
        """Starts both; what migratectl needs to reach the daemon, and its address."""
        type(self).port += 1
        base = f"/run/migrate/{self.port}"
        munged = self.testbed.start(
            host, "/usr/sbin/munged", "--foreground", "--force", f"--key-file={self.keys[key]}",
            *[f"--{what}-file={base}.{what}" for what in ("log", "pid", "seed")],
            f"--socket={base}.munge")
        self.addCleanup(munged.kill)
        self.assertTrue(munged.wait_output(b"Created socket"), bytes(munged.output))
        daemon = self.testbed.start(
            host, "migrated", "--munge", "--munge-socket", f"{base}.munge", "--allow", "root@*",
            "--listen", f"tcp://{ADDRESSES[host]}:{self.port}", "--state", f"{base}-state",
            "--socket", f"{base}.sock")
        self.addCleanup(daemon.kill)
        self.assertTrue(daemon.wait_output(b"state in"), bytes(daemon.output))
        self.assertIn(b"by munge; nothing is encrypted", daemon.output)
        return ["--socket", f"{base}.sock"], f"{host}:{self.port}", daemon

    def test_a_process_comes_and_goes(self):
        process = self.start()
        (reach, home, _), (_, away, _) = self.daemon("hostA"), self.daemon("hostB")
        for address in (away, home, away):
            outcome = self.testbed.control("hostA", *reach, "move", process.pid, address,
                                           "--wait", "done")
            self.assertEqual(outcome.status, DONE, f"{outcome}\n{self.testbed.logs()}")
        self.assertEqual(finish(process), "", self.testbed.logs())

    def test_another_key(self):
        process = self.start()
        (reach, _, _), (_, away, daemon) = self.daemon("hostA"), self.daemon("hostB", "theirs")
        outcome = self.testbed.control("hostA", *reach, "move", process.pid, away)
        self.assertEqual(outcome.status, FAILED, outcome)
        self.assertTrue(daemon.wait_output(b"check a credential"), bytes(daemon.output))
        self.assertEqual(finish(process), "")

    def test_no_munge(self):
        process = self.start()
        _, away, daemon = self.daemon("hostB")
        outcome = self.testbed.control("hostA", "move", process.pid, away)
        self.assertEqual(outcome.status, FAILED, outcome)
        self.assertTrue(daemon.wait_output(b"refused"), bytes(daemon.output))
        self.assertEqual(finish(process), "")


class Strict(SecurityCase):
    """A second daemon on hostB, which takes only what it is told to, and has little of everything."""

    options = ("--tls",)
    port = 7272

    def daemon(self, *options, prefix=(), state=None):
        """Starts it; its address, and the process."""
        type(self).port += 1
        base = state or f"/var/lib/migrate/strict-{self.port}"
        daemon = self.testbed.start(
            "hostB", *prefix, "migrated", "--listen", f"tcp://{ADDRESSES['hostB']}:{self.port}",
            "--state", base, "--socket", f"/run/migrate/{self.port}.sock", "--keys", KEYS, *options)
        self.assertTrue(daemon.wait_output(b"state in"), bytes(daemon.output))
        self.addCleanup(daemon.kill)
        return f"hostB:{self.port}", daemon

    def refused(self, process, address, code):
        for words in (["check", process.pid, "--to", address], ["move", process.pid, address]):
            outcome = self.testbed.control("hostA", *words)
            self.assertEqual(outcome.status, REFUSED, f"{outcome}\n{self.testbed.logs()}")
            self.assertIn(code, outcome.codes())

    def survives(self, process, address, daemon):
        """The move comes to nothing, and the process goes on where it was."""
        outcome = self.testbed.control("hostA", "move", process.pid, address)
        self.assertIn(outcome.status, (REFUSED, FAILED), f"{outcome}\n{bytes(daemon.output)}")
        self.assertEqual(finish(process), "", self.testbed.logs())

    def test_users(self):
        address, daemon = self.daemon("--allow", "nobody@hostA")
        kept = int([line for line in
                    pathlib.Path(f"/proc/{daemon.pid}/status").read_text().splitlines()
                    if line.startswith("CapPrm:")][0].split()[1], 16)
        for dropped in (16, 17, 22, 27):  # SYS_MODULE, SYS_RAWIO, SYS_BOOT, MKNOD
            self.assertFalse(kept >> dropped & 1, dropped)
        roots = self.start()
        self.refused(roots, address, "NOT_ALLOWED")
        self.assertTrue(daemon.wait_output(b"refused a process of user 0 that hostA offers"))
        self.assertEqual(finish(roots), "")
        grouped = self.start_keeper("setpriv", "--reuid=65534", "--regid=65534",
                                    "--groups=65534,4", cwd="/")
        self.refused(grouped, address, "PRIVILEGE")
        self.ends_well(grouped)
        process = self.start_keeper(*NOBODY, cwd="/")
        self.moved(process, address, wait="done")
        self.ends_well(process)

    def test_files_are_opened_as_the_user(self):
        """What root at the source has opened for a user, the destination's root does not."""
        address, _ = self.daemon("--allow", "*@*")
        secret = self.testbed.new_path("secret")
        secret.write_text("for root only")
        secret.chmod(0o600)
        process = self.start_keeper("/bin/sh", "-c", f'exec 9<{secret}; exec "$@"', "-", *NOBODY,
                                    cwd="/")
        self.refused(process, address, "FILE_PERMISSION")
        outcome = self.testbed.control("hostA", "move", process.pid, address)
        self.assertIn(str(secret), outcome.text)
        self.moved(process, "hostB")  # Root of hostA is trusted there.
        self.ends_well(process)

    def test_a_program_that_its_user_may_not_read(self):
        address, _ = self.daemon("--allow", "*@*")
        program = self.testbed.new_path("program")
        shutil.copy(harness.PROGRAMS / "threads", program)
        program.chmod(0o111)
        stop = self.testbed.new_path("stop")
        process = self.testbed.start("hostA", *NOBODY, program, "ids", stop, 300, cwd="/")
        process.stop_file = stop
        self.assertTrue(process.wait_ready())
        self.refused(process, address, "FILE_PERMISSION")
        self.moved(process, "hostB")
        self.ends_well(process)

    def test_rules(self):
        for rule in ("nobody", "no-such-user@hostA"):
            outcome = self.testbed.run("hostB", "migrated", "--listen", "tcp://127.0.0.1:7990",
                                       "--state", "/tmp/rules", "--socket", "/tmp/rules.sock",
                                       "--allow", rule, seconds=10)
            self.assertEqual(outcome.status, 2, outcome)
            self.assertIn(rule.partition("@")[0], outcome.errors)

    def test_room(self):
        roots = ("--allow", "root@*")
        process = self.start()
        self.refused(process, self.daemon(*roots, "--max-sessions", "0")[0], "SESSIONS")
        self.refused(process, self.daemon(*roots, "--reserve-mib", "100000000")[0], "MEMORY")
        self.assertEqual(finish(process), "")

    def test_control_group(self):
        """What the daemon's own control group leaves is all that there is."""
        group = pathlib.Path("/sys/fs/cgroup/memory")
        limit = group / f"migrate-{os.getpid()}" / "memory.limit_in_bytes"
        if not group.exists():
            group = pathlib.Path("/sys/fs/cgroup")
            limit = group / f"migrate-{os.getpid()}" / "memory.max"
        try:
            limit.parent.mkdir()
            self.addCleanup(lambda: wait_until(lambda: not remove(limit.parent)))
            limit.write_text(str(64 << 20))
        except OSError as error:
            self.skipTest(f"no control group for memory can be made: {error}")
        script = f'echo $$ > {limit.parent}/cgroup.procs && exec "$@"'
        address, _ = self.daemon("--allow", "root@*", "--reserve-mib", "0",
                                 prefix=("/bin/sh", "-c", script, "-"))
        large = self.start_keeper(mib=80)
        self.refused(large, address, "MEMORY")
        self.ends_well(large)
        small = self.start_keeper(mib=8)
        self.moved(small, address, wait="done")
        self.ends_well(small)

    def test_no_descriptors(self):
        """With so few, each step fails in turn, and the process goes on where it was."""
        process = self.start()
        for limit in (11, 14, 17, 20, 23, 26):
            address, daemon = self.daemon("--allow", "root@*",
                                          prefix=("prlimit", f"--nofile={limit}:"))
            outcome = self.testbed.control("hostA", "move", process.pid, address)
            self.assertIn(outcome.status, (REFUSED, FAILED, DONE), bytes(daemon.output))
            if outcome.status == DONE:
                break
            self.assertIn("Too many open files", outcome.text + daemon.output.decode(), limit)
            self.assertIsNone(process.popen.poll())
        self.assertEqual(finish(process), "", self.testbed.logs())

    def test_full_disk(self):
        disk = "/run/migrate/disk"
        script = f"mkdir -p {disk} && mount -t tmpfs -o size=256k tmpfs {disk} && exec \"$@\""
        address, daemon = self.daemon("--allow", "root@*", prefix=("/bin/sh", "-c", script, "-"),
                                      state=f"{disk}/state")
        # A registry exists; then there is no room for another row.
        self.testbed.run("hostB", "dd", "if=/dev/zero", f"of={disk}/fill", "bs=1k")
        self.survives(self.start(), address, daemon)

    def test_silent_strangers_are_sent_away(self):
        address, daemon = self.daemon("--allow", "root@*")
        begun = time.monotonic()
        self.peer("hostA", "plain", ADDRESSES["hostB"] + address.removeprefix("hostB"), wire.OFFER,
                  SESSION)
        self.assertLess(time.monotonic() - begun, wire.SECONDS)
        self.assertTrue(daemon.wait_output(b"did not answer in the time given"),
                        bytes(daemon.output))


if __name__ == "__main__":
    sys.path.insert(0, str(HERE))
    harness.main()
