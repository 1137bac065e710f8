#!/usr/bin/python3
"""Real programs moved in mid-run: their output and exit status are those of an unmoved run."""

import hashlib
import os
import random
import shutil
import subprocess
import threading
import time

import harness
from harness import DONE, MODES, OTHER, PROGRAMS, REFUSED, SCALE, random_of

INPUTS = harness.BUILD / "tests" / "inputs"
PYTHON = "/usr/bin/python3"


def scaled(amount):
    return max(1, int(amount * SCALE))


def make_input(name, megabytes):
    """A file of words and numbers, always the same for one size."""
    path = INPUTS / f"{name}-{megabytes}"
    if path.exists():
        return path
    INPUTS.mkdir(parents=True, exist_ok=True)
    source = random.Random(name)
    words = ["%x" % source.getrandbits(source.randrange(8, 60)) for _ in range(20_000)]
    with open(f"{path}.new", "w", encoding="ascii") as file:
        while file.tell() < megabytes << 20:
            lines = [" ".join(source.choices(words, k=8)) for _ in range(10_000)]
            file.write("\n".join(lines) + "\n")
    os.rename(f"{path}.new", path)
    return path


def digest(path):
    found = hashlib.sha256()
    with open(path, "rb") as file:
        while chunk := file.read(1 << 20):
            found.update(chunk)
    return found.hexdigest()


class Work:
    """A command and what it makes: standard output, and a file "output" in its folder."""

    def __init__(self, command, status=0, stdin=None, options=(), result=None, moves=3):
        self.command = [str(word) for word in command]
        self.status = status
        self.stdin = stdin
        self.options = options  # of migratectl move
        self.moves = moves
        self._result = result or self._digest_output

    @staticmethod
    def _digest_output(folder):
        path = folder / "output"
        return digest(path) if path.exists() else ""

    def open_input(self):
        return open(self.stdin, "rb") if self.stdin else subprocess.DEVNULL

    def results(self, folder, status, output):
        return {"status": status, "output": hashlib.sha256(output).hexdigest(),
                "length": len(output), "file": self._result(folder)}


def xz():
    return Work(["xz", "-6", "-T2", "--block-size=2MiB", "-k", "-c", make_input("text", scaled(5))])


def sort():
    text = make_input("lines", scaled(60))
    return Work(["sort", "--parallel=2", "-S", "24M", "-T", ".", "-o", "output", text])


PURE = """
import hashlib
table = {}
total = 0
for round in range(%d):
    for number in range(40000):
        key = hashlib.md5(b"%%d" %% (number * 7919 %% 100003)).hexdigest()
        table[key] = table.get(key, 0) + round * number
    total = (total * 31 + sum(sorted(table.values())[:1000])) %% (1 << 64)
    print(round, len(table), total, flush=True)
"""


def python_pure():
    return Work([PYTHON, "-c", PURE % scaled(20)])


NUMPY = """
import numpy
source = numpy.random.default_rng(1)
field = source.integers(0, 1 << 40, size=(4000, 4000), dtype=numpy.uint64)
total = 0
for round in range(%d):
    field = (field * numpy.uint64(6364136223846793005) + numpy.uint64(round)) ^ (field >> numpy.uint64(7))
    small = (field[:500, :500] %% numpy.uint64(1000)).astype(numpy.float64)
    product = small @ small.T
    total = (total * 31 + int(field.sum()) + int(product.sum())) %% (1 << 64)
    if round %% 5 == 0:
        field = numpy.sort(field, axis=1)
    print(round, total, flush=True)
"""


def python_numpy():
    return Work([PYTHON, "-c", NUMPY % scaled(6)])


ASYNCIO = """
import asyncio, hashlib, threading
async def worker(number, queue):
    digest = hashlib.sha256()
    for step in range(%d):
        digest.update(await queue.get())
        if step %% 7 == 0:
            await asyncio.sleep(0.002)
    return number, digest.hexdigest()
def feed(loop, queue, number):
    for step in range(%d):
        text = str(number * step).encode() * 50
        asyncio.run_coroutine_threadsafe(queue.put(text), loop).result()
async def main():
    loop = asyncio.get_running_loop()
    queues = [asyncio.Queue(5) for _ in range(4)]
    feeders = [threading.Thread(target=feed, args=(loop, queue, number))
               for number, queue in enumerate(queues)]
    for feeder in feeders:
        feeder.start()
    for result in await asyncio.gather(*(worker(*each) for each in enumerate(queues))):
        print(result)
    hashed = await loop.run_in_executor(None, lambda: sum(i * i %% 7 for i in range(300000)))
    print(hashed)
asyncio.run(main())
"""


def asyncio_threads():
    """Its loop is woken by a pair of sockets."""
    return Work([PYTHON, "-c", ASYNCIO % (scaled(1500), scaled(1500))])


LOCKS = """
import multiprocessing, tempfile, threading
lock, count = multiprocessing.Lock(), multiprocessing.Value("q", 0)
file = tempfile.TemporaryFile()
def work(number):
    for step in range(%d):
        with lock:
            count.value += number * step
            file.write(b"%%d %%d\\n" %% (number, count.value & 1))
threads = [threading.Thread(target=work, args=(number,)) for number in range(1, 4)]
for thread in threads:
    thread.start()
for thread in threads:
    thread.join()
file.seek(0)
print(count.value, sum(1 for line in file))
"""


def deleted_files():
    """A lock, a counter and a temporary file of Python's: none of them has a name."""
    return Work([PYTHON, "-c", LOCKS % scaled(100_000)])


def dump_database(folder):
    dump = subprocess.run(["sqlite3", folder / "database", ".dump"], check=True,
                          capture_output=True).stdout
    return hashlib.sha256(dump).hexdigest()


def sqlite():
    script = INPUTS / f"script-{scaled(60)}.sql"
    if not script.exists():
        INPUTS.mkdir(parents=True, exist_ok=True)
        lines = ["create table lines (number integer primary key, text text);"]
        for number in range(scaled(60)):
            lines.append(f"insert into lines values ({number}, hex(zeroblob({number % 500})));")
            lines.append("with recursive c(x) as (select 1 union all select x + 1 from c "
                         "where x < 60000) select sum(x * x % 1009) from c;")
        script.write_text("\n".join(lines) + "\nselect count(*), sum(length(text)) from lines;\n")
    return Work(["sqlite3", "database"], stdin=script, options=["--retry", "10"],
                result=dump_database)


GAWK = """
BEGIN {
  srand(1)
  for (round = 0; round < %d; ++round) {
    for (i = 0; i < 60000; ++i) {
      key = "k" ((i * 7919 + round) %% 50021)
      count[key] += int(rand() * 1000)
      text[i %% 1000] = text[i %% 1000] substr(key, 2, 1)
    }
    total = 0
    for (key in count) total = (total + count[key]) %% 1000003
    print round, total, length(text[7])
    fflush()
  }
}
"""


def gawk():
    return Work(["gawk", GAWK % scaled(15)])


PERL = """
my (%%count, $total); $| = 1;
for my $round (0 .. %d) {
  for my $i (0 .. 60000) {
    my $key = "k" . (($i * 7919 + $round) %% 50021);
    $count{$key} += ($i * $round) %% 1009;
    $total = ($total * 31 + length($key) + $count{$key}) %% 1000000007;
  }
  print "$round $total ", scalar(keys %%count), "\\n";
}
"""


def perl():
    return Work(["perl", "-e", PERL % scaled(50)])


def bc():
    script = INPUTS / f"pi-{scaled(3)}.bc"
    if not script.exists():
        INPUTS.mkdir(parents=True, exist_ok=True)
        script.write_text("".join(f"scale={1500 + turn}; 4*a(1)\n" for turn in range(scaled(3))))
    return Work(["bc", "-l"], stdin=script)


def openssl_cipher():
    return Work(["openssl", "enc", "-aes-256-ctr", "-pbkdf2", "-iter", str(scaled(900_000)),
                 "-pass", "pass:word", "-S", "0011223344556677", "-in",
                 make_input("lines", scaled(60)), "-out", "output"])


def openssl_digest():
    return Work(["openssl", "dgst", "-sha3-512", make_input("lines", scaled(60))] +
                [make_input("lines", scaled(60))] * 4)


def openmp_blas():
    return Work([PROGRAMS / "blas", scaled(120)])


def static_assembly():
    return Work([PROGRAMS / "static_loop", min(9, 2 + scaled(1))], status=7)


WORKS = [xz, sort, python_pure, python_numpy, asyncio_threads, deleted_files, sqlite, gawk,
         perl, bc, openssl_cipher, openssl_digest, openmp_blas, static_assembly]


references = {}
reference_locks = {make_work.__name__: threading.Lock() for make_work in WORKS}


def reference(test, work, name):
    """The results of an unmoved run, which all modes are compared with, and how long it took."""
    with reference_locks[name]:
        if name not in references:
            references[name] = run_unmoved(test, work, name)
        return references[name]


def run_unmoved(test, work, name):
    folder = test.testbed.work / f"{name}.unmoved"
    folder.mkdir()
    begin = time.monotonic()
    with_input = work.open_input()
    process = test.testbed.start("hostA", *work.command, cwd=folder, stdin=with_input)
    status = process.wait(3600)
    took = time.monotonic() - begin
    if hasattr(with_input, "close"):
        with_input.close()
    return work.results(folder, status, bytes(process.output)), took


def run_moved(test, work, name, mode, took, tries=3):
    """The results of a run moved in its midst; what went wrong, or nothing."""
    source = random_of(name, mode)
    folder = test.testbed.work / f"{name}.{mode}.{tries}"
    folder.mkdir()
    with_input = work.open_input()
    process = test.testbed.start("hostA", *work.command, cwd=folder, stdin=with_input)
    if hasattr(with_input, "close"):
        with_input.close()
    moved = 0
    for number in range(work.moves):
        time.sleep(source.uniform(0.2, 0.7) * min(took, 60) / work.moves)
        outcome = test.testbed.move("hostA", process.pid, ["hostB", "hostA"][number % 2], mode,
                                    options=work.options)
        if outcome.status != DONE:
            if outcome.status in (OTHER, REFUSED) and process.wait(1) is not None:
                if moved:
                    break  # It had ended already.
                if tries > 1:  # Far quicker than the unmoved run: the machine is busy at times.
                    return run_moved(test, work, name, mode, took / 3, tries - 1)
            process.kill()
            return None, f"move {number + 1}: {outcome}; output {bytes(process.output[-300:])}"
        moved += 1
    status = process.wait(3600)
    return work.results(folder, status, bytes(process.output)), ""


def make_real(make_work, mode):
    name = make_work.__name__

    def job(test):
        work = make_work()
        if not shutil.which(work.command[0]):
            test.skipped = f"no {work.command[0]}"
            return ""
        expected, took = reference(test, work, name)
        if expected["status"] != work.status:
            return f"the unmoved run ended with {expected}"
        found, problem = run_moved(test, work, name, mode, took)
        if not problem and found != expected:
            problem = f"moved: {found}\nunmoved: {expected}"
        return problem
    return job


class RealPrograms(harness.GeneratedJobs):
    """Each of WORKS, in each mode."""

    skipped = ""

    def check(self):
        super().check()
        if self.skipped:
            self.skipTest(self.skipped)


for work_maker in WORKS:
    for each_mode in MODES:
        harness.add_job(RealPrograms, f"{work_maker.__name__}_{each_mode}",
                        make_real(work_maker, each_mode))


def load_tests(_loader, tests, _pattern):
    for maker in (xz, sort, sqlite, bc):  # Their inputs are made once, before many want them.
        maker()
    return harness.ParallelSuite(harness.flatten(tests))


if __name__ == "__main__":
    harness.JOBS = int(os.environ.get("MIGRATE_JOBS", "2"))
    harness.main()
