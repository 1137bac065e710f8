#!/usr/bin/python3
"""Every property of tests/programs, in each mode, moved there and back at random moments."""

import os
import select
import subprocess
import time

import harness
from harness import DONE, MODES, MOVES, finish, random_of, travel

PROGRAMS = ["threads", "registers", "signals", "kernel_pointers", "waits", "clocks", "process",
            "mappings", "files", "descriptors", "sockets", "memory", "owed", "owed_calls"]

# Where rounds may matter: what has to do with memory, and with waiting, as there is one stop more.
# All others by MIGRATE_MODES.
ROUND_PROGRAMS = ["mappings", "memory", "owed", "owed_calls", "threads", "waits"]


def modes_of(program):
    chosen = "MIGRATE_MODES" in os.environ or program not in ROUND_PROGRAMS
    return MODES if chosen else MODES + ["precopy", "hybrid"]


def make_property(program, name, mode):
    def job(test):
        source = random_of(program, name, mode)
        process = test.testbed.start_program("hostA", program, name)
        # There and back, and for half of them there once more, so that it ends away from home.
        problem = travel(test.testbed, process, mode, 2 * MOVES + source.randrange(2), source)
        if problem:
            process.kill()
            return problem
        time.sleep(source.uniform(0, 0.2))
        return finish(process)
    return job


def make_echo(mode):
    """Standard input and output relayed: what comes out is what went in, to its end."""
    def job(test):
        source = random_of("echo", mode)
        process = test.testbed.start_program("hostA", "streams", "echo", stdin=-1)
        process.limit(120)
        blocks = [os.urandom(source.randrange(1, 200_000)) for _ in range(40 * MOVES)]
        moves = iter(["hostB", "hostA"] * MOVES)
        for number, block in enumerate(blocks):
            process.stdin.write(block)
            process.stdin.flush()
            if number % 20 == 10:
                outcome = test.testbed.move("hostA", process.pid, next(moves), mode)
                if outcome.status != DONE:
                    return str(outcome)
        process.stdin.close()
        status = process.wait()
        expected = b"ready\n" + b"".join(blocks) + b"ok\n"
        if process.output != expected or status != harness.SURVIVED:
            return (f"ended with {status}, {len(process.output)} bytes out for "
                    f"{len(expected)}; same beginning: "
                    f"{len(os.path.commonprefix([bytes(process.output), expected]))}")
        return ""
    return job


def numbered(output, word):
    """What is wrong with lines that should count up from 0."""
    lines = [line for line in bytes(output).splitlines() if line.startswith(word)]
    for number, line in enumerate(lines):
        if line != word + b" %d" % number:
            return f"line {number} is {line}"
    return "" if lines else "no lines"


def make_lines(mode):
    """Output as fast as the reader takes it, while moved."""
    def job(test):
        process = test.testbed.start_program("hostA", "streams", "lines")
        problem = travel(test.testbed, process, mode, 2 * MOVES + 1, random_of("lines", mode))
        return problem or finish(process) or numbered(process.output, b"line")
    return job


def make_ticks(mode):
    """Two streams that lead to different places."""
    def job(test):
        errors = test.testbed.new_path("errors")
        reader, writer = os.pipe()
        process = test.testbed.start_program("hostA", "streams", "ticks", stderr=writer)
        os.close(writer)
        problem = travel(test.testbed, process, mode, 2 * MOVES + 1, random_of("ticks", mode))
        problem = problem or finish(process) or numbered(process.output, b"tick")
        if problem:
            os.close(reader)
            return problem
        with os.fdopen(reader, "rb") as stream:
            errors.write_bytes(stream.read())
        return numbered(errors.read_bytes(), b"tick")
    return job


def make_closed_output(mode):
    """Nobody reads any more: the program learns it as it would at home."""
    def job(test):
        reader, writer = os.pipe()
        stop = test.testbed.new_path()
        process = test.testbed.start("hostA", "sh", "-c", 'exec "$@" >&2', "sh",
                                     harness.PROGRAMS / "streams", "closed_output", stop,
                                     stderr=writer)
        os.close(writer)
        with os.fdopen(reader, "rb") as stream:
            if stream.readline() != b"ready\n":
                return "not ready"
            problem = travel(test.testbed, process, mode, 1, random_of("closed_output", mode))
        if problem:
            return problem
        stop.touch()
        status = process.wait()
        return "" if status == harness.SURVIVED else f"ended with {status}"
    return job


def make_terminal(mode):
    """A terminal as standard input and output."""
    def job(test):
        master, slave = os.openpty()
        stop = test.testbed.new_path()
        process = test.testbed.start("hostA", "sh", "-c", 'exec "$@" >&0', "sh",
                                     harness.PROGRAMS / "streams", "echo", stop, stdin=slave)
        os.close(slave)
        output = b""

        def read_until(words, count=1):
            nonlocal output
            while output.count(words) < count:
                if not select.select([master], [], [], 20)[0]:
                    raise OSError(f"no {words}")
                output += os.read(master, 1000)
        try:
            read_until(b"ready")
            for number in range(2 * MOVES):
                os.write(master, b"before %d\n" % number)
                outcome = test.testbed.move("hostA", process.pid, ["hostB", "hostA"][number % 2],
                                            mode)
                if outcome.status != DONE:
                    return str(outcome)
                os.write(master, b"after %d\n" % number)
                read_until(b"after %d\r\n" % number, 2)  # Its echo, and the program's.
            os.write(master, b"\x04")  # End of file, as typed.
            status = process.wait(20)
            return "" if status == harness.SURVIVED else f"ended with {status}: {output}"
        except OSError as error:
            return f"{error}; status {process.wait(1)}, output {output}"
        finally:
            os.close(master)
    return job


WATCHER = """
import glob
while True:
    for path in glob.glob("/proc/[0-9]*/cmdline") + glob.glob("/proc/[0-9]*/environ"):
        try:
            with open(path, "rb") as file:
                file.read()
        except OSError:
            pass
"""


def make_watched(mode):
    """Something on the machine looks at every process all the time, as monitors and ps do."""
    def job(test):
        watcher = subprocess.Popen(["nice", "python3", "-c", WATCHER])
        try:
            stop = test.testbed.new_path()
            variables = [f"VARIABLE{number}={'x' * 200}" for number in range(200)]
            process = test.testbed.start("hostA", "env", *variables, harness.PROGRAMS / "process",
                                         "names", stop, 600)
            process.stop_file = stop
            if not process.wait_ready():
                return f"not ready: {bytes(process.output)}"
            problem = travel(test.testbed, process, mode, 4 * MOVES, random_of("watched", mode),
                             longest=0.1)
            return problem or finish(process)
        finally:
            watcher.kill()
            watcher.wait()
    return job


def make_cases():
    for program in PROGRAMS:
        case = type(program.title().replace("_", ""), (harness.GeneratedJobs,), {})
        for (name,) in harness.list_properties(program):
            for mode in modes_of(program):
                harness.add_job(case, f"{name}_{mode}", make_property(program, name, mode))
        yield case
    case = type("Streams", (harness.GeneratedJobs,), {})
    for mode in MODES:
        harness.add_job(case, f"echo_{mode}", make_echo(mode))
        harness.add_job(case, f"lines_{mode}", make_lines(mode))
        harness.add_job(case, f"ticks_{mode}", make_ticks(mode))
        harness.add_job(case, f"closed_output_{mode}", make_closed_output(mode))
        harness.add_job(case, f"terminal_{mode}", make_terminal(mode))
        harness.add_job(case, f"watched_{mode}", make_watched(mode))
    yield case


for generated in make_cases():
    globals()[generated.__name__] = generated
del generated


def load_tests(_loader, tests, _pattern):
    return harness.ParallelSuite(harness.flatten(tests))


if __name__ == "__main__":
    harness.main()
