"""CRIU as a peer, where a usable one is given: dump and restore, by the same heartbeat."""

import json
import os
import pathlib
import shutil
import subprocess
import time

from .bed import DESTINATION, SOURCE, BenchError
from .runs import Running


def usable(criu):
    """Why it is not, or None."""
    if criu is None:
        return "none was given (--criu PATH)"
    if shutil.which(str(criu)) is None:
        return f"{criu} cannot be run"
    checked = subprocess.run([criu, "check"], capture_output=True, text=True, check=False,
                             timeout=60)
    if checked.returncode != 0:
        last = (checked.stdout + checked.stderr).strip().splitlines()[-1:]
        return f"'{criu} check' fails: {' '.join(last) or checked.returncode}"
    return None


def command(bed, host, *words):
    done = subprocess.run(bed.words(host, *words), stdin=subprocess.DEVNULL, capture_output=True,
                          text=True, check=False, timeout=600)
    if done.returncode != 0:
        raise BenchError(f"{' '.join(map(str, words[:2]))} ended with {done.returncode}: "
                         f"{(done.stdout + done.stderr)[-2000:]}")


def eager_once(bed, criu, work, mib, base):
    """Dump at the source, restore at the destination. The images lie in memory that both hosts
    see, so the copy between the hosts costs nothing here: a favour to the peer."""
    images = pathlib.Path("/dev/shm") / f"bench-criu-{os.getpid()}"
    shutil.rmtree(images, ignore_errors=True)
    images.mkdir()
    try:
        with Running(bed, work, mib) as running:
            time.sleep(base["seconds"] * 0.2)
            begin = time.time_ns()
            command(bed, SOURCE, criu, "dump", "--tree", running.process.pid, "--images-dir",
                    images, "--shell-job")
            size = sum(path.stat().st_size for path in images.iterdir())
            command(bed, DESTINATION, criu, "restore", "--images-dir", images, "--shell-job")
            took = (time.time_ns() - begin) / 1e9
            result = running.out.read_text()
    finally:
        shutil.rmtree(images, ignore_errors=True)
    told = json.loads(result)
    if told["checksum"] != base["checksum"]:
        raise BenchError("CRIU: the result is not that of an unmoved run")
    gaps = [gap["us"] for gap in told["gaps"] if gap["start_ns"] + gap["us"] * 1000 >= begin]
    return {"longest_gap_us": max(gaps, default=0), "seconds_until_ended": took,
            "image_bytes": size}


def measure(bed, criu, work, mib, base, runs):
    reason = usable(criu)
    if reason:
        return {"criu": {"skipped": reason}}
    try:
        return {"criu": {"workload": work.name, "mib": mib,
                         "runs": [eager_once(bed, criu, work, mib, base) for _ in range(runs)],
                         "lazy": "not measured: its page server is not driven yet"}}
    except (BenchError, subprocess.TimeoutExpired) as error:
        return {"criu": {"skipped": f"it failed: {error}"}}
