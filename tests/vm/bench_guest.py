"""What `bench` does in the virtual machine. Its clocks count instructions: only ratios are of use."""

import argparse
import json
import os
import pathlib
import re
import statistics
import subprocess
import time

from hosts import BUILD, DONE, HERE, WORK, Daemon, Process, run, wait_until

SOURCE, DESTINATION = "10.9.0.1", "10.9.0.2"
REQUEST_BYTES, PAGE_BYTES, PUSH_BYTES = 24, 4096, 1 << 20
GIB = 1 << 30


def listens():
    """Whether perftest's server waits on its port, 18515."""
    return re.search(r":4853 \S+ 0A", "".join(pathlib.Path(f"/proc/net/{name}").read_text()
                                              for name in ("tcp", "tcp6")))


class Perftest:
    """perftest between the two devices: the source serves, the destination asks."""

    def __init__(self):
        gids = pathlib.Path("/sys/class/infiniband/rxa/ports/1/gids")
        self.gid = next(path.name for path in gids.iterdir()
                        if path.read_text().strip().endswith("ffff:0a09:0001"))

    def last_line(self, tool, *options):
        words = [tool, "-F", "-x", self.gid, *options]
        server = subprocess.Popen([*words, "-d", "rxa"], stdout=subprocess.DEVNULL)
        try:
            wait_until(listens, 30)
            shown = run(*words, "-d", "rxb", SOURCE, capture_output=True, text=True, timeout=120)
            server.wait(30)
        finally:
            server.kill()
        lines = [line.split() for line in shown.stdout.splitlines()]
        return next(line for line in reversed(lines) if line and line[0].isdigit())

    def latency_us(self, tool, size, count=200):
        """The typical latency, by polling (rxe loses events that it waits for); send_lat: one way."""
        return float(self.last_line(tool, "-s", str(size), "-n", str(count))[4])

    def write_seconds(self, size, length):
        """How long so many bytes take as RDMA WRITEs of a size."""
        gigabits = float(self.last_line("ib_write_bw", "--report_gbits", "-s", str(size), "-n",
                                        str(max(length // size, 5)))[3])
        return length * 8 / 1e9 / gigabits


class Subject:
    """bench/subject at the source."""

    def __init__(self, *options):
        self.result = WORK / f"subject-{time.monotonic_ns()}"
        self.process = Process([str(BUILD / "bench" / "subject"), "--result", str(self.result),
                                *map(str, options)], cwd="/")
        self.wait_mark("ready")

    def path(self, mark):
        return pathlib.Path(f"{self.result}.{mark}")

    def wait_mark(self, mark):
        if not wait_until(self.path(mark).exists, 240):
            raise AssertionError(f"'{mark}' does not come: {bytes(self.process.output)}")

    def finish(self):
        self.path("stop").touch()
        if self.process.wait(120) != 0:
            raise AssertionError(f"the subject failed: {bytes(self.process.output)}")
        return json.loads(self.result.read_text())


def worker_of(daemon):
    """The newest worker of a daemon."""
    socket = bytes(daemon.socket)
    return max(int(path.parent.name) for path in pathlib.Path("/proc").glob("[0-9]*/cmdline")
               if socket in path.read_bytes() and int(path.parent.name) != daemon.process.pid)


def processor_seconds(pid):
    fields = pathlib.Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def move(source, subject, *options):
    outcome = source.move(subject.process, "10.9.0.2:7070", "--transport", "rdma", *options)
    if outcome.status != DONE:
        raise AssertionError(f"{outcome}\n{source.log.read_text()}")
    return outcome.object


def walk(source, mib, *options):
    """A random walk after a move in mode demand: p50, and processor time of the source's worker."""
    subject = Subject("--touch-mib", mib, "--walk", "random", *options)
    move(source, subject, "--mode", "demand")
    worker = worker_of(source)
    before = processor_seconds(worker)
    subject.path("walk").touch()
    subject.wait_mark("walked")
    used = processor_seconds(worker) - before
    time.sleep(1)  # Until its row is up to date.
    shown = source.control("show", subject.process.pid).object["last_move"]
    seen = subject.finish()["walk"]
    if seen["bad_pages"]:
        raise AssertionError(f"wrong pages: {seen}")
    return {"p50_us": seen["p50_us"], "seconds": seen["seconds"],
            "one_sided_share": shown.get("one_sided_pages", 0) * PAGE_BYTES / (mib << 20),
            "source_seconds_per_gib": used * GIB / (mib << 20)}


def drain(source, perftest, mib):
    subject = Subject("--touch-mib", mib)
    plain = perftest.write_seconds(PUSH_BYTES, mib << 20)
    moved = move(source, subject, "--mode", "lazy", "--wait", "done")
    subject.finish()
    seconds = moved["owed_nothing_after_us"] / 1e6
    return {"seconds": seconds, "write_bw_seconds": plain, "share": plain / seconds}


def floor_us(perftest):
    local = json.loads(run(BUILD / "bench" / "floor", "local-fault", 1000, capture_output=True,
                           text=True).stdout)["p50_us"]
    asked = sum(perftest.latency_us("ib_send_lat", size) for size in (REQUEST_BYTES, PAGE_BYTES))
    read = perftest.latency_us("ib_read_lat", PAGE_BYTES)
    return {"local_fault": local, "send_there_and_back": asked, "read": read}


def measure(source, perftest, mib):
    floor = floor_us(perftest)
    two_sided, one_sided = walk(source, mib), walk(source, mib, "--shared")
    two_sided["floors"] = two_sided["p50_us"] / (floor["local_fault"] + floor["send_there_and_back"])
    one_sided["floors"] = one_sided["p50_us"] / (floor["local_fault"] + floor["read"])
    return {"floor_us": floor, "two_sided": two_sided, "one_sided": one_sided,
            "drain": drain(source, perftest, mib)}


def print_medians(runs):
    for part, figures in runs[0].items():
        values = {name: statistics.median(each[part][name] for each in runs) for name in figures}
        print(f"{part:10} " + "  ".join(f"{name} {value:.2f}" for name, value in values.items()))


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--mib", type=int, default=16)
    options = parser.parse_args()
    run(HERE / "wires")
    source = Daemon("source", f"{SOURCE}:7070", SOURCE)
    destination = Daemon("destination", f"{DESTINATION}:7070", DESTINATION)
    perftest = Perftest()
    try:
        runs = []
        for _ in range(options.runs):
            runs.append(measure(source, perftest, options.mib))
            print(json.dumps(runs[-1]), flush=True)
        print_medians(runs)
    finally:
        source.stop()
        destination.stop()


if __name__ == "__main__":
    main()
