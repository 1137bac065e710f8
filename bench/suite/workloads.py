"""The programs that are moved: synthetic ones, kernels, and real programs of Debian."""

import dataclasses
import random
import shutil

# Debian's own python3, which has the numpy that apt installed.
PYTHON = "/usr/bin/python3"


@dataclasses.dataclass(frozen=True)
class Workload:
    """A kind of bench/workload.cc, with its options."""
    name: str
    kind: str
    group: str
    passes: int
    options: tuple = ()
    quick: bool = False


@dataclasses.dataclass(frozen=True)
class Program:
    """A real program: its command, in which {in} and {out} are files; `out` is what it makes."""
    name: str
    package: str
    command: tuple
    make_input: object
    quick: bool = False
    group: str = "real"
    environment: tuple = ()


SYNTHETIC = [
    Workload("sequential", "sequential", "synthetic", 20),
    Workload("random", "random", "synthetic", 12, quick=True),
    Workload("strided", "strided", "synthetic", 16),
    Workload("zipf", "zipf", "synthetic", 20, quick=True),
    Workload("pointer chase", "chase", "synthetic", 8),
    Workload("write-heavy", "write-heavy", "synthetic", 8, quick=True),
    *(Workload(f"sparse {share} %", "sparse", "synthetic", 12, ("--share", share),
               quick=share == 20) for share in (5, 20, 50, 80)),
    Workload("8 threads", "threads", "synthetic", 16, ("--threads", 8)),
]
KERNELS = [
    Workload("STREAM", "stream", "kernel", 24, quick=True),
    Workload("RandomAccess", "random-access", "kernel", 16, quick=True),
    Workload("DGEMM", "dgemm", "kernel", 24),
    Workload("FFT", "fft", "kernel", 4),
]
GRAPH = [Workload("graph traversal", "graph", "real", 2)]


def text_input(path, scale):
    words = random.Random(1)
    vocabulary = ["".join(words.choices("abcdefghijklmnopqrstuvwxyz", k=words.randint(2, 9)))
                  for _ in range(5000)]
    with open(path, "w", encoding="ascii") as file:
        for _ in range(scale * 40_000):
            file.write(" ".join(words.choices(vocabulary, k=8)) + "\n")


def long_text_input(path, scale):
    text_input(path, 12 * scale)


def text_of(text):
    def make(path, scale):
        path.write_text(text.replace("SCALE", str(scale)))
    return make


def sequences_input(path, scale):
    choice = random.Random(1)
    base = choice.choices("ACGT", k=500 + 100 * scale)
    with open(path, "w", encoding="ascii") as file:
        for number in range(20):
            kept = (letter for letter in base if choice.random() > 0.03)
            file.write(f">s{number}\n" + "".join(
                choice.choice("ACGT") if choice.random() < 0.2 else letter for letter in kept) + "\n")


SQL = """
create table t (a integer, b integer, c text);
with recursive n(i) as (select 1 union all select i + 1 from n where i < SCALE * 150000)
insert into t select i, i * 7919 % 100003, hex(i * 104729) from n;
create index tb on t (b);
select count(*), sum(x.a * y.b % 97) from t x join t y on x.b = y.a;
select b % 11, count(distinct c), max(c) from t group by 1 order by 1;
"""
NUMPY = """
import sys
import numpy
field = numpy.random.default_rng(1).integers(0, 1 << 40, size=(2000, 2000), dtype=numpy.uint64)
for turn in range(SCALE * 4):
    field = (field * numpy.uint64(6364136223846793005) + numpy.uint64(turn)) ^ (field >> numpy.uint64(7))
    field = numpy.sort(field, axis=turn % 2)
open(sys.argv[1], "w").write(str(int(field.sum())))
"""
GP = """
v = vector(1000000, i, (i * 7919) % 1000003);
s = 0; for (k = 1, SCALE * 40000, s += vecsum(factor(v[k] + k^3)~[1,]); v[k] = s);
print(s); print(vecsum(v));
"""
MODEL = """
param n := 100 + 20 * SCALE; set I := 1..n;
param c{i in I, j in I} := (i * 7919 + j * 104729 + i * j * 31) mod 997;
var x{I, I} >= 0;
minimize cost: sum{i in I, j in I} c[i, j] * x[i, j];
s.t. supply{i in I}: sum{j in I} x[i, j] = 10 + i mod 7;
s.t. demand{j in I}: sum{i in I} x[i, j] = 10 + j mod 7;
end;
"""

PROGRAMS = [
    Program("xz", "xz-utils", ("xz", "-T1", "-6", "-c", "{in}"), text_input, quick=True),
    Program("sort", "coreutils", ("sort", "--parallel=1", "-S", "512M", "{in}", "-o", "{out}"),
            long_text_input, environment=(("LC_ALL", "C"),)),
    Program("sqlite3", "sqlite3", ("sqlite3", ":memory:", ".read {in}"), text_of(SQL), quick=True),
    Program("python3 with numpy", "python3-numpy", (PYTHON, "{in}", "{out}"), text_of(NUMPY)),
    Program("PARI/GP (number theory)", "pari-gp",
            ("gp", "-q", "-f", "--default", "parisizemax=400M", "{in}"), text_of(GP)),
    Program("GLPK (linear programs)", "glpk-utils", ("glpsol", "--math", "{in}", "-w", "{out}"),
            text_of(MODEL)),
    Program("Clustal W (alignment)", "clustalw", ("clustalw", "-INFILE={in}", "-OUTFILE={out}"),
            sequences_input),
]


def chosen(quick):
    """The workloads of a run, those with a program that is not there left out."""
    every = [*SYNTHETIC, *KERNELS, *GRAPH, *PROGRAMS]
    return [one for one in every if one.quick or not quick]


def missing(program):
    """Why a real program cannot be run here, or None."""
    if shutil.which(program.command[0]) is None:
        return f"{program.command[0]} is not installed (package {program.package})"
    return None
