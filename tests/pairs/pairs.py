"""Random pairs of a process and a move: does `check` say what `move` does?

The program `pairs` (tests/programs/pairs.cc) takes random attributes and opens random objects. Then
`check` is asked and the move made, and the process looks at itself before and after. A pair is
wrong if check says "movable" and the move is refused or fails; if check refuses and the process is
moved; if the two refuse for different reasons; if the process has changed in what no loss was told
for, or has not in what was told to be lost; if a refused process has changed at all.
"""

import dataclasses
import pathlib
import random
import shutil
import subprocess
import sys
import time

ROOT = pathlib.Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "tests" / "system"))

import harness  # noqa: E402
import views  # noqa: E402
from harness import DONE, REFUSED, Testbed  # noqa: E402

GROUPS = ["attribute", "file", "object", "mapping", "last"]
BLIND = {"root"}  # It sees no more whether it is asked to show itself.
# Linux tells nobody but the process itself, so that check cannot know (docs/state.md, "other").
HIDDEN = {"execution": "UNKNOWN_ATTRIBUTE", "segment": "UNKNOWN_ATTRIBUTE",
          "dispatch": "UNKNOWN_ATTRIBUTE", "lock_memory": "RLIMIT_REACHED"}
USER = 64001
SECONDS = 120  # The longest that a process of a pair lives.
MOST_STEPS = 9


@dataclasses.dataclass
class Outcome:
    """How a pair ended; `problem` is empty if the two agree."""

    number: int
    what: str
    verdict: str = ""
    problem: str = ""
    detail: str = ""
    codes: tuple = ()
    losses: tuple = ()
    seconds: float = 0.0


def list_steps():
    """Names of the steps: of all groups often and seldom drawn, and in the order of the groups."""
    steps = {group: {"often": [], "seldom": []} for group in GROUPS}
    listed = subprocess.run([harness.PROGRAMS / "pairs", "--list"], check=True, text=True,
                            capture_output=True).stdout
    for line in listed.splitlines():
        group, name, how = line.split()
        steps[group][how].append(name)
    return steps


class Pair:
    """A process and a move, drawn from a seed."""

    def __init__(self, steps, seed, number):
        source = random.Random(f"{seed}/{number}")
        self.number = number
        self.user = "ordinary user" if source.random() < 0.5 else "root"
        self.mode = source.choice(["lazy", "eager"])
        self.asker = self.user if source.random() < 0.3 else "root"
        self.back = source.random() < 0.25
        wanted = []
        for _ in range(source.randrange(1, MOST_STEPS)):
            group = source.choices(GROUPS, [4, 2, 2, 3, 1])[0]
            how = "seldom" if source.random() < 0.06 else "often"
            wanted.append((GROUPS.index(group), source.choice(steps[group][how]),
                           source.randrange(1 << 40)))
        # Files first: they are opened with all rights. What takes rights away comes last.
        order = [1, 2, 3, 0, 4]
        wanted.sort(key=lambda step: order.index(step[0]))
        self.steps = [f"{name}:{argument}" for _, name, argument in wanted]
        self.names = [name for _, name, _ in wanted]

    def __str__(self):
        return f"{self.user}, {self.mode}{', and back' if self.back else ''}: " + " ".join(self.steps)


def prefix_of(user):
    if user == "root":
        return []
    return ["setpriv", f"--reuid={USER}", f"--regid={USER}", "--clear-groups"]


class Lane:
    """Plays pairs one after the other on a testbed, which several lanes may share."""

    def __init__(self, testbed):
        self.testbed = testbed

    def play(self, pair):
        begin = time.monotonic()
        outcome = Outcome(pair.number, str(pair))
        folder = self.testbed.new_path("pair")
        folder.mkdir()
        folder.chmod(0o777)
        process = None
        try:
            process = self.start(pair, folder)
            if not process.wait_ready():
                outcome.problem = f"it did not get ready: {process.wait(1)}"
                return outcome
            outcome.problem = self.look(pair, process, outcome)
        except (AssertionError, OSError) as error:
            outcome.problem = f"{type(error).__name__}: {error}"
        finally:
            if process:
                if outcome.problem:
                    outcome.detail = self.detail(process)
                process.kill()
            shutil.rmtree(folder, ignore_errors=True)
            outcome.seconds = time.monotonic() - begin
        return outcome

    def start(self, pair, folder):
        stop = folder / "stop"
        process = self.testbed.start("hostA", *prefix_of(pair.user), harness.PROGRAMS / "pairs",
                                     stop, SECONDS, *pair.steps, cwd=folder)
        process.stop_file = stop
        process.views = 0
        return process

    def detail(self, process):
        said = b"\n".join(line for line in bytes(process.output).splitlines()
                          if not line[:1].isdigit())
        return f"its output: {said.decode(errors='replace')}\n{self.testbed.logs(15)}"

    def view(self, process):
        """What the process shows now."""
        process.views += 1
        pathlib.Path(f"{process.stop_file}.{process.views}").touch()
        if not process.wait_output(b"shown %d\n" % process.views, 30):
            raise AssertionError(f"it does not show itself: {process.wait(1)}, "
                                 f"{harness.state_of(process.pid)}")
        return views.parse(process.output, process.views)

    def ask(self, pair, *words):
        return self.testbed.run("hostA", *prefix_of(pair.asker), "migratectl", "--json", *words,
                                cwd="/")

    def check_and_move(self, pair, process, host):
        """Again while the destination has promised all its memory to others that have just come."""
        for _ in range(20):
            checked = self.ask(pair, "check", process.pid, "--to", host)
            moved = self.ask(pair, "move", process.pid, host, "--mode", pair.mode)
            if "MEMORY" not in checked.codes() + moved.codes():
                break
            if moved.status == DONE:  # It found room where check had found none.
                checked = moved
                break
            time.sleep(0.2)
        return checked, moved

    def look(self, pair, process, outcome):
        blind = bool(BLIND & set(pair.names))
        before = views.parse(process.output, 0)
        for host in ["hostB", "hostA"][:2 if pair.back else 1]:
            checked, moved = self.check_and_move(pair, process, host)
            outcome.codes = tuple(moved.codes())
            problem = disagreement(checked, moved, pair.names, outcome)
            if problem:
                return f"to {host}: {problem}"
            if blind:
                process.kill()
                return ""
            after = self.view(process)
            problem = changes(before, after, checked, moved)
            if problem:
                return f"to {host}, {outcome.verdict}: {problem}"
            if moved.status != DONE:
                break
            before = after
        return harness.finish(process)


def codes_of(things):
    return [thing["code"] for thing in things or []]


def disagreement(checked, moved, names, outcome):
    """What is wrong with two verdicts, or nothing."""
    if checked.status == moved.status == DONE:
        outcome.verdict = "moved"
        outcome.losses = tuple(sorted(set(codes_of(moved.object.get("losses")))))
        return ""
    if checked.status == moved.status == REFUSED:
        outcome.verdict = "refused"
        if checked.codes() != moved.codes():
            return f"check refuses {checked.codes()}, move {moved.codes()}"
        return ""
    if checked.status == DONE and moved.status == REFUSED and \
            moved.codes() in [[HIDDEN[name]] for name in HIDDEN.keys() & set(names)]:
        outcome.verdict = "hidden"
        return ""
    return f"check says {checked}\nmove says {moved}"


def changes(before, after, checked, moved):
    """What has changed otherwise than was told, or nothing."""
    found = views.differences(before, after)
    if moved.status == REFUSED:
        return "; ".join(map(views.text_of, found))
    told, lost = codes_of(checked.object.get("losses")), codes_of(moved.object.get("losses"))
    if told != lost:
        return f"check tells {told}, move {lost}"
    problems = ["not told: " + views.text_of(each) for each in views.untold(found, told)]
    problems += [f"told and not seen: {code}" for code in views.unseen(found, told)]
    return "\n  ".join(problems)


def make_testbed(without=""):
    """Two hosts, whose daemons have not the capabilities `without` ("sys_nice,sys_resource"), as in
    containers."""
    if not without:
        return Testbed(2)
    wrapper = harness.BUILD / "tests" / "work" / "migrated-without"
    wrapper.parent.mkdir(parents=True, exist_ok=True)
    taken = ",".join(f"-{each}" for each in without.split(","))
    wrapper.write_text(f"#!/bin/sh\nexec setpriv --bounding-set={taken} --inh-caps={taken} "
                       f"{harness.BIN / 'migrated'} \"$@\"\n")
    wrapper.chmod(0o755)
    return Testbed(2, ["--migrated", wrapper])
