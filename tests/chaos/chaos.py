"""Kills something at a named step of a move, or of copying a process (docs/protocol.md), and looks at
what is left.

A case is a step and a victim. Afterwards there must be exactly one copy that runs and is whole, or
none where a host that still held pages, or the cell's init of a running copy, was taken away, and
then a report. The subject (tests/programs/copies.cc) counts what must never happen: wrong pages and
two copies.
"""

import collections
import dataclasses
import os
import pathlib
import random
import re
import signal
import struct
import subprocess
import sys
import time

ROOT = pathlib.Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "tests" / "system"))

import harness  # noqa: E402
from harness import Testbed, processes_of, wait_until  # noqa: E402

SOURCE, DESTINATION = "hostA", "hostB"
VICTIMS = ["source worker", "destination worker", "source daemon", "destination daemon",
           "init", "link", "source host", "destination host"]
ANY_MOMENT = "any moment"
MODES = ["lazy", "lazy", "demand", "eager", "precopy", "hybrid"]
# In which pages are sent while the process runs, and these steps are reached.
ROUND_MODES = ["precopy", "hybrid"]
ROUND_STEPS = ("source.watched", "source.round", "destination.round")
# Here the copy cannot have run yet: whatever dies with the destination, the source goes on.
BEFORE_THE_RUN = {"source." + step for step in ("offered", "watched", "round", "frozen", "captured", "image_sent",
                                                "restored", "parked")} | {
    "destination." + step for step in ("offered", "prepared", "connected", "round", "image", "restored",
                                       "ready", "run", "kept")}
MIB = os.environ.get("CHAOS_MIB", "16")

REACH_SECONDS = 15     # for a worker to come to the step
LIVE_STATES = ("moving", "running-here", "away", "done")
RUN_SECONDS = 30       # for a copy to run again after the kill
WHOLE_SECONDS = 60     # for all pages to be checked
STATUS_SECONDS = 20    # for the deputy to end as the copy did
RESTART_SECONDS = 0.5  # at most, until a dead daemon is started again
CLEAN_SECONDS = 15     # until workers have ended: one whose peer says nothing lingers for ten
ROUNDS_WINDOW = 0.3

# Copies of a process (migratectl fork), some at each of two hosts, of which the first has the victim.
COPIES = 6
OTHER_DESTINATION = "hostC"
FORK_VICTIMS = ["source worker", "maker", "destination worker", "source daemon",
                "destination daemon", "init", "link", "destination host"]
FORK_SECONDS = 100  # An offer that nobody answers is waited for for 30 s.


# A process that comes here only leaves children that are owed pages, which the subject has not;
# tests/system/orphans_test.py kills at each of these.
OF_KEEPERS = {"source.keeper", "source.keeper_noted", "source.ended"}


def steps():
    """The steps that docs/protocol.md names, but those of keepers."""
    text = (ROOT / "docs" / "protocol.md").read_text()
    found = re.findall(r"^\| `((?:source|destination)\.\w+)` \|", text, re.MULTILINE)
    return [step for step in found if step not in OF_KEEPERS]


def cell_of(pid):
    """The namespace of process ids that a process is in; None when it has ended."""
    try:
        return os.stat(f"/proc/{pid}/ns/pid").st_ino
    except OSError:
        return None


def send(pid, number):
    try:
        os.kill(pid, number)
        return True
    except ProcessLookupError:
        return False


class Ledger:
    """What the subject writes down (struct Ledger of copies.cc)."""

    WORDS = 4 + 64

    def __init__(self, path):
        self.path = path

    def words(self):
        # Opened for a moment only: a file that others have open is not moved.
        data = pathlib.Path(self.path).read_bytes()
        return struct.unpack(f"{self.WORDS}Q", data.ljust(self.WORDS * 8, b"\0")[:self.WORDS * 8])

    twice = property(lambda self: self.words()[0])
    wrong = property(lambda self: self.words()[1])
    whole = property(lambda self: self.words()[2] == 1)
    rounds = property(lambda self: sum(self.words()[4:]))

    def advances(self):
        before = self.rounds
        time.sleep(ROUNDS_WINDOW)
        return self.rounds > before


@dataclasses.dataclass
class Outcome:
    """How a case ended. `problem` is empty if all is as it must be."""

    step: str
    victim: str
    mode: str
    how: str = ""          # what was left: runs, lost, ...
    problem: str = ""
    detail: str = ""
    killed: bool = False
    wrong: int = 0
    twice: int = 0
    seconds: float = 0.0


class Case:
    """One kill on a testbed that is as new."""

    def __init__(self, testbed, step, victim, source):
        self.testbed = testbed
        self.source = source
        self.outcome = Outcome(step, victim, source.choice(MODES))
        if step in ROUND_STEPS:
            self.outcome.mode = source.choice([mode for mode in MODES if mode in ROUND_MODES] or
                                              ROUND_MODES)
        if step in ("source.done", "destination.done"):
            self.outcome.mode = "lazy"
        elif step.endswith(".adopting"):
            self.outcome.mode = "demand"  # Else nothing is owed soon, and nothing to be adopted.
        self.hosts = {host["name"]: host for host in testbed.hosts()}
        self.process = None
        self.ledger = None
        self.move = None
        self.answer = ""  # of the move
        self.gone = set()  # hosts

    def run(self):
        begin = time.monotonic()
        try:
            self.start()
            stopped = self.reach()
            if stopped is not None:
                self.outcome.killed = True
                self.kill(stopped)
                self.judge()
        except Exception as error:  # pylint: disable=broad-except
            self.outcome.problem = f"{type(error).__name__}: {error}"
        finally:
            if self.ledger:
                self.outcome.wrong = self.ledger.wrong
                self.outcome.twice = self.ledger.twice
            if self.outcome.wrong or self.outcome.twice:
                self.outcome.problem = self.outcome.problem or "not safe"
            self.outcome.seconds = time.monotonic() - begin
            if self.outcome.problem:
                self.outcome.detail = self.report()
            self.end()
        return self.outcome

    # --- up to the kill

    def start(self):
        environment = os.environ | {"COPIES_MIB": MIB}
        self.process = self.testbed.start_program(SOURCE, "copies", "copies", env=environment)
        self.ledger = Ledger(str(self.process.stop_file) + ".ledger")

    def start_move(self):
        wait = "done" if self.outcome.mode != "demand" else "resumed"
        self.move = subprocess.Popen(
            self.testbed.words(SOURCE, "migratectl", "--json", "move", self.process.pid,
                               DESTINATION, "--mode", self.outcome.mode, "--wait", wait,
                               "--retry", "5"),
            stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)

    def stops(self, host):
        return pathlib.Path(self.hosts[host]["directory"]) / "state" / "stops"

    def stopped_at(self, host, step):
        """The worker that stands at the step; the file is made before it stops, and is ours then."""
        for file in self.stops(host).glob(step + ".*"):
            pid = int(file.name.rsplit(".", 1)[1])
            if harness.state_of(pid) in ("T", "t"):
                file.unlink()
                return pid
        return None

    def reach(self):
        """Moves up to the step. The worker that is stopped there; 0 if none is; None: not reached."""
        step = self.outcome.step
        if step == ANY_MOMENT:
            self.start_move()
            time.sleep(self.source.uniform(0.0, self.source.choice([0.03, 0.1, 0.5])))
            return 0
        side, name = step.split(".")
        host = SOURCE if side == "source" else DESTINATION
        (self.stops(host) / step).touch()
        self.start_move()
        if name in ("exit", "adopting"):
            self.move.wait(REACH_SECONDS)
        if name == "exit":
            self.process.stop_file.touch()
        elif name == "adopting":
            self.kill_worker(host)
        stopped = wait_until(lambda: self.stopped_at(host, step), REACH_SECONDS)
        if not stopped:
            self.outcome.problem = "step not reached"
            return None
        return stopped

    # --- the kill

    def workers(self, host):
        return [pid for pid, name in processes_of(self.hosts[host]).items()
                if name == "migrated-work"]

    def kill_worker(self, host):
        for pid in self.workers(host):
            send(pid, signal.SIGKILL)

    def kill_daemon(self, host):
        self.testbed.command("kill-daemon", host, "--signal", "KILL", check=True)

    def kill_init(self):
        """Until what it held is dead as well: a worker that goes on before would not notice."""
        processes = processes_of(self.hosts[DESTINATION])
        inits = [pid for pid, name in processes.items() if name == "migrate-init"]
        cells = {cell_of(pid) for pid in inits}
        inmates = [pid for pid in processes if pid not in inits and cell_of(pid) in cells]
        for pid in inits:
            send(pid, signal.SIGKILL)
        wait_until(lambda: all(harness.state_of(pid) in ("Z", "X", "") for pid in inmates),
                   REACH_SECONDS)

    def kill_host(self, host):
        self.gone.add(host)
        self.testbed.set_link(host, "down")
        for _ in range(3):  # What a process forks meanwhile goes in the next round.
            # Programs first: a host that is lost does not let one run on when its tracer has died.
            for pid, _ in sorted(processes_of(self.hosts[host]).items(),
                                 key=lambda each: each[1].startswith("migrate")):
                send(pid, signal.SIGKILL)

    def kill(self, stopped):
        victim = self.outcome.victim
        place, _, what = victim.partition(" ")
        host = SOURCE if place == "source" else DESTINATION
        if what == "worker":
            if stopped and self.outcome.step.startswith(place):
                send(stopped, signal.SIGKILL)
            else:
                self.kill_worker(host)
        elif what == "daemon":
            self.kill_daemon(host)
        elif what == "host":
            self.kill_host(host)
        elif victim == "init":
            self.kill_init()
        elif victim == "link":
            self.testbed.set_link(DESTINATION, "down")
        if stopped:
            send(stopped, signal.SIGCONT)
        if what == "daemon":
            time.sleep(self.source.uniform(0, RESTART_SECONDS))
            self.testbed.command("restart", host, check=True)
        elif victim == "link":
            longest = float(os.environ.get("CHAOS_CUT_SECONDS", "20"))
            time.sleep(self.source.uniform(0.1, self.source.choice([0.5, 2, longest])))
            self.testbed.set_link(DESTINATION, "up")

    # --- what is left

    def judge(self):
        ending = self.process.stop_file.exists()
        running = self.ledger.whole or wait_until(self.ledger.advances, RUN_SECONDS)
        if not running and not ending:
            self.judge_lost()
            return
        self.process.stop_file.touch()
        if not wait_until(lambda: self.ledger.whole or self.ledger.wrong or self.ledger.twice,
                          WHOLE_SECONDS):
            self.judge_lost()
            return
        self.outcome.how = "runs"
        if not self.ledger.whole:
            self.outcome.problem = "wrong page" if self.ledger.wrong else "ran twice"
        elif SOURCE not in self.gone:
            status = self.process.wait(STATUS_SECONDS)
            if status is None and DESTINATION in self.gone and self.resolve():
                self.outcome.how = "resolved"  # It ended, and its host with what it would report.
            elif status != harness.SURVIVED or not self.process.output.endswith(b"ok\n"):
                self.outcome.problem = f"its end was reported as {status}"

    def may_be_lost(self):
        """A host that held what nobody else had, or the init of a copy that may have run."""
        return self.gone or (self.outcome.victim == "init" and
                             self.outcome.step not in BEFORE_THE_RUN)

    def judge_lost(self):
        """No copy runs, or it waits: right only after a loss, and with a report."""
        if not self.may_be_lost():
            self.outcome.problem = "no copy runs"
            return
        if DESTINATION in self.gone and self.resolve():
            self.outcome.how = "resolved"
            return
        early = self.outcome.step in BEFORE_THE_RUN or self.outcome.step == ANY_MOMENT
        if SOURCE in self.gone and early and not self.records(DESTINATION):
            self.outcome.how = "lost with its host"  # It had not come to the other one.
            return
        said = self.said()
        self.outcome.how = "lost"
        if not said:
            self.outcome.problem = "lost without a report"

    def resolve(self):
        """What an operator does about a destination that will not come back. Where the process may
        have run there he gives it up: brought back it would be an earlier state of itself."""
        for record in self.records(SOURCE):
            if self.outcome.step in BEFORE_THE_RUN:
                resumed = self.decide(record, "--resume-source")
                if resumed.status == 0:
                    self.process.stop_file.touch()
                    return wait_until(lambda: self.ledger.whole, WHOLE_SECONDS)
            # Refused until its home has noticed that nobody answers.
            given_up = wait_until(lambda: self.decide(record, "--give-up").status == 0, 20)
            return given_up and self.process.wait(STATUS_SECONDS) is not None
        return False

    def decide(self, record, action):
        return self.testbed.control(SOURCE, "resolve", record["process"], action, "--yes")

    def records(self, host):
        if host in self.gone:
            return []
        listed = self.testbed.control(host, "ps")
        return [record for record in listed.object.get("processes", [])
                if record.get("pid") == self.process.pid or host != SOURCE]

    def said(self):
        """What the user is told of the loss."""
        if SOURCE not in self.gone and self.process.wait(STATUS_SECONDS) is not None:
            return f"the deputy ended with {self.process.popen.returncode}"
        for host in (SOURCE, DESTINATION):
            for record in self.records(host):
                shown = self.testbed.control(host, "show", record["process"]).object
                for member in ("lost", "waits_for", "waits", "in_doubt"):
                    if shown.get(member):
                        return f"{member}: {shown[member]}"
                if shown.get("state") in ("lost", "in-doubt", "exited"):
                    return shown["state"]
        return ""

    # --- afterwards

    def report(self):
        text = ""
        if self.process:
            text = (f"output: {bytes(self.process.output[-400:])}, "
                    f"status {self.process.popen.poll()}\n")
        if self.move and self.move.poll() is not None and not self.move.stdout.closed:
            self.answer += self.move.stdout.read()
        text += f"migratectl: {self.answer[-3000:]}\n"
        for host in self.hosts:
            if host not in self.gone:
                text += f"{host}: {processes_of(self.hosts[host])}\n{self.records(host)}\n"
        return text + self.testbed.logs(25)

    def end(self):
        if self.move:
            self.move.kill()
            self.answer += self.move.communicate()[0]
        if self.process:
            self.process.kill()

    def left(self):
        """What is on the hosts besides their daemons: name and state of each process, and what a
        registry says to be there when nothing is."""
        processes = {f"{name} {harness.state_of(pid)} at {host}" for host in self.hosts
                     for pid, name in processes_of(self.hosts[host]).items() if name != "migrated"}
        if processes:
            return sorted(processes)
        return sorted(f"a row of {host}: {record['role']} {record['state']}"
                      for host in self.hosts
                      for record in self.testbed.control(host, "ps").object.get("processes", [])
                      if record["state"] in LIVE_STATES)

    def clean(self):
        """Whether the testbed is as new again, so that another case may follow on it."""
        if self.outcome.problem or self.gone:
            return False
        return wait_until(lambda: not self.left(), CLEAN_SECONDS)


class ForkLedger:
    """What a process and its copies write down (forked.cc): what, which, and at which host."""

    def __init__(self, path):
        lines = [line.split() for line in pathlib.Path(path).read_text().splitlines()]
        begun = [int(pid) for what, pid, _ in lines if what == "begins"]
        self.wrong = sum(what == "wrong" for what, _, _ in lines)
        self.twice = len(begun) - len(set(begun))
        self.home = sum(what == "begins" and host == SOURCE for what, _, host in lines)
        self.process_is_whole = any(what == "process" for what, _, _ in lines)
        whole = {int(pid) for what, pid, _ in lines if what == "whole"}
        # Host, and whether it has come to its end whole, by pid.
        self.copies = {int(pid): (host, int(pid) in whole)
                       for what, pid, host in lines if what == "begins"}


class ForkCase(Case):
    """One kill while copies of a process are made and sent. The process itself, and each copy that the
    kill did not concern, must come to their ends whole; a copy that began must, unless its host was
    lost; and none may run at home, or twice."""

    def start(self):
        self.process = self.testbed.start_program(SOURCE, "forked", "forked")
        self.ledger_path = str(self.process.stop_file) + ".ledger"

    def start_move(self):
        self.move = subprocess.Popen(
            self.testbed.words(SOURCE, "migratectl", "--json", "fork", self.process.pid, "--to",
                               f"{DESTINATION},{OTHER_DESTINATION}", "--count", COPIES,
                               "--mode", self.outcome.mode),
            stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)

    def kill(self, stopped):
        if self.outcome.victim != "maker":
            super().kill(stopped)
            return
        for pid in self.makers():
            send(pid, signal.SIGKILL)
        if stopped:
            send(stopped, signal.SIGCONT)

    def makers(self):
        """Those that serve requests: children of the daemon that are no workers."""
        daemon = self.hosts[SOURCE]["daemon_pid"]
        children = pathlib.Path(f"/proc/{daemon}/task/{daemon}/children").read_text().split()
        names = processes_of(self.hosts[SOURCE])
        return [int(pid) for pid in children if names.get(int(pid)) == "migrated"]

    def judge(self):
        self.move.wait(FORK_SECONDS)
        self.process.stop_file.touch()
        status = self.process.wait(WHOLE_SECONDS)
        wait_until(lambda: not self.unfinished(), WHOLE_SECONDS)
        ledger = ForkLedger(self.ledger_path)
        self.outcome.wrong, self.outcome.twice = ledger.wrong, ledger.twice
        copies = ledger.copies
        whole = collections.Counter(host for host, is_whole in copies.values() if is_whole)
        self.outcome.how = f"{sum(whole.values())} of {COPIES}"
        if ledger.home:
            self.outcome.problem = "a copy ran at home"
        elif status != harness.SURVIVED or not ledger.process_is_whole:
            self.outcome.problem = f"the process itself ended as {status}"
        elif self.unfinished():
            self.outcome.problem = f"copies began and did not end whole: {copies}"
        elif missing := self.missing(whole):
            self.outcome.problem = f"siblings were harmed, {missing}: {copies}"

    def unfinished(self):
        """Copies that began, and should have come to their end. With its init a copy is lost."""
        spared = {DESTINATION} if self.outcome.victim in ("init", "destination host") else set()
        return [pid for pid, (host, whole) in ForkLedger(self.ledger_path).copies.items()
                if not whole and host not in spared]

    def missing(self, whole):
        """Which copies the kill should have left alone."""
        victim, step = self.outcome.victim, self.outcome.step
        one = (victim == "source worker" and step.startswith("source.")) or (
            victim == "destination worker" and step.startswith("destination."))
        if one:
            return "" if sum(whole.values()) >= COPIES - 1 else "more than one is missing"
        if victim in ("source worker", "source daemon", "maker"):
            return ""  # All that had not begun are theirs.
        return "" if whole[OTHER_DESTINATION] == COPIES // 2 else f"not all at {OTHER_DESTINATION}"

    def end(self):
        super().end()
        for pid in self.copies_left():
            send(pid, signal.SIGKILL)

    def copies_left(self):
        try:
            return [pid for pid, (_, whole) in ForkLedger(self.ledger_path).copies.items()
                    if not whole and harness.state_of(pid) not in ("Z", "X", "")]
        except (AttributeError, OSError):
            return []


def fork_steps():
    """Steps that each copy comes to while the others are made and sent."""
    return [step for step in steps() if step in BEFORE_THE_RUN and step not in ROUND_STEPS] + [
        "source.run_sent", "source.running", "destination.released", "destination.running"]


class Lane:
    """A testbed on which cases run one after the other; made anew when one has spoilt it."""

    def __init__(self, options=()):
        self.testbed = None
        self.options = options  # of testbed up

    def run(self, step, victim, source, forks=False):
        if self.testbed is None:
            self.testbed = Testbed(3 if forks else 2,
                                   ["--daemon-arg=--debug-stops", *self.options])
        case = (ForkCase if forks else Case)(self.testbed, step, victim, source)
        outcome = case.run()
        if not case.clean():
            if not outcome.problem and not case.gone:
                outcome.problem = f"left {', '.join(case.left())}"
                outcome.detail = case.report()
            self.close()
        return outcome

    def close(self):
        if self.testbed:
            self.testbed.down()
            self.testbed = None


def every_case(count, source, forks=False):
    """`count` cases: each step with each victim in a random order, again and again, and between
    them kills at random moments."""
    table = [(step, victim) for step in (fork_steps() if forks else steps())
             for victim in (FORK_VICTIMS if forks else VICTIMS)]
    made = 0
    while made < count:
        source.shuffle(table)
        for step, victim in table[:count - made]:
            made += 1
            yield (ANY_MOMENT if source.random() < 0.2 else step), victim


def print_table(outcomes, file=sys.stdout):
    """Rows are steps, columns victims; in each cell what was left, and how often."""
    victims = [victim for victim in dict.fromkeys([*VICTIMS, *FORK_VICTIMS])
               if any(outcome.victim == victim for outcome in outcomes)]
    cells = collections.defaultdict(collections.Counter)
    for outcome in outcomes:
        what = "FAIL" if outcome.problem else outcome.how or "?"
        cells[outcome.step, outcome.victim][what] += 1
    print("| step | " + " | ".join(victims) + " |", file=file)
    print("|---" * (len(victims) + 1) + "|", file=file)
    for step in [*steps(), ANY_MOMENT]:
        row = []
        for victim in victims:
            counts = cells[step, victim]
            row.append(", ".join(f"{what} {count}" if count > 1 else what
                                 for what, count in sorted(counts.items())))
        if any(row):
            print(f"| {step} | " + " | ".join(row) + " |", file=file)
    kills = sum(outcome.killed for outcome in outcomes)
    failed = [outcome for outcome in outcomes if outcome.problem]
    print(f"\n{kills} kills, {len(failed)} failures; wrong pages: "
          f"{sum(outcome.wrong for outcome in outcomes)}, double runs: "
          f"{sum(outcome.twice for outcome in outcomes)}", file=file)


def make_random(seed):
    return random.Random(seed)
