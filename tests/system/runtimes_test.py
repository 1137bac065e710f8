#!/usr/bin/python3
"""Programs of the languages and runtimes that people use, moved in mid-work: each as root and as an
ordinary user, and within a script's pipeline. Those that are not installed are skipped, with the reason.
MIGRATE_RUNTIMES names some, separated by commas; MIGRATE_WAYS the ways (default: user; all: root, user,
eager and script)."""

import os
import shutil
import subprocess
import threading
import time

import harness
import real_programs_test as real
from harness import DONE, random_of
from real_programs_test import INPUTS, PYTHON, Work
from rights_test import ASKERS

# A number that each of them computes in its language, in steps that it prints.
ROUNDS = 30

FUTURES = """
import concurrent.futures, hashlib
def work(number):
    digest = hashlib.sha256(b"%%d" %% number)
    total = 0
    for step in range(%d):
        total += step * number %% 7
        if step %% 1000 == 0:
            digest.update(b"%%d" %% total)
    return digest.hexdigest()
with concurrent.futures.ThreadPoolExecutor(4) as pool:
    for result in pool.map(work, range(%d)):
        print(result, flush=True)
"""

JAVA = """
import java.util.*;
import java.util.concurrent.*;
public class Work {
  static long step(int round, Map<Integer, String> table) {
    long total = 0;
    for (int i = 0; i < 60000; ++i) {
      String text = Integer.toHexString((i * 7919 + round) % 50021);
      table.merge(i % 20000, text, (a, b) -> a.length() > 40 ? b : a + b);
      total = total * 31 + text.hashCode();
    }
    for (String text : table.values()) { total += text.length(); }
    return total;
  }
  public static void main(String[] words) throws Exception {
    ExecutorService pool = Executors.newFixedThreadPool(3);
    int rounds = Integer.parseInt(words[0]);
    List<Map<Integer, String>> tables = new ArrayList<>();
    for (int i = 0; i < 3; ++i) { tables.add(new HashMap<>()); }
    for (int round = 0; round < rounds; ++round) {
      List<Future<Long>> parts = new ArrayList<>();
      for (int i = 0; i < 3; ++i) {
        final int part = i, now = round;
        parts.add(pool.submit(() -> step(now * 3 + part, tables.get(part))));
      }
      long total = 0;
      for (Future<Long> part : parts) { total = total * 17 + part.get(); }
      System.out.println(round + " " + total);
      System.out.flush();
    }
    pool.shutdown();
  }
}
"""

NODE = """
const { Worker, isMainThread, parentPort, workerData } = require("worker_threads");
const crypto = require("crypto");
function work(number, rounds) {
  const table = new Map();
  let total = 0;
  for (let round = 0; round < rounds; ++round) {
    for (let i = 0; i < 20000; ++i) {
      const key = "k" + ((i * 7919 + round * number) % 5021);
      table.set(key, ((table.get(key) || 0) * 31 + i) % 1000003);
    }
    for (const value of table.values()) total = (total * 17 + value) % 1000000007;
  }
  return crypto.createHash("sha256").update(number + ":" + total).digest("hex");
}
if (isMainThread) {
  let left = 3;
  const results = [];
  let ticks = 0;
  const timer = setInterval(() => { ++ticks; }, 5);
  for (let number = 1; number <= 3; ++number) {
    const worker = new Worker(process.argv[1], { workerData: [number, Number(process.argv[2])] });
    worker.on("message", (text) => {
      results[number] = text;
      if (--left === 0) { clearInterval(timer); console.log(results.join("\\n")); }
    });
  }
} else {
  parentPort.postMessage(work(...workerData));
}
"""

RUBY = """
table = Hash.new(0); total = 0
(0...%d).each do |round|
  40000.times { |i| key = "k#{(i * 7919 + round) %% 50021}"; table[key] += (i * round) %% 1009
                    total = (total * 31 + key.length + table[key]) %% 1000000007 }
  puts "#{round} #{total} #{table.size}"; $stdout.flush
end
"""

PHP = """
$table = []; $total = 0;
for ($round = 0; $round < %d; ++$round) {
  for ($i = 0; $i < 80000; ++$i) {
    $key = "k" . (($i * 7919 + $round) %% 50021);
    $table[$key] = ($table[$key] ?? 0) + ($i * $round) %% 1009;
    $total = ($total * 31 + strlen($key) + $table[$key]) %% 1000000007;
  }
  echo "$round $total ", count($table), "\\n";
}
"""

STATISTICS = """
set.seed(1)
total <- 0
for (round in 1:%d) {
  m <- matrix(runif(90000), 300)
  s <- solve(m %%*%% t(m) + diag(300))
  total <- total + sum(s[1:10, 1:10])
  v <- sort(paste0("k", sample(20000)))
  cat(round, sprintf("%%.6f", total), v[77], "\\n"); flush(stdout())
}
"""

OCTAVE = """
rand("state", 1); total = 0;
for round = 1:%d
  m = rand(300); s = inv(m * m' + eye(300)); total += sum(sum(s(1:10, 1:10)));
  for i = 1:4000 total = mod(total * 31 + i, 1009); end
  printf("%%d %%.6f\\n", round, total); fflush(stdout);
end
"""

GO = """
package main
import ("crypto/sha256"; "fmt"; "os"; "strconv"; "sync")
func part(number, rounds int, results []string, wait *sync.WaitGroup) {
  defer wait.Done()
  table := map[int]string{}
  total := 0
  for round := 0; round < rounds; round++ {
    for i := 0; i < 30000; i++ {
      key := (i*7919 + round*number) % 5021
      text := table[key] + strconv.Itoa(i%10)
      if len(text) > 50 { text = text[25:] }
      table[key] = text
      total = (total*31 + len(text)*key) % 1000000007
    }
  }
  results[number] = fmt.Sprintf("%x", sha256.Sum256([]byte(strconv.Itoa(total))))
}
func main() {
  rounds, _ := strconv.Atoi(os.Args[1])
  results := make([]string, 4)
  for turn := 0; turn < 4; turn++ {
    var wait sync.WaitGroup
    for number := range results { wait.Add(1); go part(number, rounds, results, &wait) }
    wait.Wait()
    fmt.Println(turn, results)
  }
}
"""

RUST = """
use std::collections::HashMap;
use std::io::Write;
use std::sync::mpsc;
fn part(number: u64, rounds: u64) -> u64 {
    let mut table: HashMap<u64, String> = HashMap::new();
    let mut total: u64 = 0;
    for round in 0..rounds {
        for i in 0..40000u64 {
            let key = (i * 7919 + round * number) % 5021;
            let text = table.entry(key).or_default();
            text.push_str(&i.to_string());
            if text.len() > 50 { text.truncate(7); }
            total = (total * 31 + text.len() as u64 * key) % 1_000_000_007;
        }
    }
    total
}
fn main() {
    let rounds: u64 = std::env::args().nth(1).unwrap().parse().unwrap();
    for turn in 0..4u64 {
        let (sender, receiver) = mpsc::channel();
        for number in 0..3u64 {
            let sender = sender.clone();
            std::thread::spawn(move || { sender.send((number, part(number + turn, rounds))).unwrap(); });
        }
        drop(sender);
        let mut results: Vec<_> = receiver.iter().collect();
        results.sort();
        println!("{} {:?}", turn, results);
        std::io::stdout().flush().unwrap();
    }
}
"""

MOLECULES = """
units lj
atom_style atomic
lattice fcc 0.8442
region box block 0 8 0 8 0 8
create_box 1 box
create_atoms 1 box
mass 1 1.0
velocity all create 1.44 87287 loop geom
pair_style lj/cut 2.5
pair_coeff 1 1 1.0 1.0 2.5
neighbor 0.3 bin
neigh_modify delay 0 every 20 check no
fix 1 all nve
thermo 50
thermo_style custom step temp epair etotal press
thermo_modify flush yes
run %d
"""


def scaled(amount):
    """So that a run lasts for three moves on a busy machine, too."""
    return real.scaled(3 * amount)


def text_file(name, text):
    INPUTS.mkdir(parents=True, exist_ok=True)
    path = INPUTS / name
    if not path.exists() or path.read_text() != text:
        path.write_text(text)
    return path


def compiled(name, text, *command):
    """The program that a compiler makes of a text, made once; None without the compiler."""
    if not shutil.which(command[0]):
        return None
    source = text_file(name, text)
    program = INPUTS / (name + ".program")
    if not program.exists() or program.stat().st_mtime < source.stat().st_mtime:
        environment = {**os.environ, "GOCACHE": str(INPUTS / "go"), "GO111MODULE": "off"}
        subprocess.run([str(program) if word == "OUT" else str(source) if word == "IN" else word
                        for word in command], check=True, cwd=INPUTS, env=environment)
    return program


_compiling = threading.Lock()


def java_class():
    folder = INPUTS / "java"
    source = folder / "Work.java"
    folder.mkdir(parents=True, exist_ok=True)
    with _compiling:  # Two of the works have it.
        if not source.exists() or source.read_text() != JAVA or \
                not (folder / "Work.class").exists():
            source.write_text(JAVA)
            subprocess.run(["javac", "Work.java"], check=True, cwd=folder)
    return folder


def java_work(*options):
    if not shutil.which("javac"):
        return Work(["javac"])
    return Work(["java", *options, "-cp", java_class(), "Work", scaled(ROUNDS)])


def asyncio_program():
    return real.asyncio_threads()


def multiprocessing_lock():
    return real.deleted_files()


def futures():
    return Work([PYTHON, "-c", FUTURES % (scaled(150_000), scaled(60))])


def java_default():
    return java_work()


def java_zgc():
    return java_work("-XX:+UseZGC")


def node_workers():
    return Work(["node", text_file("work.js", NODE), scaled(350)])


def double_mapping():
    """As .NET maps what its compiler makes; 100 times what tests/system/faithful_test.py has."""
    return Work([harness.PROGRAMS / "jit", scaled(300)])


def ruby():
    return Work(["ruby", "-e", RUBY % scaled(60)])


def php():
    return Work(["php", "-r", PHP % scaled(80)])


def statistics():
    return Work(["Rscript", "--vanilla", text_file("work.R", STATISTICS % scaled(60))])


def octave():
    return Work(["octave-cli", "--no-gui", "--norc", "--eval", OCTAVE % scaled(60)])


def perl():
    return real.perl()


def go():
    program = compiled("work.go", GO, "go", "build", "-o", "OUT", "IN")
    return Work([program, scaled(120)] if program else ["go"])


def rust():
    program = compiled("work.rs", RUST, "rustc", "-O", "-o", "OUT", "IN")
    return Work([program, scaled(150)] if program else ["rustc"])


def ffmpeg():
    """To MPEG-4, by one encoder's threads; its progress goes to standard error."""
    return Work(["ffmpeg", "-nostdin", "-v", "error", "-f", "lavfi", "-i",
                 f"testsrc2=size=640x360:rate=30:duration={scaled(20)}", "-c:v", "mpeg4",
                 "-threads", "3", "-flags", "+bitexact", "-f", "avi", "output"])


def lammps():
    """Open MPI opens sockets for processes that are not there, unless it is told to be alone
    (docs/operations.md)."""
    environment = ["OMPI_MCA_ess_singleton_isolated=1", "OMPI_MCA_btl=self", "OMPI_MCA_pml=ob1",
                   "OMPI_MCA_oob=^tcp", "OMP_NUM_THREADS=1"]
    name = next((each for each in ("lmp", "lammps") if shutil.which(each)), "lmp")
    if not shutil.which(name):
        return Work([name])
    return Work(["env", *environment, name, "-log", "none", "-in",
                 text_file("melt.in", MOLECULES % scaled(900))])


WORKS = [asyncio_program, multiprocessing_lock, futures, java_default, java_zgc, node_workers,
         double_mapping, ruby, php, statistics, octave, perl, go, rust, ffmpeg, lammps]
# The output goes through a pipe that the script itself has made.
PIPELINE = '(echo $BASHPID >process; exec "$@") | cat; exit ${PIPESTATUS[0]}'
HOW = {"root": ([], "lazy"), "user": (ASKERS["owner"], "lazy"), "eager": ([], "eager"),
       "script": (["bash", "-c", PIPELINE, "bash"], "lazy")}
_references = {}
_locks = {make.__name__: threading.Lock() for make in WORKS}


def steady(text):
    """Without what is of each run: LAMMPS tells how long it took."""
    lines = text.splitlines()
    return b"\n".join(line for line in lines
                      if not any(word in line for word in (b"Loop time", b"Performance", b"CPU use",
                                                           b"CPU =",
                                                           b"Total wall", b" | ", b"cpu ")))


class Run:
    """One run of a work, in a folder of its own."""

    def __init__(self, test, work, name, prefix):
        self.work = work
        self.folder = test.testbed.new_path(name)
        self.folder.mkdir()
        self.folder.chmod(0o777)
        source = work.open_input()
        self.process = test.testbed.start("hostA", *prefix, *work.command, cwd=self.folder,
                                          stdin=source)
        if hasattr(source, "close"):
            source.close()

    def pid(self):
        """Of what is moved: the process, or the one that its script has started."""
        file = self.folder / "process"
        if "bash" in self.process.command[:8]:
            harness.wait_until(lambda: file.exists() and file.read_text().strip(), 10)
            return int(file.read_text())
        return self.process.pid

    def end(self):
        status = self.process.wait(600)
        found = self.work.results(self.folder, status, steady(bytes(self.process.output)))
        found["output_text"] = bytes(self.process.output[-600:])
        shutil.rmtree(self.folder, ignore_errors=True)
        return found


def reference(test, work, name):
    with _locks[name]:
        if name not in _references:
            begin = time.monotonic()
            found = Run(test, work, name, []).end()
            _references[name] = (found, time.monotonic() - begin)
        return _references[name]


def same(found, expected):
    return all(found[key] == expected[key] for key in ("status", "output", "file"))


def make_runtime(make_work, how):
    name = make_work.__name__
    prefix, mode = HOW[how]

    def job(test):
        work = make_work()
        if not shutil.which(str(work.command[0])):
            test.skipped = f"no {work.command[0]}"
            return ""
        expected, took = reference(test, work, name)
        if expected["status"] != 0:
            return f"the unmoved run ended with {expected}"
        source = random_of(name, how)
        for share in (1, 0.5, 0.2, 0):  # The unmoved run may have been the slower one by far.
            run = Run(test, work, name, prefix)
            time.sleep(source.uniform(0.1, 0.3) * share * took)
            first = test.testbed.move("hostA", run.pid(), "hostB", mode, options=["--retry", "5"])
            if first.status == DONE or run.process.popen.poll() is None:
                break
            run.end()
        moved = 0
        for number in range(3):
            outcome = first
            if number > 0:
                time.sleep(source.uniform(0.1, 0.3) * took)
                outcome = test.testbed.move("hostA", run.pid(), ["hostB", "hostA"][number % 2],
                                            mode, options=["--retry", "5"])
            if outcome.status != DONE:
                if moved and run.process.wait(2) is not None:
                    break  # It had ended already.
                checked = test.testbed.control("hostA", "check", run.pid())
                run.process.kill()
                return f"move {number + 1}: {outcome}\ncheck: {checked}"
            moved += 1
        found = run.end()
        return "" if same(found, expected) else f"moved: {found}\nunmoved: {expected}"
    return job


class Runtimes(harness.GeneratedJobs):
    """Each of WORKS, in each way."""

    skipped = ""

    def check(self):
        super().check()
        if self.skipped:
            self.skipTest(self.skipped)


wanted = os.environ.get("MIGRATE_RUNTIMES", "")
ways = os.environ.get("MIGRATE_WAYS", "user")
for maker in WORKS:
    for way in HOW if ways == "all" else ways.split(","):
        if not wanted or maker.__name__ in wanted.split(","):
            harness.add_job(Runtimes, f"{maker.__name__}_{way}", make_runtime(maker, way))


def load_tests(_loader, tests, _pattern):
    return harness.ParallelSuite([test for test in harness.flatten(tests)
                                  if type(test).__module__ == __name__])


if __name__ == "__main__":
    harness.JOBS = int(os.environ.get("MIGRATE_JOBS", "2"))
    harness.main()
