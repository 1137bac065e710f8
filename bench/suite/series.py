"""Series of one figure each, with the subject: freeze, fault, drain, and all of them with TLS."""

import time

from .bed import Bed, BenchError, Subject, longest_gap_us
from .facts import available_mib
from .stats import gather, ratios, spread

BOUNDARIES = {
    "freeze": "From the interrupt of the first thread at the source until the source knows that it "
              "runs at the destination; the gap is what the heartbeat inside the process saw, and "
              "holds the wait for a processor and for the first pages.",
    "fault": "From before to after the first touch of a page by the touching thread, after a move in "
             "mode demand; every page was checked for its content.",
    "drain": "From the end of the freeze until the source owes nothing, in mode lazy.",
    "tls": "The same figures with TLS between the hosts, as ratio to those in the clear, taken in "
           "turn.",
}


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


def drain_once(bed, mib, busy):
    with Subject(bed, "--touch-mib", mib, *(["--touch-random"] if busy else [])) as subject:
        move = subject.move("lazy", "done")
        result = subject.finish()
    if result["bad_touches"]:
        raise BenchError(f"{result['bad_touches']} touches found wrong content")
    if not move.get("owed_nothing_after_us"):
        raise BenchError(f"the move did not tell when nothing was owed: {move}")
    return {"seconds": move["owed_nothing_after_us"] / 1e6, "freeze_us": move["freeze_us"],
            "wire_bytes": move["wire_bytes"], "faults": move["faults"]["count"],
            "fault_p50_us": move["faults"]["p50_us"], "fault_p99_us": move["faults"]["p99_us"]}


def tls_once(bed, mib):
    freeze = freeze_once(bed, 16, 1)["freeze_us"]
    walk = fault_once(bed, "random", min(mib, 64))
    return {"freeze_us": freeze, "fault_p50_us": walk["p50_us"],
            "drain_seconds": drain_once(bed, mib, False)["seconds"]}


def entry(group, name, samples, main, bound):
    """A line of the result. `bound` is where, in the floors, that of the member `main` stands."""
    return {"group": group, "name": name, "main": main, "figures": gather(samples), "bound": bound,
            "runs": samples}


def settle(rows, floors):
    """Holds each line against its floor, when all floors are known."""
    for row in rows:
        if "bound" in row:
            floor = floors
            for key in row["bound"]:
                floor = floor[key]
            row["floor"] = floor
            row["ratio"] = ratios(row["figures"][row["main"]]["runs"], [floor])


def take(cases, runs, say):
    """Runs of each case, in turn, so that what else the machine does meets them all."""
    samples = {name: [] for name in cases}
    for turn in range(runs):
        for name, measure in cases.items():
            say(f"{name}, run {turn + 1} of {runs}")
            samples[name].append(measure())
    return samples


def fitting(sizes, skipped, what):
    """The sizes that this machine has memory for."""
    for mib in sizes:
        if available_mib() >= mib * 5 // 4 + 512:
            yield mib
        else:
            skipped.append({"what": f"{what} with {mib} MiB",
                            "reason": f"only {available_mib()} MiB of memory are free"})


def freeze(bed, plan, skipped, say):
    sizes = list(fitting(plan.freeze_mib, skipped, "freeze"))
    cases = {f"{mib} MiB, 1 thread": (mib, 1) for mib in sizes}
    cases |= {f"{plan.freeze_mib[0]} MiB, {count} threads": (plan.freeze_mib[0], count)
              for count in plan.freeze_threads if count > 1}
    samples = take({name: lambda case=case: freeze_once(bed, *case)
                    for name, case in cases.items()}, plan.runs, lambda text: say("freeze: " + text))
    return [entry("freeze", name, samples[name], "freeze_us",
                  ["freeze", str(count), "p50_us"]) for name, (_, count) in cases.items()]


def fault(bed, plan, skipped, say):
    del skipped
    samples = take({order: lambda order=order: fault_once(bed, order, plan.fault_mib)
                    for order in ("random", "sequential")}, plan.runs,
                   lambda text: say("fault: " + text))
    return [entry("fault", f"{order} walk of {plan.fault_mib} MiB", walks, "p50_us",
                  ["fault", "p50_us"]) for order, walks in samples.items()]


def drain(bed, plan, skipped, say):
    cases = {}
    for mib in fitting(plan.drain_mib, skipped, "drain"):
        cases[f"{mib} MiB, idle"] = (mib, False)
        cases[f"{mib} MiB, touching at random"] = (mib, True)
    samples = take({name: lambda case=case: drain_once(bed, *case) for name, case in cases.items()},
                   plan.runs, lambda text: say("drain: " + text))
    return [entry("drain", name, samples[name], "seconds",
                  ["drain", str(mib), "drain", "seconds"]) for name, (mib, _) in cases.items()]


def tls(bed, plan, say):
    """In turn, so that what else the machine does meets both alike."""
    plain, encrypted = [], []
    with Bed(bed.build, bed.programs, ("--tls",)) as other:
        for turn in range(plan.runs):
            say(f"tls: run {turn + 1} of {plan.runs}")
            plain.append(tls_once(bed, plan.tls_mib))
            encrypted.append(tls_once(other, plan.tls_mib))
    rows = []
    for key, figures in gather(encrypted).items():
        base = spread([sample[key] for sample in plain])
        rows.append({"group": "tls", "name": key, "main": key, "figures": {key: figures},
                     "floor": base["median"], "ratio": ratios(figures["runs"], base["runs"]),
                     "runs": encrypted})
    return rows
