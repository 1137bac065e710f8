"""CRIU as a peer, where a usable one is given: dump and restore, by the same heartbeat."""

import contextlib
import json
import os
import pathlib
import select
import shutil
import subprocess
import time

from .bed import DESTINATION, SOURCE, BenchError
from .runs import MOVE_AFTER, Running

LAZY_PORT = 7998
LAZY_PATIENCE = 600  # seconds, of the whole move


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


@contextlib.contextmanager
def image_folder():
    """A folder in memory that both hosts see, so that copying images between the hosts costs nothing: a
    favour to the peer."""
    images = pathlib.Path("/dev/shm") / f"bench-criu-{os.getpid()}"
    shutil.rmtree(images, ignore_errors=True)
    images.mkdir()
    try:
        yield images
    finally:
        shutil.rmtree(images, ignore_errors=True)


def bytes_in(images):
    return sum(path.stat().st_size for path in images.iterdir() if path.is_file())


def figures(running, base, begin, seconds):
    """What the program saw of a move that began then."""
    told = json.loads(running.out.read_text())
    if told["checksum"] != base["checksum"]:
        raise BenchError("CRIU: the result is not that of an unmoved run")
    gaps = [gap["us"] for gap in told["gaps"] if gap["start_ns"] + gap["us"] * 1000 >= begin]
    return {"longest_gap_us": max(gaps, default=0), **seconds}


def eager_once(bed, criu, work, mib, base):
    """Dump at the source, restore at the destination."""
    with image_folder() as images, Running(bed, work, mib) as running:
        time.sleep(base["seconds"] * MOVE_AFTER)
        begin = time.time_ns()
        command(bed, SOURCE, criu, "dump", "--tree", running.process.pid, "--images-dir", images,
                "--shell-job")
        dumped = (time.time_ns() - begin) / 1e9
        size = bytes_in(images)
        command(bed, DESTINATION, criu, "restore", "--images-dir", images, "--shell-job")
        ended = (time.time_ns() - begin) / 1e9
        return figures(running, base, begin, {"seconds_until_independent": dumped,
                                              "seconds_until_ended": ended, "image_bytes": size})


def await_line(process, what):
    """Waits for the byte that CRIU writes to --status-fd when it is ready."""
    if select.select([process.stdout], [], [], LAZY_PATIENCE)[0] and process.stdout.read(1):
        return
    raise BenchError(f"{what} did not get ready within {LAZY_PATIENCE} s")


def lazy_once(bed, criu, work, mib, base):
    """The dump stays as a server of pages; at the destination a daemon of CRIU's fetches them on faults
    and, besides, all the rest. https://criu.org/Lazy_migration. The stopped process keeps its pid until
    then, so that the other is restored in a PID namespace of its own."""
    with image_folder() as images, Running(bed, work, mib) as running:
        time.sleep(base["seconds"] * MOVE_AFTER)
        begin = time.time_ns()
        dump = bed.start(SOURCE, criu, "dump", "--tree", running.process.pid, "--images-dir", images,
                         "--shell-job", "--lazy-pages", "--address", bed.addresses[SOURCE], "--port",
                         LAZY_PORT, "--status-fd", 1, stdout=subprocess.PIPE)
        fetch = None
        try:
            await_line(dump, "criu dump --lazy-pages")
            size = bytes_in(images)
            fetch = bed.start(DESTINATION, criu, "lazy-pages", "--images-dir", images, "--work-dir", images,
                              "--page-server", "--address", bed.addresses[SOURCE], "--port", LAZY_PORT,
                              "--status-fd", 1, stdout=subprocess.PIPE)
            await_line(fetch, "criu lazy-pages")
            restore = bed.start(DESTINATION, "unshare", "--pid", "--fork", "--mount-proc", criu, "restore",
                                "--images-dir", images, "--work-dir", images, "--lazy-pages",
                                "--shell-job")
            fetched = None
            while restore.poll() is None:
                if time.time_ns() - begin > LAZY_PATIENCE * 1e9:
                    raise BenchError(f"criu restore --lazy-pages did not end within {LAZY_PATIENCE} s")
                if fetched is None and fetch.poll() is not None:
                    fetched = (time.time_ns() - begin) / 1e9
                time.sleep(0.002)
            if restore.returncode != 0:
                raise BenchError(f"criu restore --lazy-pages ended with {restore.returncode}: "
                                 f"{bed.log_ends()}")
            ended = (time.time_ns() - begin) / 1e9
        finally:
            for process in filter(None, (fetch, dump)):
                bed.end(process)
        return figures(running, base, begin, {"seconds_until_independent": fetched,
                                              "seconds_until_ended": ended, "image_bytes": size})


def measure(bed, criu, work, mib, base, count):
    """{"criu": {kind: [runs] or why there are none}}, or why CRIU is not measured at all."""
    reason = usable(criu)
    if reason:
        return {"criu": {"skipped": reason}}
    told = {"workload": work.name, "mib": mib}
    for kind, once in (("eager", eager_once), ("lazy", lazy_once)):
        try:
            told[kind] = [once(bed, criu, work, mib, base) for _ in range(count)]
        except (BenchError, subprocess.TimeoutExpired) as error:
            told[kind] = f"it failed: {error}"
    return {"criu": told}
