"""What the machine does with the least code, in the same shape as the engine (bench/floor)."""

import contextlib
import subprocess

from .bed import DESTINATION, SOURCE, BenchError

PORT = 7999
# An image's size is not in the result of a move; these are near it.
IMAGE_BYTES = 12_000
IMAGE_BYTES_A_THREAD = 2_000


@contextlib.contextmanager
def server(bed, host):
    process = bed.start(host, bed.programs / "floor", "serve", PORT, stdout=subprocess.PIPE)
    try:
        if process.stdout.readline() != b"ready\n":
            raise BenchError("floor serve did not start: " + bed.log_ends())
        yield bed.addresses[host]
    finally:
        bed.end(process)


def floor(bed, host, *words):
    return bed.run(host, bed.programs / "floor", *words)


def memory(bed, mib):
    return floor(bed, DESTINATION, "memory", mib)


def fault(bed, count):
    with server(bed, SOURCE) as address:
        return floor(bed, DESTINATION, "fault", address, PORT, count)


def drain(bed, mib):
    with server(bed, SOURCE) as address:
        return floor(bed, DESTINATION, "drain", address, PORT, mib)


def freeze(bed, threads, rounds):
    with server(bed, DESTINATION) as address:
        return floor(bed, SOURCE, "freeze", address, PORT, threads,
                     IMAGE_BYTES + threads * IMAGE_BYTES_A_THREAD, rounds)


def measure(bed, plan):
    """All of them once."""
    return {"fault": fault(bed, plan.floor_faults),
            "drain": {str(mib): drain(bed, mib) for mib in plan.floor_drain_mib},
            "freeze": {str(count): freeze(bed, count, plan.floor_freezes)
                       for count in plan.freeze_threads},
            "memory": memory(bed, plan.floor_memory_mib)}


def best(one, other):
    """Of two measurements of all, the better of each."""
    if one is None or other is None:
        return one or other

    def lesser(left, right, key):
        return left if left[key] <= right[key] else right
    return {
        "fault": lesser(one["fault"], other["fault"], "p50_us"),
        "freeze": {key: lesser(one["freeze"][key], other["freeze"][key], "p50_us")
                   for key in one["freeze"]},
        "drain": {key: {"bytes": one["drain"][key]["bytes"],
                        **{part: lesser(one["drain"][key][part], other["drain"][key][part],
                                        "seconds") for part in ("drain", "plain_copy")}}
                  for key in one["drain"]},
        "memory": lesser(one["memory"], other["memory"], "first_touch_ns")}


def drain_seconds(floors, count_bytes, part="drain"):
    """For so many bytes, by the rate of the nearest size that was measured."""
    nearest = min(floors["drain"].values(), key=lambda entry: abs(entry["bytes"] - count_bytes))
    return nearest[part]["seconds"] * count_bytes / nearest["bytes"]
