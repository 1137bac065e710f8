"""Mode auto: whether it takes the mode that is best by the wish, and what its forecasts are worth."""

import statistics
import time

from . import runs, workloads
from .bed import BenchError

WISHES = ("stop", "exposure", "bytes")
NAMES = ("sequential", "random", "zipf", "pointer chase", "write-heavy", "sparse 5 %", "sparse 50 %",
         "8 threads", "STREAM", "RandomAccess")
# What a wish is about, and from which difference on a mode is worse, as in
# libmigrate/advisor/forecast.cc: a part and an amount.
FIGURES = {"stop": ("freeze_us", 0.25, 2000), "exposure": ("independence_us", 0.25, 5000),
           "bytes": ("wire_bytes", 0.05, 65536)}
ALL_BEFORE = ("eager", "precopy")
LONGER = 2  # than other runs: a program is watched before it is moved
FACTOR = 1.5  # within which a forecast is right


def work_of(name):
    return next(one for one in workloads.chosen(quick=False) if one.name == name)


def figure(sample, wish, mode):
    """What counts for a wish. In mode demand nothing is over before the program ends; where all pages
    are there before it runs, the source has nothing more that it needs, whenever it hears so."""
    value = sample[FIGURES[wish][0]]
    if wish == "exposure" and mode in ALL_BEFORE:
        return 0
    return float("inf") if value is None else value


def is_best(chosen, medians, wish):
    """Whether a mode is as good as the best, by medians of modes that were measured."""
    _, part, amount = FIGURES[wish]
    return medians[chosen] <= min(medians.values()) * (1 + part) + amount


def is_right(ratio):
    return ratio is None or 1 / FACTOR <= ratio <= FACTOR


def advised(bed, work, mib, scale, base, wish):
    """A move in mode auto."""
    with runs.Running(bed, work, mib, scale) as running:
        time.sleep(base["seconds"] * runs.MOVE_AFTER)
        move, _, resident = runs.as_moved(bed, running, "auto", ("--wish", wish))
        result = running.finish()
    if result["checksum"] != base["checksum"]:
        raise BenchError(f"{work.name}, mode auto: its result is not that of an unmoved run")
    return {"wish": wish, **runs.of_move(move, resident), "choice": move["choice"],
            "mode": move["mode"]}


def ratios_of(sample):
    """Measured to foretold. The bytes of mode demand are foretold as a bound: 1 within it."""
    told = next(one for one in sample["choice"]["modes"] if one["mode"] == sample["mode"])
    bytes_ratio = sample["wire_bytes"] / max(told["bytes"], 1)
    if told["least_bytes"] < told["bytes"]:
        bytes_ratio = max(bytes_ratio, 1.0)
    independence = told["independence_us"]
    after = sample["independence_us"]
    return {"stop": sample["freeze_us"] / max(told["stop_us"], 1), "bytes": bytes_ratio,
            # What takes a moment only depends on who gets the processor.
            "independence": after / independence if independence and after and independence > 5000
                            else None}


def measure(bed, plan, say, skip):
    """For each workload: figures of every mode, and what auto chose for each wish."""
    rows = []
    mib, scale = plan.workload_mib[0], plan.scale * LONGER
    for name in NAMES:
        work = work_of(name)
        try:
            base = runs.unmoved(bed, work, mib, scale)
            modes = {mode: [] for mode in plan.modes}
            told = []
            for turn in range(plan.runs):
                for mode, samples in modes.items():
                    say(f"auto: {name}, {mode}, run {turn + 1}")
                    samples.append(runs.moved(bed, work, mib, scale, mode, base))
                for wish in WISHES:
                    say(f"auto: {name}, for {wish}, run {turn + 1}")
                    told.append(advised(bed, work, mib, scale, base, wish))
        except (runs.Skipped, BenchError) as error:
            skip(f"mode auto, {name}", error)
            continue
        rows.append(row_of(name, mib, modes, told))
    return rows


def row_of(name, mib, modes, told):
    medians = {wish: {mode: statistics.median(figure(one, wish, mode) for one in samples)
                      for mode, samples in modes.items() if samples} for wish in WISHES}
    return {"name": name, "mib": mib,
            "medians": {wish: {mode: None if value == float("inf") else value
                               for mode, value in values.items()} for wish, values in medians.items()},
            "told": [{"wish": one["wish"], "mode": one["mode"], "ratios": ratios_of(one),
                      "best": is_best(one["mode"], medians[one["wish"]], one["wish"]),
                      "choice": one["choice"]} for one in told]}


def summary(rows):
    """Of all choices those that were best, and of all forecasts those that were right."""
    told = [one for row in rows for one in row["told"]]
    ratios = [(key, ratio) for one in told for key, ratio in one["ratios"].items() if ratio is not None]
    return {"choices": len(told), "best": sum(one["best"] for one in told),
            "workloads": len(rows),
            "workloads_best": {wish: sum(all(one["best"] for one in row["told"]
                                             if one["wish"] == wish) for row in rows)
                               for wish in WISHES},
            "forecasts": {key: sum(1 for other, _ in ratios if other == key)
                          for key in ("stop", "bytes", "independence")},
            "right": {key: sum(1 for other, ratio in ratios if other == key and is_right(ratio))
                      for key in ("stop", "bytes", "independence")}}
