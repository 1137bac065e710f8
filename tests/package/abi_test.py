#!/usr/bin/env python3
"""Holds libmigrate.so to what a job that links it may rely on.

Usage: abi_test.py ROOT LIBRARY [unittest arguments]
"""

import pathlib
import re
import shutil
import subprocess
import sys
import unittest

ROOT = pathlib.Path()
LIBRARY = ""

# The C and C++ runtime.
RUNTIME = {"libstdc++.so.6", "libgcc_s.so.1", "libm.so.6", "libc.so.6", "ld-linux-x86-64.so.2"}
# By which a library would start threads, change what signals do, print, or end the job.
FORBIDDEN = re.compile(r"^(pthread_create|thrd_create|_ZNSt6thread15_M_start_thread.*|sigaction|signal"
                       r"|sigset|sigaltstack|timer_create|setitimer|alarm"
                       r"|abort|puts|printf|fprintf|perror|syslog)(@|$)")


def readelf(*arguments):
    return subprocess.run(["readelf", "--wide", *arguments, LIBRARY], check=True,
                          capture_output=True, text=True).stdout


def dynamic_symbols():
    """(name with version, section index) of each."""
    for line in readelf("--dyn-syms").splitlines():
        fields = line.split()
        if len(fields) >= 8 and fields[0].rstrip(":").isdigit():
            yield fields[7], fields[6]


def declared():
    """What the public headers declare as exported: functions, and variables that they read themselves."""
    found = set()
    for header in (ROOT / "libmigrate/include/libmigrate").glob("*.h"):
        code = re.sub(r"/\*.*?\*/", "", header.read_text(), flags=re.DOTALL)
        found |= set(re.findall(r"^(?:extern )?MIGRATE_API\b[^;({]*?\b(migrate_\w+)\s*[(;]", code,
                                re.MULTILINE))
    return found


def constants_of_c():
    """{name: value} of the enumerators of statuses and advice."""
    found = {}
    for name in ("migrate_result.h", "migrate_advice.h"):
        text = (ROOT / "libmigrate/include/libmigrate" / name).read_text()
        found |= {word: int(value) for word, value in re.findall(r"^ *(MIGRATE_\w+) = (\d+)", text,
                                                                 re.MULTILINE)}
    return found


class Library(unittest.TestCase):
    def test_fortran_has_the_constants_of_c(self):
        text = (ROOT / "libmigrate/include/libmigrate/libmigrate.f90").read_text()
        constants = re.findall(r"parameter, public :: (MIGRATE_\w+) = (\d+)", text)
        self.assertEqual({word: int(value) for word, value in constants}, constants_of_c())

    def test_exports_what_the_headers_declare_and_nothing_else(self):
        exported = {name for name, section in dynamic_symbols() if section not in ("UND", "ABS")}
        self.assertEqual(exported, {f"{name}@@LIBMIGRATE_1" for name in declared()})

    def test_needs_the_cxx_runtime_only(self):
        dynamic = readelf("--dynamic")
        needed = set(re.findall(r"\(NEEDED\).*\[(.*)\]", dynamic))
        self.assertLessEqual(needed, RUNTIME)
        self.assertNotRegex(dynamic, r"\((RPATH|RUNPATH|TEXTREL)\)")

    def test_is_named_as_its_package(self):
        self.assertRegex(readelf("--dynamic"), r"\(SONAME\).*\[libmigrate\.so\.1\]")

    def test_starts_no_thread_handles_no_signal_prints_nothing_and_does_not_abort(self):
        imported = [name for name, section in dynamic_symbols() if section == "UND"]
        self.assertGreater(len(imported), 0)
        self.assertEqual([name for name in imported if FORBIDDEN.match(name)], [])

    @unittest.skipUnless(shutil.which("abidiff"), "abidiff is not installed (abigail-tools)")
    def test_has_the_interface_that_was_agreed_on(self):
        check = subprocess.run([ROOT / "scripts/abi", "check", LIBRARY], capture_output=True,
                               text=True)
        self.assertEqual(check.returncode, 0, f"{check.stdout}{check.stderr}\nif this is meant: "
                         f"scripts/abi accept {LIBRARY}")


if __name__ == "__main__":
    ROOT = pathlib.Path(sys.argv.pop(1)).resolve()
    LIBRARY = sys.argv.pop(1)
    unittest.main()
