"""One run of one workload, unmoved or moved, and what is known of it afterwards."""

import hashlib
import json
import pathlib
import subprocess
import time

from . import workloads
from .bed import DESTINATION, SOURCE, BenchError, longest_gap_us, wait_for
from .daemons import Daemons

PAGE_BYTES = 4096
SKIPPED = 77
FULL_MIB = 64  # at which the passes of a workload are meant
MOVE_AFTER = 0.2  # of an unmoved run
CARRIED = ("fault", "prefetch", "push", "starter", "staged")
SPAN_SECONDS = 0.01
SPANS_AFTER = 150
PICTURE_PAGES = 1024


class Skipped(Exception):
    """This workload cannot be run here."""


class Running:
    """A started workload."""

    def __init__(self, bed, work, mib, scale=1):
        self.bed, self.work = bed, work
        bed.count += 1
        self.out = bed.work / f"{bed.count}.out"
        self.own = isinstance(work, workloads.Workload)
        environment = ["OPENBLAS_NUM_THREADS=1"]
        if self.own:
            # Little memory is gone through more often, or the program ends before it is moved.
            passes = work.passes * (scale if mib <= FULL_MIB else 1) * max(FULL_MIB // mib, 1)
            command = [bed.programs / "workload", work.kind, "--result", self.out, "--mib", mib,
                       "--passes", passes, *work.options]
        else:
            if reason := workloads.missing(work):
                raise Skipped(reason)
            source = bed.work / f"{work.command[0].rpartition('/')[2]}-{scale}.in"
            if not source.exists():
                work.make_input(source, scale)
            command = [word.replace("{in}", str(source)).replace("{out}", str(self.out))
                       for word in work.command]
            environment += [f"{key}={value}" for key, value in work.environment]
        # What it prints is its result, if it makes no file.
        self.printed = self.out.with_suffix(".printed")
        with open(self.printed, "wb") as printed:
            self.process = bed.start(SOURCE, "env", *environment, *command, stdout=printed)

    def __enter__(self):
        if self.own:
            ready = pathlib.Path(f"{self.out}.ready")
            wait_for(lambda: ready.exists() or self.process.poll() is not None, "a workload", 300)
            if self.process.poll() == SKIPPED:
                errors = (self.bed.work / "errors").read_text().strip().splitlines()
                raise Skipped(errors[-1] if errors else "it cannot be run here")
            self.memory = json.loads(ready.read_text())
            pathlib.Path(f"{self.out}.go").touch()
        self.begun = time.monotonic()
        return self

    def __exit__(self, *error):
        self.bed.end(self.process)
        for path in self.bed.work.glob(self.out.stem + ".*"):
            path.unlink(missing_ok=True)

    def finish(self):
        """Its checksum, how long it took, and what it says of itself."""
        status = self.process.wait(900)
        seconds = time.monotonic() - self.begun
        if status != 0:
            raise BenchError(f"{self.work.name} ended with {status}: {self.bed.log_ends()}")
        if not self.own:
            made = self.out if self.out.exists() else self.printed
            return {"checksum": hashlib.sha256(made.read_bytes()).hexdigest()[:16],
                    "seconds": seconds}
        told = json.loads(self.out.read_text())
        return {**told, "seconds": (told["end_ns"] - told["begin_ns"]) / 1e9}

    def anonymous_kib(self):
        for line in pathlib.Path(f"/proc/{self.process.pid}/status").read_text().splitlines():
            if line.startswith("RssAnon:"):
                return int(line.split()[1])
        return 0


def unmoved(bed, work, mib, scale):
    with Running(bed, work, mib, scale) as running:
        return running.finish()


def as_moved(bed, running, mode, words=()):
    """`migratectl move`, until the process has ended; also what it had before."""
    command = bed.words(SOURCE, "migratectl", "--json", "move", running.process.pid, DESTINATION,
                        "--mode", mode, "--wait", "exit", *words)
    resident = running.anonymous_kib() * 1024 // PAGE_BYTES
    begin_ns = time.time_ns()
    done = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, text=True,
                          check=False, timeout=900)
    if done.returncode != 0:
        raise BenchError(f"{running.work.name} was not moved: {done.stdout}{done.stderr}")
    return json.loads(done.stdout), begin_ns, resident


def moved(bed, work, mib, scale, mode, base, words=()):
    """A run with a move in it; `base` is an unmoved one."""
    with Daemons(bed) as daemons, Running(bed, work, mib, scale) as running:
        time.sleep(base["seconds"] * MOVE_AFTER)
        move, begin_ns, resident = as_moved(bed, running, mode, words)
        result = running.finish()
    if result["checksum"] != base["checksum"]:
        raise BenchError(f"{work.name}, mode {mode}: its result is not that of an unmoved run")
    return {**of_move(move, resident), **of_program(result, move, begin_ns),
            **daemons.figures(), "seconds": result["seconds"],
            "run_time_ratio": result["seconds"] / base["seconds"]}


def of_move(move, resident):
    carried = sum(move["pages"].get(key, 0) for key in CARRIED)
    faults = move["faults"]
    return {
        "freeze_us": move["freeze_us"], "faults": faults["count"],
        "fault_p50_us": faults["p50_us"] if faults["count"] else None,
        "fault_p99_us": faults["p99_us"] if faults["count"] else None,
        "stalled_us": faults.get("stalled_us"), "image_bytes": move.get("image_bytes"),
        **{key: move["pages"].get(key) for key in ("prefetch_useful", "prefetch_late",
                                                   "prefetch_wasted")},
        "wire_bytes": move["wire_bytes"], "pages": move["pages"], "phases_us": move["phases_us"],
        "resident_pages": resident, "carried_pages": carried,
        "never_sent_pages": max(resident - carried, 0),
        "never_sent_share": max(resident - carried, 0) / resident if resident else None,
        "independence_us": move["owed_nothing_after_us"]}


def of_program(result, move, begin_ns):
    """What a workload of ours saw; nothing of a program that has no heartbeat."""
    if "gaps" not in result:
        return {}
    # In mode demand a program may end before it is independent.
    end_ns = result["end_ns"]
    if move["owed_nothing_after_us"] is not None and result["first_there_ns"]:
        end_ns = min(end_ns, result["first_there_ns"] + move["owed_nothing_after_us"] * 1000)
    there = result["first_there_ns"]
    first_span = int((there - result["begin_ns"]) / 1e9 / SPAN_SECONDS) if there else 0
    return {
        "longest_gap_us": longest_gap_us(result, begin_ns, end_ns),
        "first_instruction_us": (there - begin_ns) / 1000 if there else None,
        "work_after": result["steps_per_10_ms"][first_span:first_span + SPANS_AFTER]
                      if there else []}


def arrivals(bed, work, mib, scale, mode, base):
    """When and how each page of a workload came to be there, as its pager noted: a run that counts
    for nothing else, in hosts whose daemons note that (--trace-arrivals)."""
    folder = bed.state(DESTINATION) / "arrivals"
    with Running(bed, work, mib, scale) as running:
        time.sleep(base["seconds"] * MOVE_AFTER)
        move, begin_ns, _ = as_moved(bed, running, mode)
        memory = running.memory
        told = running.finish()
    # Eager, it may end in the moment in which it is there.
    begin_ns = told["first_there_ns"] or begin_ns
    path = folder / move["id"]  # It is written when all is there, or the program has ended.
    wait_for(path.exists, "the trace of a move")
    trace = path.read_text().splitlines()
    return {"workload": work.name, "mode": mode, "mib": mib,
            **sampled(trace, begin_ns / 1000, memory["start"], memory["bytes"] // PAGE_BYTES)}


def sampled(trace, begin_us, start, pages):
    """Of lines of a trace the points of a picture, one page of many: {way: [[seconds, MiB]]}, and of
    how many of these pages nothing was ever sent."""
    stride = max(pages // PICTURE_PAGES, 1)
    ways, came = {}, set()
    for line in trace:
        at_us, way, address, count = line.split()
        first = (int(address, 16) - start) // PAGE_BYTES
        for page in range(max(-(-first // stride) * stride, 0), min(first + int(count), pages), stride):
            ways.setdefault(way, []).append([round((int(at_us) - begin_us) / 1e6, 4),
                                             page * PAGE_BYTES / 2**20])
            if way not in ("zero", "never"):
                came.add(page)
    return {"sampled_pages": -(-pages // stride), "never_sent": -(-pages // stride) - len(came),
            "ways": ways}
