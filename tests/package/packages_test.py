#!/usr/bin/env python3
"""Installs the Debian packages and uses them as an administrator and as the author of a job would.

Usage: packages_test.py ROOT BUILD_DIR [unittest arguments], as root, in new mount, network and pid
namespaces (tests/package/CMakeLists.txt): all mounts and processes end with them.

Each test has a root of its own: an overlay, in memory, over the fresh Debian root that fresh_root made or
over this machine, which has the compilers.
"""

import os
import pathlib
import shutil
import subprocess
import sys
import time
import unittest

ROOT = pathlib.Path()
BUILD = pathlib.Path()
NAMES = ("libmigrate1", "libmigrate-dev", "migrate-tools", "migrate-testbed")
# What dpkg and ldconfig write for themselves.
BOOKKEEPING = ("/var/lib/dpkg/", "/var/log/", "/var/cache/ldconfig/", "/etc/ld.so.cache", "/proc/",
               "/dev/", "/sys/", "/packages/", "/run/", "/tmp/")


def call(*arguments, check=True, **options):
    done = subprocess.run([str(each) for each in arguments], text=True, timeout=300,
                          stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                          stderr=subprocess.STDOUT, **options)
    if check and done.returncode != 0:
        raise AssertionError(f"{' '.join(map(str, arguments))}: status {done.returncode}\n"
                             f"{done.stdout}")
    return done


class InRoot(unittest.TestCase):
    """A root that the test may do to what it likes."""
    LOWER = pathlib.Path("/")

    def setUp(self):
        folder = BUILD / "test-root"  # Empty for all others, whatever happens here.
        folder.mkdir(exist_ok=True)
        call("mount", "-t", "tmpfs", "tmpfs", folder)
        self.addCleanup(call, "umount", "--lazy", folder)
        for name in ("upper", "work", "root"):
            (folder / name).mkdir()
        self.root = folder / "root"
        call("mount", "-t", "overlay", "overlay", "-o",
             f"lowerdir={self.LOWER},upperdir={folder}/upper,workdir={folder}/work", self.root)
        self.addCleanup(call, "umount", "--lazy", self.root)
        for kind, place in (("proc", "proc"), ("tmpfs", "run"), ("tmpfs", "tmp")):
            call("mount", "-t", kind, kind, self.root / place)
        call("mount", "--rbind", "/dev", self.root / "dev")
        (self.root / "packages").mkdir()
        for package in (BUILD / "packages").glob("*.deb"):
            shutil.copy(package, self.root / "packages")
        self.enter()

    def enter(self):
        """A process that holds a mount namespace whose root is this root."""
        script = ('cd "$0" && pivot_root . . && umount -l . && echo ready && exec sleep infinity')
        self.holder = subprocess.Popen(
            ["unshare", "--mount", "--propagation", "private", "sh", "-c", script, str(self.root)],
            stdout=subprocess.PIPE, text=True)
        self.addCleanup(self.holder.wait)
        self.addCleanup(self.holder.kill)
        self.addCleanup(self.holder.stdout.close)
        self.assertEqual(self.holder.stdout.readline(), "ready\n")

    def inside_words(self, *arguments):
        return ["nsenter", f"--target={self.holder.pid}", "--mount", "--root", "--wdns=/", "env", "-i",
                "PATH=/usr/sbin:/usr/bin:/sbin:/bin", "LC_ALL=C.UTF-8", "HOME=/root",
                "DEBIAN_FRONTEND=noninteractive", *map(str, arguments)]

    def inside(self, *arguments, check=True):
        return call(*self.inside_words(*arguments), check=check)

    def start(self, *arguments):
        process = subprocess.Popen(self.inside_words(*arguments), stdin=subprocess.DEVNULL,
                                   stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
        self.addCleanup(process.stderr.close)
        self.addCleanup(process.wait)
        self.addCleanup(process.kill)
        return process

    def install(self, *names):
        files = [f"/packages/{path.name}" for name in names or NAMES
                 for path in (BUILD / "packages").glob(f"{name}_*.deb")]
        self.assertEqual(len(files), len(names or NAMES))
        self.inside("dpkg", "--install", *files)

    def files(self):
        """Everything in the root but what dpkg notes of it; with the contents' sizes."""
        shown = self.inside("find", "/", "-xdev", "-printf", "%p %y %m %s\n").stdout.splitlines()
        return {line if " d " not in line else line.rsplit(" ", 1)[0] for line in shown
                if not f"{line.split()[0]}/".startswith(BOOKKEEPING)}


def wait_until(condition, seconds=20.0):
    end = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > end:
            return False
        time.sleep(0.02)
    return True


class Installed(InRoot):
    """In a Debian that has what the packages need, and nothing else of ours."""
    LOWER = property(lambda self: BUILD / "fresh-root")

    def setUp(self):
        if not (BUILD / "fresh-root.needs").exists():
            self.skipTest("there is no fresh Debian root (tests/package/fresh_root says why)")
        super().setUp()

    def start_daemon(self):
        daemon = self.start("migrated", "--config", "/etc/migrate/migrated.toml")
        answers = wait_until(lambda: daemon.poll() is not None
                             or self.inside("migratectl", "ping", check=False).returncode == 0)
        self.assertTrue(answers and daemon.poll() is None, daemon.poll() and daemon.stderr.read())
        return daemon

    def test_daemon_starts_without_systemd_and_judges_a_process(self):
        self.install("migrate-tools")
        daemon = self.start_daemon()
        # nsenter, env and the program are one process, one after the other.
        job = self.start("sleep", "1000")
        name = pathlib.Path(f"/proc/{job.pid}/comm")
        self.assertTrue(wait_until(lambda: name.read_text() == "sleep\n"))
        check = self.inside("migratectl", "check", job.pid, check=False)
        # What it loses of this machine (limits of control groups, a login) may follow.
        self.assertEqual((check.stdout.splitlines()[:1], check.returncode), (["movable"], 0))
        daemon.terminate()
        self.assertEqual(daemon.wait(), 0)
        self.assertIsNone(job.poll())

    def test_daemon_is_neither_enabled_nor_open_to_others(self):
        self.install("migrate-tools")
        self.assertEqual(self.inside("find", "/etc/systemd", "-name", "*migrate*").stdout, "")
        self.start_daemon()
        listening = self.inside("ss", "-Htln").stdout.split()
        self.assertEqual([each for each in listening if each.endswith(":7070")],
                         ["127.0.0.1:7070"])

    def test_testbed_moves_a_process_which_then_keeps_its_host_from_being_removed(self):
        self.install()
        self.inside("testbed", "up", "2")
        self.addCleanup(self.inside, "testbed", "down", check=False)
        self.inside("testbed", "exec", "hostA", "--", "sh", "-c",
                    "sleep 1000 </dev/null >/dev/null 2>&1 & echo $! >/run/job")
        pid = self.inside("testbed", "exec", "hostA", "--", "cat", "/run/job").stdout.strip()
        self.inside("testbed", "exec", "hostA", "--", "migratectl", "move", pid, "hostB", "--wait",
                    "done")
        for name, reason in (("migrate-tools", "moved processes need migrated"),
                             ("migrate-testbed", "testbed default is up")):
            refused = self.inside("dpkg", "--remove", "--force-depends", name, check=False)
            self.assertIn(reason, refused.stdout)
            self.assertNotEqual(refused.returncode, 0)
        ps = self.inside("testbed", "exec", "hostB", "--", "migratectl", "ps").stdout
        self.assertIn("sleep 1000", ps)
        self.inside("testbed", "down")
        self.inside("dpkg", "--purge", *NAMES)

    def test_removal_keeps_configuration_and_purging_nothing(self):
        before = self.files()
        self.install()
        added = self.files() - before
        self.assertTrue(any("/usr/sbin/migrated " in line for line in added))
        daemon = self.start_daemon()
        self.inside("migratectl", "keys", "init")
        self.inside("dpkg", "--remove", *NAMES)
        self.assertTrue(wait_until(lambda: daemon.poll() is not None))
        left = {line.split()[0] for line in self.files() - before}
        self.assertLessEqual({"/etc/migrate/migrated.toml", "/etc/migrate/keys/ca.key"}, left)
        self.assertEqual([path for path in left
                          if not path.startswith(("/etc/migrate", "/var/lib/migrate"))], [])
        self.inside("dpkg", "--purge", *NAMES)
        self.assertEqual(self.files(), before)
        self.assertFalse(self.inside("ls", "/run").stdout)

    def test_upgrade_keeps_what_was_configured(self):
        self.install()
        self.inside("sh", "-c", "echo 'max_sessions = 7' >>/etc/migrate/migrated.toml")
        daemon = self.start_daemon()
        self.install()
        self.assertIn("max_sessions = 7", self.inside("cat", "/etc/migrate/migrated.toml").stdout)
        self.assertIsNone(daemon.poll())

    def test_systemd_is_told_what_changes(self):
        """What the packages ask of systemd, which does not run here: a program of that name notes it."""
        self.inside("sh", "-c", "mkdir -p /run/systemd/system && cd /usr/bin && printf '#!/bin/sh\n"
                    "echo \"$@\" >>/run/asked\n' >systemctl && chmod +x systemctl"
                    " && cp systemctl systemd-tmpfiles")
        asked = {}
        for step, arguments in (("install", ()), ("upgrade", ()), ("remove", ("--remove",)),
                                ("purge", ("--purge",))):
            self.inside("sh", "-c", ">/run/asked")
            if arguments:
                self.inside("dpkg", *arguments, "migrate-tools")
            else:
                self.install("migrate-tools")
            asked[step] = self.inside("cat", "/run/asked").stdout.splitlines()
        reload = "--system daemon-reload"
        self.assertEqual(asked, {"install": ["--create migrate.conf", reload],
                                 "upgrade": [reload, "--create migrate.conf", reload,
                                             "try-restart migrated.service"],
                                 "remove": ["stop migrated.service", reload],
                                 "purge": [reload]})

    def test_a_library_alone_needs_the_cxx_runtime_only(self):
        self.install("libmigrate1")
        library = "/usr/lib/x86_64-linux-gnu/libmigrate.so.1"
        self.assertIn("\tlibmigrate.so.1 ", self.inside("ldconfig", "-p").stdout)
        loaded = {line.split()[0].rsplit("/")[-1] for line in
                  self.inside("/lib64/ld-linux-x86-64.so.2", "--list", library).stdout.splitlines()}
        self.assertLessEqual(loaded, {"linux-vdso.so.1", "libstdc++.so.6", "libm.so.6",
                                      "libgcc_s.so.1", "libc.so.6", "ld-linux-x86-64.so.2"})

    def test_every_program_has_a_page_and_completions(self):
        self.install()
        listed = self.inside("dpkg", "--listfiles", *NAMES).stdout.split()
        for program, page in (("migratectl", "man1/migratectl.1.gz"),
                              ("migrated", "man8/migrated.8.gz"),
                              ("testbed", "man1/testbed.1.gz")):
            for path in (f"man/{page}", f"bash-completion/completions/{program}",
                         f"zsh/vendor-completions/_{program}",
                         f"fish/vendor_completions.d/{program}.fish"):
                self.assertIn(f"/usr/share/{path}", listed)


class Job(InRoot):
    """Jobs are built on this machine, as if the packages were installed on it, and run there."""
    SAYS = "status 1: "
    COMPILERS = (("gcc", "g++"), ("clang", "clang++"))

    def setUp(self):
        super().setUp()
        self.install("libmigrate1", "libmigrate-dev")
        # Nothing of a build tree, and no library but the installed one, can be found.
        shutil.copytree(ROOT / "tests/package/consumer", self.root / "job")
        (self.root / "hidden").mkdir()
        self.inside("mount", "--bind", "/hidden", ROOT)
        self.fortran = shutil.which("gfortran") is not None

    def check(self, program):
        self.assertIn("libmigrate.so.1 => /lib/x86_64-linux-gnu/libmigrate.so.1",
                      self.inside("ldd", program).stdout)
        self.assertIn("LIBMIGRATE_1", self.inside("readelf", "--version-info", program).stdout)
        said = self.inside(program).stdout
        self.assertIn(self.SAYS, said)
        return said

    def test_is_built_by_cmake(self):
        for c, cxx in self.COMPILERS:
            with self.subTest(compiler=c):
                build = f"/tmp/{c}"
                self.inside("cmake", "-S", "/job", "-B", build, "-G", "Ninja",
                            f"-DCMAKE_C_COMPILER={c}", f"-DCMAKE_CXX_COMPILER={cxx}",
                            f"-DCONSUMER_FORTRAN={'ON' if self.fortran else 'OFF'}")
                self.inside("cmake", "--build", build)
                self.check(f"{build}/job_cxx")
                self.assertIn("threads 1 handlers 0 descriptors 0\n",
                              self.check(f"{build}/job_c"))
                if self.fortran:
                    self.check(f"{build}/job_fortran")

    def test_is_built_by_pkg_config(self):
        flags = self.inside("pkg-config", "--cflags", "--libs", "libmigrate").stdout.split()
        for c, cxx in self.COMPILERS:
            with self.subTest(compiler=c):
                self.inside(c, "-std=c11", "-Wall", "-Wextra", "-Wpedantic", "-Werror", "/job/job.c",
                            "-o", f"/tmp/{c}_c", *flags)
                self.inside(cxx, "-std=c++20", "-Wall", "-Wextra", "-Wpedantic", "-Werror",
                            "/job/job.cc", "-o", f"/tmp/{c}_cxx", *flags)
                self.check(f"/tmp/{c}_c")
                self.check(f"/tmp/{c}_cxx")

    @unittest.skipUnless(shutil.which("gfortran"), "gfortran is not installed")
    def test_is_built_by_gfortran_and_pkg_config(self):
        flags = self.inside("pkg-config", "--libs", "libmigrate").stdout.split()
        self.inside("gfortran", "/job/job.f90", "-o", "/tmp/job_fortran", *flags)
        self.check("/tmp/job_fortran")

    @unittest.skipUnless((pathlib.Path(__file__).parents[2] / "examples").exists(),
                         "there are no examples yet")
    def test_examples_are_built_as_they_are_installed(self):
        for c, cxx in self.COMPILERS:
            with self.subTest(compiler=c):
                self.inside("cmake", "-S", "/usr/share/doc/libmigrate-dev/examples", "-B",
                            f"/tmp/{c}", f"-DCMAKE_C_COMPILER={c}", f"-DCMAKE_CXX_COMPILER={cxx}")
                self.inside("cmake", "--build", f"/tmp/{c}")

    def on_host(self, host, *arguments, check=True):
        return self.inside("testbed", "exec", host, "--", *arguments, check=check)

    def last_line(self, log):
        """What a program that writes there says at its end."""
        def said():
            return self.inside("cat", log).stdout.splitlines()
        ended = wait_until(lambda: said() and said()[-1].startswith(("sum ", "pi ")), 120)
        self.assertTrue(ended, said())
        return said()[-1]

    def start_example(self, *words):
        """On hostA; its pid, and where it writes."""
        self.started = getattr(self, "started", 0) + 1
        log = f"/shared/{self.started}.log"
        line = " ".join(map(str, words))
        # To its end, as several processes write there (SHARED_FILE says so).
        self.on_host("hostA", "sh", "-c", f"/shared/{line} </dev/null >>{log} 2>&1 & echo $! >/run/job")
        pid = self.on_host("hostA", "cat", "/run/job").stdout.strip()
        self.assertTrue(wait_until(lambda: " at hostA" in " " + self.inside("cat", log).stdout))
        return pid, log

    def test_examples_travel(self):
        """Between three hosts, by themselves, at their points and from outside: with the same numbers."""
        self.install()
        self.inside("cmake", "-S", "/usr/share/doc/libmigrate-dev/examples", "-B", "/shared")
        self.inside("cmake", "--build", "/shared")
        self.inside("testbed", "up", "3", "--share", "/shared")
        self.addCleanup(self.inside, "testbed", "down", check=False)
        for name, words, long_words, all_at_home in (
                ("stencil", (200, 200), (400, 9000), ()),
                ("monte_carlo", (100000,), (200000000,), ("hostA",) * 3),
                ("arena", (20,), (4000,), ("hostA",) * 3),
                ("kernel", (100, 20), (300, 60000), ("hostA",) * 3)):
            if not (self.root / "shared" / name).exists():
                continue  # No compiler, or no Boost.
            with self.subTest(example=name):
                alone = self.last_line(self.start_example(name, *words, *all_at_home)[1])
                moved = self.start_example(name, *words, "hostB", "hostC", "hostA")[1]
                self.assertEqual(self.last_line(moved), alone)
                self.assertIn("hostC", self.inside("cat", moved).stdout)
                alone = self.last_line(self.start_example(name, *long_words)[1])
                pid, moved = self.start_example(name, *long_words)
                for host, options in (("hostB", ("--at-point",)), ("hostC", ())):
                    self.on_host("hostA", "migratectl", "move", pid, host, "--retry", 20, *options)
                self.assertEqual(self.last_line(moved), alone)

    def test_another_major_version_is_not_found(self):
        (self.root / "job/CMakeLists.txt").write_text(
            "cmake_minimum_required(VERSION 3.25)\nproject(job LANGUAGES C)\n"
            "find_package(libmigrate 99 REQUIRED)\n")
        found = self.inside("cmake", "-S", "/job", "-B", "/tmp/other", check=False)
        self.assertNotEqual(found.returncode, 0)
        self.assertIn("compatible with requested version", found.stdout.replace("\n", " "))


if __name__ == "__main__":
    ROOT = pathlib.Path(sys.argv.pop(1)).resolve()
    BUILD = pathlib.Path(sys.argv.pop(1)).resolve()
    if os.geteuid() != 0 or os.getpid() != 1:
        sys.exit(__doc__)
    # Linux 6.18 numbers namespaces on each processor apart, and mounts a mount namespace only inside of
    # one with a lower number: testbed, in a namespace made on another processor just before, could not.
    os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
    call("mount", "--make-rprivate", "/")
    call("ip", "link", "set", "lo", "up")
    unittest.main()
