"""What a process shows of itself (tests/programs/pairs_view.cc), and how two views differ.

A move may change what docs/state.md says is "lost by all"; that is left out here. All else is either
the same afterwards, or a loss that was told.
"""

import re

# Of each process, whatever it is: "lost by all" in docs/state.md, or told in another way below.
LEFT_OUT = [re.compile(pattern) for pattern in (
    r"(status|thread\d+)\.(FDSize|Vm\w+|Rss\w+|HugetlbPages|Ngid|PPid|NSsid|NSpgid|TracerPid|State"
    r"|(non)?voluntary_ctxt_switches|Threads|SigQ)$",
    r"autogroup\.\d+$",  # Its number; the nice value is added below.
    r"cgroup\.\d+$",  # The group's limits are told, not its name.
    r"fd\d+\.peer$",  # Of a socket pair it is the process itself (README).
)]
# What each loss is seen by. One of nothing is not seen from inside.
LOSSES = {
    "PROCESS_GROUP": r"group$",
    "SPECULATION": r"prctl\.speculation|(status|thread\d+)\.Speculation",
    "MEMORY_NODES": r"(status|thread\d+)\.Mems_allowed",
    "CONTROL_GROUP": None,
    "RESOURCE_GROUP": r"cpu_resctrl_groups",
    "BOUNDING_SET": r"(status|thread\d+)\.CapBnd",
    "LOGIN": r"(loginuid|sessionid)\.",
    "MEMORY_POLICY": r"mempolicy|numa\.",
    "IO_FLUSHER": r"prctl\.io_flusher",
    "TIMER_SLACK": r"prctl\.timerslack|thread\d+\.slack",
    "DESCRIPTOR_OWNER": r"fd\d+\.owner",
    "DIRECTORY_NOTIFICATION": r"fd\d+\.owner",
    "WATCH_FIRED": r"fd\d+\.(info\.tfd|poll)",
    "NAMED_PIPE": r"fd\d+\.",
    "EXECUTABLE": r"exe\b",
    "FILE_AS_MEMORY": r"mapping$",
    "HUGE_PAGES": r"mapping$",
    "TERMINAL": None,
}
# Of another thread it is shown to those alone that have CAP_SYS_NICE.
SEEN_BY_SOME = {"TIMER_SLACK"}
O_TMPFILE = 0o20200000
TICK_US = 10_000  # Processor times are counted so.
# Tracked writes, what is accounted for (of what was writable once), userfaultfd while pages are owed,
# "locked as pages arrive", guards (of a neighbour that was joined; their content tells).
LEFT_OUT_FLAGS = {"sd", "ac", "um", "lf", "gu"}
OF_RELAYS = {"waiting", "stat", "poll", "pipe_size"}
MAPPING = re.compile(r"map\.([0-9a-f]+)-([0-9a-f]+)$")


def parse(output, number):
    """The view of a number in what the program said, as a dictionary."""
    found = {}
    prefix = b"%d " % number
    for line in bytes(output).splitlines():
        if line.startswith(prefix) and b"=" in line:
            key, _, value = line[len(prefix):].decode(errors="replace").partition("=")
            found[key] = value
    return normal(found)


def normal(found):
    """The same without what is each host's own."""
    view = {}
    relayed = relays(found)
    for key, value in found.items():
        if key.startswith("map.") or any(pattern.match(key) for pattern in LEFT_OUT):
            continue
        if key.partition(".")[0] in relayed and key.partition(".")[2] in OF_RELAYS:
            continue
        if ".info." in key:
            add_info(view, key.partition(".")[0], value)
        elif key.endswith(".link"):
            value = re.sub(r"\[\d+\]", "", value)
            view[key] = "memory" if value.endswith("(deleted)") else value
        elif key.endswith(".SigBlk"):  # Not those that glibc keeps for itself, while it handles one.
            view[key] = "%x" % (int(value, 16) & ~(3 << 31))
        elif key.endswith(".stat") and found[key[:-4] + "link"].startswith("/proc/"):
            # Root's or the process's, as it was dumpable when its path was last gone along.
            view[key] = re.sub(r"owner \d+ \d+ ", "", value)
        else:
            view[key] = value
    # A session that is older than the kernel's grouping has none: it counts as one of nice 0.
    view["autogroup"] = found.get("autogroup.0", "").rpartition(" ")[2] or "0"
    for key in [key for key in view if key.endswith(".info.tfd")]:
        if re.search(r"events: +[89a-f][0-9a-f]{7}", view[key]):  # Of an edge it tells once more.
            view.pop(key.replace("info.tfd", "poll"), None)
    for key in [key for key in view if view[key] == "/dev/kmsg" and key.endswith(".link")]:
        view.pop(key.replace("link", "poll"), None)  # The kernel's log goes on.
    for key in [key for key in view if key.endswith(".info.tfd")]:  # In the kernel's order.
        view[key] = ";".join(sorted(view[key].split(";")))
    for key in [key for key in view if view[key] == "memory" and key.endswith(".link")]:
        become_memory(view, key.partition(".")[0])
    for key in [key for key in view if key.endswith(".info.ticks")]:
        if not view[key].endswith(" 0;"):  # It ended and was not read: it is wound up by reading.
            view.pop(key.replace("ticks", "it_value"), None)
            view[key] = "some"  # Whoever asks for its time counts them up.
    view["mappings"] = mappings(found)
    return view


def become_memory(view, fd):
    """A file without a name is a memory file afterwards (README): O_TMPFILE, seals."""
    view.pop(fd + ".seals", None)
    for key in (fd + ".flags", fd + ".info.flags"):
        view[key] = re.sub(r"\d+", lambda number: "%o" % (int(number[0], 8) & ~O_TMPFILE), view[key],
                           count=1)


def relays(found):
    """Descriptors of pipes that lead outside, or whose other end is closed: what is on its way is
    at home or abroad, and what carries it is another pipe."""
    ends = {}
    for key, value in found.items():
        if key.endswith(".link") and value.startswith("pipe:"):
            fd = key.partition(".")[0]
            ends.setdefault(value, []).append((fd, int(found[fd + ".flags"].split()[0], 8) & 3))
    return {fd for same in ends.values() for fd, _ in same
            if not {2} & {mode for _, mode in same} and len({mode for _, mode in same}) < 2}


def add_info(view, fd, line):
    if re.match(r"(mnt_id|ino|eventfd-id):", line):
        return
    if line.startswith("tfd:"):
        line = re.sub(r" pos:.*$", "", line)
    name = line.partition(":")[0]
    if name == "it_value":  # Less the time that has gone by; a periodic one may begin anew.
        line = "it_value: " + ("none" if line.endswith("(0, 0)") else "some")
    key = f"{fd}.info.{name}"
    view[key] = view.get(key, "") + line + ";"


def mappings(found):
    """Each mapping as (start, end, what it is), those joined that are of one kind."""
    joined = []
    places = sorted((int(match[1], 16), int(match[2], 16), key) for key in found
                    if (match := MAPPING.match(key)))
    for start, end, key in places:
        # "rw-p 00000000 00:00 0    NAME"
        words = found[key].split(None, 4)
        name = words[4] if len(words) > 4 else ""
        if name in ("[vvar]", "[vdso]", "[vvar_vclock]", "[vsyscall]"):
            continue
        flags = " ".join(flag for flag in found.get(key + ".flags", "").split()
                         if flag not in LEFT_OUT_FLAGS)
        what = (words[0], flags)
        offset = 0
        if words[0].endswith("s"):
            removed = name.endswith("(deleted)") or name.startswith("/dev/zero")
            what += ("memory" if removed else name,)
            if removed:  # It can be made writable in every mapping of it (README).
                what = (words[0], re.sub(r"\b(sh|mw)\b ?", "", flags), "memory")
            offset = int(words[1], 16)
        if name == "[stack]":
            start = end - 4096
        if joined and joined[-1][1] == start and joined[-1][2] == what and (
                len(what) == 2 or joined[-1][3] + (joined[-1][1] - joined[-1][0]) == offset):
            joined[-1][1] = end
        else:
            joined.append([start, end, what, offset])
    return [tuple(each) for each in joined]


def same_value(key, before, after):
    if key.endswith(".left"):  # Of a timer: it goes on.
        return (int(before) == 0) == (int(after) == 0) and int(after) <= int(before) + TICK_US
    if key.endswith(".now"):
        return int(after) >= int(before)
    return before == after


def differences(before, after):
    """(key, before, after) of all that two views do not share."""
    found = []
    for key in sorted(before.keys() | after.keys()):
        old, new = before.get(key), after.get(key)
        if key == "mappings":
            found += [("mapping", each, None) for each in old if each not in new]
            found += [("mapping", None, each) for each in new if each not in old]
        elif old is None or new is None or not same_value(key, old, new):
            found.append((key, old, new))
    return found


def text_of(difference):
    key, old, new = difference
    if key == "mapping":
        start, end, what, offset = old or new
        return f"mapping {start:x}-{end:x} {what} {offset:x} {'gone' if new is None else 'new'}"
    return f"{key}: {old!r} became {new!r}"


def untold(found, told):
    """Those differences that none of the told codes is about."""
    patterns = [LOSSES[code] for code in told if LOSSES.get(code)]
    return [each for each in found if not any(re.match(pattern, each[0]) for pattern in patterns)]


def unseen(found, told):
    """Those told codes that no difference shows."""
    return [code for code in sorted(set(told) - SEEN_BY_SOME) if code not in LOSSES or
            (LOSSES[code] and not any(re.match(LOSSES[code], each[0]) for each in found))]
