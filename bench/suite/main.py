"""The driver: floors, series, workloads, pictures, peers; then JSON and the report."""

import argparse
import contextlib
import dataclasses
import json
import os
import pathlib
import signal
import subprocess
import sys
import time

from . import auto, floors, peers, report, runs, series, workloads
from .bed import Bed, BenchError
from .facts import ROOT, available_mib, environment
from .stats import beaten, gather, ratios, series_medians, spread

SCHEMA = 1
MODES = ("lazy", "demand", "eager", "precopy", "hybrid")


@dataclasses.dataclass
class Plan:
    """What is measured, and how often."""
    kind: str
    runs: int = 5
    scale: int = 1
    modes: tuple = MODES
    transports: tuple = ("tcp",)
    workload_mib: tuple = (64,)
    kernel_mib: tuple = ()  # besides
    freeze_mib: tuple = (16, 256)
    freeze_threads: tuple = (1, 16, 64)
    fault_mib: int = 64
    drain_mib: tuple = (256,)
    tls_mib: int = 0
    picture_mib: int = 64
    floor_faults: int = 5000
    floor_freezes: int = 5
    floor_memory_mib: int = 256
    floor_drain_mib: tuple = (64, 256)
    seconds: float | None = 540


PLANS = {
    "smoke": Plan("smoke", runs=1, scale=3, workload_mib=(8,), freeze_mib=(4,), freeze_threads=(1, 4),
                  fault_mib=4, drain_mib=(8,), picture_mib=8, floor_faults=200, floor_freezes=2,
                  floor_memory_mib=16, floor_drain_mib=(8,), seconds=None),
    "quick": Plan("quick", scale=2),
    "full": Plan("full", scale=3, transports=("tcp", "tls"), workload_mib=(64, 1024),
                 kernel_mib=(4096,),
                 freeze_mib=(16, 256, 1024, 4096, 8192),
                 fault_mib=1024, drain_mib=(1024, 4096), tls_mib=256, picture_mib=256,
                 floor_faults=20_000, floor_freezes=11, floor_memory_mib=1024,
                 floor_drain_mib=(64, 1024, 4096), seconds=None),
}
SMOKE_WORKLOADS = ("zipf", "STREAM", "sqlite3")


class Session:
    """One run of the suite."""

    def __init__(self, bed, plan, arguments):
        self.bed, self.plan, self.arguments = bed, plan, arguments
        self.begun = time.monotonic()
        self.skipped, self.warnings, self.rows, self.results = [], [], [], []
        self.pictures, self.peers, self.floors, self.bases, self.auto = [], {}, None, {}, []

    def say(self, text):
        print(f"[{time.monotonic() - self.begun:6.1f} s] {text}", flush=True)

    def late(self, share):
        """Whether so much of the time is gone that no more may be begun."""
        return (self.plan.seconds is not None
                and time.monotonic() - self.begun > self.plan.seconds * share)

    def skip(self, what, reason):
        reason = (str(reason).strip().splitlines() or ["unknown"])[0]
        self.skipped.append({"what": what, "reason": reason})
        self.say(f"left out: {what}: {reason}")

    def measure_floors(self):
        self.say("floors")
        self.floors = floors.best(self.floors, floors.measure(self.bed, self.plan))

    def measure_series(self):
        for measure in (series.freeze, series.fault, series.drain):
            if self.late(0.5):
                self.skip(f"series {measure.__name__}", "no time was left for it")
                continue
            try:
                self.rows += measure(self.bed, self.plan, self.skipped, self.say)
            except BenchError as error:
                self.skip(f"series {measure.__name__}", error)
        if self.plan.tls_mib:
            try:
                self.rows += series.tls(self.bed, self.plan, self.say)
            except BenchError as error:
                self.skip("series tls", error)

    def cases(self):
        for work in workloads.chosen(self.plan.kind == "quick"):
            if self.plan.kind == "smoke" and work.name not in SMOKE_WORKLOADS:
                continue
            if self.arguments.workload and work.name not in self.arguments.workload:
                continue
            sizes = self.plan.workload_mib if isinstance(work, workloads.Workload) else (None,)
            sizes += self.plan.kernel_mib if work.group == "kernel" else ()
            for mib in sizes:
                if mib and available_mib() < mib * 5 // 2 + 512:
                    self.skip(f"{work.name} with {mib} MiB", "too little memory is free")
                else:
                    yield work, mib

    def measure_workloads(self):
        cases = {}
        for work, mib in self.cases():
            try:
                self.bases[work, mib] = [runs.unmoved(self.bed, work, mib, self.plan.scale)
                                         for _ in range(2)]
            except (runs.Skipped, BenchError) as error:
                self.skip(work.name, error)
                continue
            if len({one["checksum"] for one in self.bases[work, mib]}) > 1:
                self.skip(work.name, "its result differs from one unmoved run to the next")
                continue
            cases |= {(work, mib, mode, transport): [] for mode in self.plan.modes
                      for transport in self.plan.transports}
        with contextlib.ExitStack() as stack:
            beds = {"tcp": self.bed}
            if "tls" in self.plan.transports:
                beds["tls"] = stack.enter_context(Bed(self.bed.build, self.bed.programs, ("--tls",)))
            for turn in range(self.plan.runs):
                if not self.turn(beds, cases, turn):
                    self.warnings.append(f"time was up in round {turn + 1} of {self.plan.runs}: "
                                         "the workloads have fewer runs")
                    break
        for case, samples in cases.items():
            if samples:
                self.results.append(self.result_of(*case, samples))

    def turn(self, beds, cases, turn):
        """One run of each case, in turn, so that what else the machine does meets them all: also an
        unmoved run of each workload, with which those of this turn are compared. False if
        the time was up."""
        bases = {}
        for (work, mib, mode, transport), samples in cases.items():
            if self.late(0.85):
                return False
            self.say(f"{work.name}, {mib or '-'} MiB, {mode}, {transport}, run {turn + 1}")
            try:
                if (work, mib) not in bases:
                    bases[work, mib] = runs.unmoved(self.bed, work, mib, self.plan.scale)
                    self.bases[work, mib].append(bases[work, mib])
                base = bases[work, mib]
                samples.append(runs.moved(beds[transport], work, mib, self.plan.scale, mode,
                                          base))
            except BenchError as error:
                self.skip(f"{work.name}, {mode}, {transport}, run {turn + 1}", error)
        return True

    def result_of(self, work, mib, mode, transport, samples):
        bases = self.bases[work, mib]
        return {"name": work.name, "group": work.group, "mib": mib, "mode": mode,
                "transport": transport, "checksum": bases[0]["checksum"],
                "unmoved_seconds": spread([base["seconds"] for base in bases]),
                "figures": gather(samples),
                "work_after": series_medians([one.get("work_after", []) for one in samples]),
                "runs": [{key: value for key, value in one.items() if key != "work_after"}
                         for one in samples]}

    def hold_against_floors(self):
        series.settle(self.rows, self.floors)
        for row in self.results:
            figures, mode = row["figures"], row["mode"]
            freeze = self.floors["freeze"]["1"]["p50_us"]
            row["ratios"] = {}
            if mode == "eager":
                # It stands still for a copy of all it has.
                freeze += 1e6 * floors.drain_seconds(
                    self.floors, figures["wire_bytes"]["median"], "plain_copy")
            row["ratios"]["freeze_us"] = ratios(figures["freeze_us"]["runs"], [freeze])
            if mode == "demand" and "fault_p50_us" in figures:
                row["ratios"]["fault_p50_us"] = ratios(figures["fault_p50_us"]["runs"],
                                                       [self.floors["fault"]["p50_us"]])
            if mode == "lazy" and "independence_us" in figures:
                row["ratios"]["independence_us"] = ratios(
                    figures["independence_us"]["runs"],
                    [1e6 * floors.drain_seconds(self.floors, figures["wire_bytes"]["median"])])
        for what, ratio in [
                *((f"{row['group']}, {row['name']}", row.get("ratio")) for row in self.rows
                  if row["group"] != "tls"),
                *((f"{row['name']}, {row['mode']}, {key}", ratio) for row in self.results
                  for key, ratio in row["ratios"].items())]:
            if beaten(ratio):
                self.warnings.append(f"{what}: {ratio['median']:.2f} of its floor: the floor is "
                                     "wrong, or was taken while others used the machine")

    def measure_auto(self):
        self.auto = auto.measure(self.bed, self.plan, self.say, self.skip)

    def draw(self):
        """The picture of pages that arrive."""
        work = next(one for one in workloads.SYNTHETIC if one.name == "zipf")
        try:
            with Bed(self.bed.build, self.bed.programs, ("--daemon-arg=--trace-arrivals",)) as bed:
                base = runs.unmoved(bed, work, self.plan.picture_mib, self.plan.scale)
                for mode in self.plan.modes:
                    self.say(f"picture: {mode}")
                    self.pictures.append(
                        runs.arrivals(bed, work, self.plan.picture_mib, self.plan.scale, mode, base))
        except BenchError as error:
            self.skip("picture of pages that arrive", error)

    def measure_peers(self):
        work = next(one for one in workloads.SYNTHETIC if one.name == "zipf")
        mib = 1024 if self.plan.kind == "full" else self.plan.workload_mib[0]
        base = None if peers.usable(self.arguments.criu) else runs.unmoved(self.bed, work, mib, 1)
        self.peers = peers.measure(self.bed, self.arguments.criu, work, mib, base, self.plan.runs)

    def note_transports(self):
        """RDMA has a machine of its own."""
        if not any(pathlib.Path("/sys/class/infiniband").glob("*")):
            self.skip("transport rdma", "this machine has no RDMA device; tests/vm/bench measures "
                                        "it in virtual machines")
        else:
            self.skip("transport rdma", "the testbed's hosts have no RDMA; see docs/rdma.md")

    def all(self):
        self.note_transports()
        self.measure_floors()
        self.measure_series()
        self.measure_workloads()
        if self.plan.kind == "full":
            self.measure_auto()
        self.draw()
        self.measure_peers()
        self.measure_floors()  # The better of before and after.
        self.hold_against_floors()


def parse(words):
    parser = argparse.ArgumentParser(
        prog="bench", description="Measures what each mode costs, and how far that is from what "
                                  "the machine can do. docs/benchmarks.md tells more.")
    kind = parser.add_mutually_exclusive_group(required=True)
    kind.add_argument("--quick", dest="kind", action="store_const", const="quick",
                      help="some workloads, little memory: under ten minutes")
    kind.add_argument("--full", dest="kind", action="store_const", const="full",
                      help="all of them, up to 8 GiB; takes hours, needs nobody")
    kind.add_argument("--smoke", dest="kind", action="store_const", const="smoke",
                      help="one run with little memory: only tries that all works")
    kind.add_argument("--report", type=pathlib.Path, metavar="JSON",
                      help="only write the report of an earlier run anew")
    parser.add_argument("--out", type=pathlib.Path, help="folder of results.json and report.html "
                                                         "(build/PRESET/bench/DATE)")
    parser.add_argument("--criu", metavar="PATH", help="a usable criu, as a peer")
    parser.add_argument("--build", type=pathlib.Path, help="build folder (build/release)",
                        default=os.environ.get("MIGRATE_BUILD_DIR", ROOT / "build" / "release"))
    parser.add_argument("--programs", type=pathlib.Path,
                        help="folder of subject, workload and floor (the build folder's bench)")
    parser.add_argument("--runs", type=int, help="runs of each measurement (5)")
    parser.add_argument("--only", metavar="PART",
                        choices=("floors", "series", "workloads", "auto"),
                        help="only this part, and floors")
    parser.add_argument("--workload", action="append", metavar="NAME",
                        help="only this workload; may be given several times")
    parser.add_argument("--mib", type=int, action="append", metavar="MIB",
                        help="only workloads of this size; may be given several times")
    parser.add_argument("--transport", choices=("tcp", "tls"), help="workloads only over this one")
    arguments = parser.parse_args(words)
    known = [work.name for work in workloads.chosen(quick=arguments.kind == "quick")]
    for name in arguments.workload or []:
        if name not in known:
            parser.error(f"there is no workload {name!r}; there are: {', '.join(known)}")
    if any(mib < 1 for mib in arguments.mib or []):
        parser.error("--mib: at least 1")
    arguments.build = pathlib.Path(arguments.build).resolve()
    arguments.programs = (arguments.programs or arguments.build / "bench").resolve()
    arguments.out = arguments.out or (arguments.build / "bench" /
                                      time.strftime("%Y-%m-%d-%H%M%S", time.gmtime()))
    return arguments


def take(arguments):
    """Runs the suite; what came of it."""
    plan = dataclasses.replace(PLANS[arguments.kind])
    if arguments.runs:
        plan.runs = arguments.runs
    if arguments.mib:
        plan.workload_mib, plan.kernel_mib = tuple(arguments.mib), ()
    if arguments.transport:
        plan.transports = (arguments.transport,)
    facts = environment(arguments.build)
    with Bed(arguments.build, arguments.programs) as bed:
        session = Session(bed, plan, arguments)
        if arguments.only:
            session.measure_floors()
            if arguments.only != "floors":
                getattr(session, f"measure_{arguments.only}")()
            session.measure_floors()
            session.hold_against_floors()
        else:
            session.all()
        facts["seconds"] = round(time.monotonic() - session.begun, 1)
    again = environment(arguments.build, session.floors["memory"]["first_touch_ns"])
    facts["load_average_at_end"] = again["load_average"]
    warnings = list(dict.fromkeys(facts.pop("warnings") + again["warnings"] + session.warnings))
    return {"schema": SCHEMA, "kind": plan.kind, "plan": dataclasses.asdict(plan),
            "environment": facts, "warnings": warnings, "skipped": session.skipped,
            "floors": session.floors, "series": session.rows, "workloads": session.results,
            "pictures": session.pictures, "peers": session.peers, "auto": session.auto}


def main(words=None):
    arguments = parse(words)
    if arguments.report:
        results = json.loads(arguments.report.read_text())
        path = arguments.report.with_name("report.html")
        report.write(results, path)
        print(path)
        return 0
    if os.geteuid() != 0:
        sys.exit("bench: needs root, for namespaces")
    for path in (arguments.build / "bin" / "testbed", arguments.programs / "workload"):
        if not path.exists():
            sys.exit(f"bench: no {path}: build first, or name the folder with --build")
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # So that the testbed is taken down.
    try:
        results = take(arguments)
    except (BenchError, subprocess.TimeoutExpired) as error:
        sys.exit(f"bench: {error}")
    arguments.out.mkdir(parents=True, exist_ok=True)
    (arguments.out / "results.json").write_text(json.dumps(results, indent=1) + "\n")
    report.write(results, arguments.out / "report.html")
    for warning in results["warnings"]:
        print(f"WARNING: {warning}")
    print(f"{arguments.out / 'results.json'}\n{arguments.out / 'report.html'}")
    return 0
