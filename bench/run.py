#!/usr/bin/python3
"""Measures moves between two hosts of a testbed of its own. Needs root and a build.

Usage: run.py freeze|fault|drain|tls [--smoke] [--runs N] [--json FILE] [--build DIR]
  freeze  how long a process stands still, by size and by number of threads
  fault   how long its first touch of a page takes afterwards (mode demand)
  drain   how long until the source owes nothing (mode lazy)
  tls     all three with TLS between the hosts, against the same in the clear
docs/benchmarks.md says what the figures mean. Exit status 0 if everything could be measured,
whether or not the thresholds held; with --strict, 1 if one did not. --smoke only tries, with
little memory, that everything works.
"""

import argparse
import json
import os
import pathlib
import shutil
import signal
import statistics
import subprocess
import sys
import tempfile
import time

ROOT = pathlib.Path(__file__).resolve().parent.parent
PORT = 7999
SOURCE, DESTINATION = "hostA", "hostB"

FREEZE_SIZES_MIB = [16, 256, 1024, 4096, 8192]
FREEZE_THREADS = [1, 16, 64]
FREEZE_LIMIT_US = 2000
FREEZE_GROWTH = 1.3
FAULT_MIB = 1024
FAULT_LIMIT = 1.4
FAULT_GROWTH = 1.2  # last tenth of a walk to its first: "does not grow"
DRAIN_SIZES_MIB = [1024, 4096]
DRAIN_LIMIT = 2.0
DRAIN_BUSY_LIMIT = 2.5
TLS_MIB = 256
TLS_FREEZE_LIMIT = 1.3


class BenchError(Exception):
    """Something could not be measured."""


def wait_for(condition, what, seconds=60.0):
    end = time.monotonic() + seconds
    while not (result := condition()):
        if time.monotonic() > end:
            raise BenchError(f"waited {seconds:.0f} s for {what}, in vain")
        time.sleep(0.002)
    return result


def available_mib():
    for line in pathlib.Path("/proc/meminfo").read_text().splitlines():
        if line.startswith("MemAvailable:"):
            return int(line.split()[1]) // 1024
    return 0


def output(*command):
    result = subprocess.run(command, capture_output=True, text=True, check=False, cwd=ROOT)
    return result.stdout.strip()


def build_type(build):
    cache = build / "CMakeCache.txt"
    for line in cache.read_text().splitlines() if cache.exists() else []:
        if line.startswith("CMAKE_BUILD_TYPE"):
            return line.partition("=")[2] or "none"
    return "unknown"


def environment(build):
    cpu = "unknown"
    for line in pathlib.Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            cpu = line.partition(":")[2].strip()
            break
    dirty = output("git", "status", "--porcelain", "--untracked-files=no")
    facts = {
        "commit": (output("git", "rev-parse", "--short=12", "HEAD") or "unknown")
                  + (" with changes" if dirty else ""),
        "kernel": os.uname().release,
        "cpu": cpu,
        "cpus": len(os.sched_getaffinity(0)),
        "memory_available_mib": available_mib(),
        "page_bytes": os.sysconf("SC_PAGE_SIZE"),
        "build_type": build_type(build),
        "load_average": round(os.getloadavg()[0], 2),
        "date": time.strftime("%Y-%m-%d %H:%M:%S UTC", time.gmtime()),
    }
    warnings = []
    if facts["build_type"] not in ("Release", "RelWithDebInfo"):
        warnings.append(f"build type {facts['build_type']}: not optimised")
    if facts["load_average"] > 0.5:
        warnings.append(f"load average {facts['load_average']}: others are using this machine")
    facts["warnings"] = warnings
    return facts


def spread(values):
    """Median and median absolute deviation."""
    middle = statistics.median(values)
    return {"median": middle, "mad": statistics.median(abs(value - middle) for value in values),
            "runs": values}


def text_of(figures, digits=0):
    return f"{figures['median']:.{digits}f} +- {figures['mad']:.{digits}f}"


class Bed:
    """Two hosts, and a folder that both see. Leaves nothing behind."""

    def __init__(self, build, programs, options=()):
        self.testbed = build / "bin" / "testbed"
        self.programs = programs
        self.options = options
        self.name = "-".join(["bench", str(os.getpid()), *options]).replace("--", "")
        self.processes = []
        self.count = 0
        parent = build / "bench" / "work"
        parent.mkdir(parents=True, exist_ok=True)
        self.work = pathlib.Path(tempfile.mkdtemp(prefix=self.name + "-", dir=parent))

    def __enter__(self):
        try:
            self.command("up", 2, *self.options)
            listed = json.loads(self.command("list", "--json"))["hosts"]
            self.addresses = {host["name"]: host["address"].partition("/")[0] for host in listed}
            self.logs = [pathlib.Path(host["log"]) for host in listed]
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *error):
        for process in self.processes:
            self.end(process)
        subprocess.run([self.testbed, "--name", self.name, "down"], check=False, timeout=120,
                       stdout=subprocess.DEVNULL)
        shutil.rmtree(self.work, ignore_errors=True)

    def command(self, *words):
        words = [str(self.testbed), "--name", self.name, *map(str, words)]
        result = subprocess.run(words, capture_output=True, text=True, check=False, timeout=120)
        if result.returncode != 0:
            raise BenchError(f"{' '.join(words)}: {result.stdout}{result.stderr}")
        return result.stdout

    def words(self, host, *command):
        return [str(self.testbed), "--name", self.name, "exec", host, "--", *map(str, command)]

    def run(self, host, *command, seconds=600):
        """What a command prints, as JSON."""
        result = subprocess.run(self.words(host, *command), stdin=subprocess.DEVNULL,
                                capture_output=True, text=True, check=False, timeout=seconds)
        if result.returncode != 0:
            raise BenchError(f"{' '.join(map(str, command))} ended with {result.returncode}: "
                             f"{result.stdout}{result.stderr}\n{self.log_ends()}")
        return json.loads(result.stdout)

    def start(self, host, *command, stdout=subprocess.DEVNULL):
        with open(self.work / "errors", "ab") as errors:
            process = subprocess.Popen(self.words(host, *command), stdin=subprocess.DEVNULL,
                                       stdout=stdout, stderr=errors)
        self.processes.append(process)
        return process

    def end(self, process):
        if process.poll() is None:
            process.kill()
            try:
                process.wait(20)
            except subprocess.TimeoutExpired:
                print(f"bench: process {process.pid} does not end", file=sys.stderr)
        if process.stdout:
            process.stdout.close()
        if process in self.processes:
            self.processes.remove(process)

    def log_ends(self):
        errors = self.work / "errors"
        return "\n".join("\n".join(path.read_text(errors="replace").splitlines()[-15:])
                         for path in [*self.logs, errors] if path.exists())

    def floor(self, host, *words):
        return self.run(host, self.programs / "floor", *words)

    def serve_floor(self, host):
        process = self.start(host, self.programs / "floor", "serve", PORT, stdout=subprocess.PIPE)
        if process.stdout.readline() != b"ready\n":
            raise BenchError("floor serve did not start: " + self.log_ends())
        return process


class Subject:
    """The process that is moved."""

    def __init__(self, bed, *arguments):
        self.bed = bed
        bed.count += 1
        self.result = bed.work / f"{bed.count}.result"
        self.process = bed.start(SOURCE, bed.programs / "subject", "--result", self.result,
                                 *arguments)
        self.wait_mark("ready", 120)

    def __enter__(self):
        return self

    def __exit__(self, *error):
        self.bed.end(self.process)
        for path in self.bed.work.glob(self.result.name + "*"):
            path.unlink(missing_ok=True)

    def wait_mark(self, name, seconds=600.0):
        path = pathlib.Path(f"{self.result}.{name}")

        def there():
            if self.process.poll() is not None and not path.exists():
                raise BenchError(f"the subject ended with {self.process.returncode} before "
                                 f"'{name}':\n{self.bed.log_ends()}")
            return path.exists()
        wait_for(there, f"'{name}' of the subject", seconds)

    def mark(self, name):
        pathlib.Path(f"{self.result}.{name}").touch()

    def forget_gaps(self):
        self.process.send_signal(signal.SIGUSR1)
        self.wait_mark("marked", 10)

    def move(self, mode, wait="resumed"):
        return self.bed.run(SOURCE, "migratectl", "--json", "move", self.process.pid, DESTINATION,
                            "--mode", mode, "--wait", wait)

    def finish(self):
        self.mark("stop")
        wait_for(self.result.exists, "the subject's result", 600)
        return json.loads(self.result.read_text())


class Report:
    """Lines for people, figures for machines, thresholds for both."""

    def __init__(self, smoke):
        self.smoke = smoke
        self.figures = []
        self.thresholds = []

    def figure(self, name, text, **values):
        print(f"  {name:<32} {text}", flush=True)
        self.figures.append({"name": name, **values})

    def threshold(self, name, value, limit, unit=""):
        self.thresholds.append({"name": name, "value": value, "limit": limit,
                                "held": value <= limit})
        if not self.smoke:
            verdict = "held" if value <= limit else "NOT HELD"
            print(f"  {verdict:<9} {name}: {value:.2f}{unit}, limit {limit:.2f}{unit}", flush=True)


def longest_gap_us(result, begin_ns, end_ns):
    """The longest gap that began while the move was under way, its push included."""
    gaps = [gap["us"] for gap in result["gaps"] if begin_ns <= gap["start_ns"] <= end_ns]
    return max(gaps, default=0.0)


def freeze_once(bed, mib, threads):
    with Subject(bed, "--touch-mib", mib, "--threads", threads, "--heartbeat") as subject:
        time.sleep(0.2)
        subject.forget_gaps()
        begin = time.time_ns()
        move = subject.move("lazy")
        end = time.time_ns()
        time.sleep(0.05)
        result = subject.finish()
        return {"freeze_us": move["freeze_us"], "gap_us": result["between_hosts_us"],
                "longest_gap_us": longest_gap_us(result, begin, end),
                "phases_us": move["phases_us"]}


def report_freeze(report, name, samples):
    freeze = spread([sample["freeze_us"] for sample in samples])
    gap = spread([sample["gap_us"] for sample in samples])
    longest = spread([sample["longest_gap_us"] for sample in samples])
    phases = {phase: statistics.median(sample["phases_us"].get(phase, 0) for sample in samples)
              for phase in samples[0]["phases_us"]}
    report.figure(name, f"freeze {text_of(freeze)} us, heartbeat gap {text_of(gap)} us",
                  freeze_us=freeze, gap_us=gap, longest_gap_us=longest, phases_us=phases)
    print(f"    longest gap of the whole move {text_of(longest)} us")
    print("    " + ", ".join(f"{phase} {value:.0f}" for phase, value in phases.items()))
    return freeze["median"], gap["median"]


def bench_freeze(bed, report, arguments):
    cases = [(mib, 1) for mib in ([1, 4] if arguments.smoke else FREEZE_SIZES_MIB)]
    sizes = len(cases)
    cases += [(cases[0][0], count) for count in ([1, 4] if arguments.smoke else FREEZE_THREADS)]
    samples = [[] for _ in cases]
    # In turn, so that whatever else the machine does meets them all.
    for _ in range(arguments.runs):
        for place, (mib, threads) in enumerate(cases):
            if available_mib() >= mib * 5 // 4 + 512:
                samples[place].append(freeze_once(bed, mib, threads))
    by_size, by_count = {}, {}
    for place, (mib, threads) in enumerate(cases):
        name = f"{mib} MiB, {threads} thread" + ("s" if threads > 1 else "")
        if len(samples[place]) < arguments.runs:
            print(f"  {name:<32} left out: only {available_mib()} MiB of memory are free")
        elif place < sizes:
            by_size[mib] = report_freeze(report, name, samples[place])
        else:
            by_count[threads] = report_freeze(report, name, samples[place])
    for mib, (freeze, gap) in by_size.items():
        report.threshold(f"freeze with {mib} MiB", freeze, FREEZE_LIMIT_US, " us")
        report.threshold(f"heartbeat gap with {mib} MiB", gap, FREEZE_LIMIT_US, " us")
    medians = [freeze for freeze, _ in by_size.values()]
    report.threshold("largest size to smallest", medians[-1] / medians[0], FREEZE_GROWTH)
    report.threshold("slowest size to fastest", max(medians) / min(medians), FREEZE_GROWTH)
    for count, (freeze, _) in by_count.items():
        report.threshold(f"freeze with {count} threads", freeze, FREEZE_LIMIT_US, " us")


def fault_floor_us(bed, count):
    """A round trip of 16 bytes to 4 KiB, and a fault served locally; the better way of each."""
    server = bed.serve_floor(SOURCE)
    try:
        trip = bed.floor(DESTINATION, "round-trip", bed.addresses[SOURCE], PORT, count)
    finally:
        bed.end(server)
    fault = bed.floor(DESTINATION, "fault", count)
    return {"round_trip": trip, "local_fault": fault, "p50_us": trip["p50_us"] + fault["p50_us"]}


def fault_once(bed, order, mib):
    with Subject(bed, "--touch-mib", mib, "--walk", order) as subject:
        move = subject.move("demand")
        subject.mark("walk")
        subject.wait_mark("walked", 900)
        result = subject.finish()["walk"]
        result["freeze_us"] = move["freeze_us"]
        if result["bad_pages"]:
            raise BenchError(f"{result['bad_pages']} pages arrived with wrong content")
        return result


def bench_fault(bed, report, arguments):
    mib = 4 if arguments.smoke else arguments.mib or FAULT_MIB
    floors, walks = [], {"random": [], "sequential": []}
    for _ in range(arguments.runs):
        floors.append(fault_floor_us(bed, 200 if arguments.smoke else 10000))
        for order, results in walks.items():
            results.append(fault_once(bed, order, mib))
    for part in ("round_trip", "local_fault"):
        for way in ("blocking", "polling"):
            figures = spread([floor[part][f"{way}_p50_us"] for floor in floors])
            report.figure(f"floor: {part}, {way}", f"{text_of(figures, 1)} us", p50_us=figures)
    floor = spread([floor["p50_us"] for floor in floors])
    report.figure("floor: both, the better of each", f"{text_of(floor, 1)} us", p50_us=floor)
    for order, results in walks.items():
        values = {key: spread([walk[key] for walk in results])
                  for key in ("p50_us", "p99_us", "max_us", "seconds")}
        tenths = [statistics.median(walk["tenth_p50_us"][i] for walk in results)
                  for i in range(10)]
        ratio = spread([walk["p50_us"] / base["p50_us"]
                        for walk, base in zip(results, floors)])
        growth = spread([walk["tenth_p50_us"][9] / walk["tenth_p50_us"][0] for walk in results])
        report.figure(f"{order} walk of {mib} MiB",
                      f"p50 {text_of(values['p50_us'], 1)} us, p99 {text_of(values['p99_us'], 1)}, "
                      f"longest {values['max_us']['median']:.0f}; {text_of(ratio, 2)} floors",
                      **values, ratio=ratio, tenth_p50_us=tenths, growth=growth)
        print("    p50 of each tenth: " + " ".join(f"{value:.1f}" for value in tenths))
        report.threshold(f"{order}: p50 to the floor", ratio["median"], FAULT_LIMIT)
        report.threshold(f"{order}: last tenth's p50 to the first's", growth["median"],
                         FAULT_GROWTH)


def drain_once(bed, mib, busy):
    server = bed.serve_floor(DESTINATION)
    try:
        plain = bed.floor(SOURCE, "stream", bed.addresses[DESTINATION], PORT, mib << 20)
    finally:
        bed.end(server)
    touching = ["--touch-random"] if busy else []
    with Subject(bed, "--touch-mib", mib, *touching) as subject:
        move = subject.move("lazy", "done")
        result = subject.finish()
    if result["bad_touches"]:
        raise BenchError(f"{result['bad_touches']} touches found wrong content")
    if not move.get("owed_nothing_after_us"):
        raise BenchError(f"the move did not tell when nothing was owed: {move}")
    return {"stream_seconds": plain["seconds"], "seconds": move["owed_nothing_after_us"] / 1e6,
            "ratio": move["owed_nothing_after_us"] / 1e6 / plain["seconds"],
            "pages": move["pages"], "faults": move["faults"], "wire_bytes": move["wire_bytes"]}


def bench_drain(bed, report, arguments):
    sizes = [8] if arguments.smoke else [arguments.mib] if arguments.mib else DRAIN_SIZES_MIB
    for mib in sizes:
        for busy in (False, True):
            name = f"{mib} MiB, " + ("touching at random" if busy else "idle")
            if available_mib() < mib * 3 // 2 + 512:
                print(f"  {name:<32} left out: only {available_mib()} MiB of memory are free")
                continue
            samples = [drain_once(bed, mib, busy) for _ in range(arguments.runs)]
            time_taken = spread([sample["seconds"] for sample in samples])
            plain = spread([sample["stream_seconds"] for sample in samples])
            ratio = spread([sample["ratio"] for sample in samples])
            report.figure(name, f"{text_of(time_taken, 3)} s ({mib / 1024 / time_taken['median']:.2f}"
                          f" GiB/s), stream {text_of(plain, 3)} s; ratio {text_of(ratio, 2)}",
                          seconds=time_taken, stream_seconds=plain, ratio=ratio,
                          last_pages=samples[-1]["pages"], last_faults=samples[-1]["faults"])
            faults = samples[-1]["faults"]
            print(f"    faults {faults['count']}, p50 {faults['p50_us']:.0f} us, "
                  f"p99 {faults['p99_us']:.0f} us")
            report.threshold(f"{name}: to the stream", ratio["median"],
                             DRAIN_BUSY_LIMIT if busy else DRAIN_LIMIT)


def tls_once(bed, mib):
    """What one move of each kind costs, in the order of which less is better."""
    freeze = freeze_once(bed, 16, 1)["freeze_us"]
    walk = fault_once(bed, "random", min(mib, 64))
    with Subject(bed, "--touch-mib", mib) as subject:
        drained = subject.move("lazy", "done")["owed_nothing_after_us"]
        subject.finish()
    return {"freeze_us": freeze, "fault_p50_us": walk["p50_us"],
            "drain_seconds_per_gib": drained / 1e6 / (mib / 1024)}


def bench_tls(bed, report, arguments):
    """In turn, so that what else the machine does meets both alike."""
    mib = 8 if arguments.smoke else arguments.mib or TLS_MIB
    samples = {"plain": [], "tls": []}
    with Bed(arguments.build, arguments.programs, ("--tls",)) as encrypted:
        for _ in range(arguments.runs):
            samples["plain"].append(tls_once(bed, mib))
            samples["tls"].append(tls_once(encrypted, mib))
    for key in samples["plain"][0]:
        plain, tls = (spread([sample[key] for sample in samples[way]]) for way in samples)
        ratio = tls["median"] / plain["median"]
        report.figure(key, f"tls {text_of(tls, 2)}, plain {text_of(plain, 2)}; ratio {ratio:.2f}",
                      tls=tls, plain=plain, ratio=ratio)
        if key == "freeze_us":
            report.threshold("freeze with TLS to without", ratio, TLS_FREEZE_LIMIT)


BENCHES = {"freeze": bench_freeze, "fault": bench_fault, "drain": bench_drain,
           "tls": bench_tls}


def parse():
    parser = argparse.ArgumentParser(description="Measures moves between two hosts of a testbed.")
    parser.add_argument("what", choices=BENCHES)
    parser.add_argument("--smoke", action="store_true", help="little memory, one run, no verdict")
    parser.add_argument("--strict", action="store_true", help="exit 1 if a threshold did not hold")
    parser.add_argument("--runs", type=int, help="runs of each measurement (default: freeze 11, else 5)")
    parser.add_argument("--mib", type=int, help="memory of fault and drain, instead of the default")
    parser.add_argument("--json", type=pathlib.Path, help="write all figures to this file")
    parser.add_argument("--build", type=pathlib.Path, help="build folder (build/release)",
                        default=os.environ.get("MIGRATE_BUILD_DIR", ROOT / "build" / "release"))
    parser.add_argument("--programs", type=pathlib.Path,
                        help="folder of subject and floor (the build folder's bench)")
    arguments = parser.parse_args()
    arguments.build = pathlib.Path(arguments.build).resolve()
    arguments.programs = (arguments.programs or arguments.build / "bench").resolve()
    arguments.runs = arguments.runs or (1 if arguments.smoke else 11 if arguments.what == "freeze"
                                        else 5)
    return arguments


def main():
    arguments = parse()
    if os.geteuid() != 0:
        sys.exit("bench: needs root, for namespaces")
    for path in (arguments.build / "bin" / "testbed", arguments.programs / "subject"):
        if not path.exists():
            sys.exit(f"bench: no {path}: build first, or name the folder with --build")
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # So that the testbed is taken down.
    facts = environment(arguments.build)
    print(f"bench {arguments.what}, {arguments.runs} runs; medians +- median absolute deviations")
    for name, value in facts.items():
        if name != "warnings":
            print(f"  {name:<22} {value}")
    for warning in facts["warnings"]:
        print(f"  WARNING: {warning}")
    report = Report(arguments.smoke)
    try:
        with Bed(arguments.build, arguments.programs) as bed:
            BENCHES[arguments.what](bed, report, arguments)
    except BenchError as error:
        sys.exit(f"bench: {error}")
    if arguments.json:
        arguments.json.write_text(json.dumps(
            {"bench": arguments.what, "environment": facts, "figures": report.figures,
             "thresholds": report.thresholds}, indent=1) + "\n")
    held = all(threshold["held"] for threshold in report.thresholds)
    return 1 if arguments.strict and not held else 0


if __name__ == "__main__":
    sys.exit(main())
