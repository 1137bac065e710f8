"""The report: one HTML file with everything in it, for the screen and for paper."""

import html
import statistics

from . import auto, charts, series

MODES = ("lazy", "demand", "eager", "precopy", "hybrid")
STYLE = """
:root { color-scheme: light; }
body { font: 16px/1.5 system-ui, sans-serif; color: #1a1a1a; background: #fff; margin: 0 auto;
  max-width: 66rem; padding: 1rem 1.25rem 4rem; }
h1 { font-size: 1.7rem; margin: .5rem 0 0; } h2 { font-size: 1.3rem; margin: 2.5rem 0 .5rem;
  border-bottom: 1px solid #ccc; } h3 { font-size: 1.05rem; margin: 1.5rem 0 .25rem; }
p, li { max-width: 48rem; } .facts, .bounds, caption, nav { color: #4a4a4a; font-size: .9rem; }
nav a { margin-right: 1rem; } figure { margin: 1rem 0; } figure svg { width: 100%; height: auto; }
.warning { background: #fff3d6; border-left: 4px solid #b36b00; padding: .5rem .75rem; }
.modes { display: grid; grid-template-columns: repeat(auto-fit, minmax(16rem, 1fr)); gap: 1rem; }
.modes section { border: 1px solid #ccc; border-top: 4px solid var(--mode); padding: .25rem 1rem; }
.modes h3 { margin-top: .5rem; } .scroll { overflow-x: auto; }
table { border-collapse: collapse; font-size: .85rem; font-variant-numeric: tabular-nums; }
caption { text-align: left; padding: .25rem 0; } th, td { padding: .2rem .6rem; text-align: right;
  border-bottom: 1px solid #e2e2e2; white-space: nowrap; }
th:first-child, td:first-child, .words td, .words th { text-align: left; }
thead th { border-bottom: 2px solid #888; vertical-align: bottom; }
td.off { background: #ffe0e0; }
@media print { body { font-size: 10pt; max-width: none; } nav { display: none; }
  figure, tr, .modes section { break-inside: avoid; } h2, h3 { break-after: avoid; }
  .scroll { overflow: visible; } table { font-size: 6.5pt; } th, td { padding: .1rem .25rem;
  white-space: normal; } }
"""

# Of each figure of a workload: its heading, what it is divided by for print, digits, boundaries.
FIGURES = {
    "freeze_us": ("freeze, ms", 1000, 1, "From the interrupt of the first thread until the source "
                  "knows that the program runs at the destination."),
    "longest_gap_us": ("longest gap, ms", 1000, 1, "The longest time between two steps of the "
                       "program, as it saw it itself (CLOCK_REALTIME), from the command to move "
                       "until the source owes nothing or the program ends. Holds also what others "
                       "take of the processors."),
    "first_instruction_us": ("to first instruction, ms", 1000, 0, "From the start of the command "
                             "until the program's first step at the destination."),
    "fault_p50_us": ("fault p50, us", 1, 0, "As the destination's pager counts: from reading the "
                     "fault until the page is in place; pages that a push brought meanwhile "
                     "included."),
    "fault_p99_us": ("p99", 1, 0, "The same, of the slowest hundredth."),
    "faults": ("faults", 1, 0, "Faults that the pager answered."),
    "stalled_us": ("threads waited, ms", 1000, 1, "For pages, all threads added up, as the pager "
                   "counts."),
    "prefetch_useful": ("prefetched: useful", 1, 0, "Pages asked for beside a fault that the walk "
                        "came to, as far as later faults tell."),
    "prefetch_late": ("late", 1, 0, "Faults on pages that were already asked for."),
    "prefetch_wasted": ("wasted", 1, 0, "Asked for ahead of a walk that ended before them."),
    "image_bytes": ("image, KiB", 1024, 1, "What is sent within the stop besides pages."),
    "wire_bytes": ("MiB sent", 2**20, 1, "Bytes of pages between the hosts, as the result of the "
                   "move says."),
    "never_sent_share": ("never sent, %", 0.01, 0, "Of the pages that the program had just before "
                         "the move (RssAnon), those that no fault, prefetch, push or round carried. Pages "
                         "made between that look and the freeze make it too small."),
    "independence_us": ("independent after, ms", 1000, 0, "From the end of the freeze until the "
                        "source owes nothing; in mode demand often only when the program ends."),
    "run_time_ratio": ("run time to unmoved", 1, 2, "The whole run with a move in it, to an "
                       "unmoved run of the same turn on the source's host."),
    "daemons_cpu_seconds": ("daemons' CPU, s", 1, 2, "Processor time of daemons and workers of "
                            "both hosts, looked at ten times a second; what a worker did after the "
                            "last look is missing."),
    "daemons_peak_mib": ("memory, MiB", 1, 0, "Their largest resident memory together, shared "
                         "pages counted in each."),
}
PLAIN = {
    "lazy": ("Move now, fetch the rest soon", "The program stops very briefly and runs on at once at "
             "the new host; its memory follows while it works. For a short while it is slower, and "
             "until all has arrived it needs both hosts. The usual choice."),
    "demand": ("Move now, fetch only what is used", "Stops as briefly, but only what the program "
               "touches is sent. The least traffic if it uses little of what it holds; slowest if it "
               "uses all of it. It needs both hosts until it ends or you tell it to finish."),
    "eager": ("Move everything, then go on", "The program stands still until all its memory is over. "
              "It needs the old host no more from its first step, and never waits for a page. For "
              "hosts that must be emptied for sure, or programs that nobody waits for."),
    "precopy": ("Send most beforehand, then go on with everything", "Its memory is sent while the "
                "program still works at the old host, and what it writes meanwhile once more; then "
                "it stands still until the rest is over. It needs the old host no more from its "
                "first step. Long stops are left to programs that write a lot."),
    "hybrid": ("Send most beforehand, fetch the rest", "As precopy, but the program runs on at once "
               "at the new host with the rest still to come: little waits there, and soon. It sends "
               "the most bytes if the program writes a lot."),
}
MISSING = [
    "what a program reads and does not write, before it is moved: nothing tells that without disturbing "
    "it (docs/decisions/0044), so that what mode demand will send is foretold as a bound only",
]


def escape(text):
    return html.escape(str(text))


def number(spread, divisor=1, digits=1):
    if not spread:
        return "–"
    return f"{spread['median'] / divisor:.{digits}f} ± {spread['mad'] / divisor:.{digits}f}"


def paragraph(text, kind=""):
    return f'<p class="{kind}">{escape(text)}</p>' if kind else f"<p>{escape(text)}</p>"


def table(caption, headings, rows, kind=""):
    head = "".join(f"<th scope=\"col\">{escape(one)}</th>" for one in headings)
    body = "".join("<tr>" + "".join(
        f"<td class=\"off\">{escape(cell[1:])}</td>" if str(cell).startswith("!") else
        f"<td>{escape(cell)}</td>" for cell in row) + "</tr>" for row in rows)
    return (f'<div class="scroll"><table class="{kind}"><caption>{escape(caption)}</caption>'
            f"<thead><tr>{head}</tr>"
            f"</thead><tbody>{body}</tbody></table></div>")


def figure(draw, *arguments, **options):
    """A chart, or why there is none."""
    if not charts.available():
        return paragraph("No chart: gnuplot is not installed (package gnuplot-nox).", "warning")
    try:
        return f"<figure>{draw(*arguments, **options)}</figure>"
    except charts.NoCharts as error:
        return paragraph(f"No chart: {error}", "warning")


def medians(results, mode, key):
    return [row["figures"][key]["median"] for row in results["workloads"]
            if row["mode"] == mode and key in row["figures"]]


def sentence(results, mode):
    """What a mode came to, over all workloads, in plain words."""
    parts = []
    if stops := medians(results, mode, "freeze_us"):
        parts.append(f"Stood still for {statistics.median(stops) / 1000:.0f} ms "
                     f"({min(stops) / 1000:.0f} to {max(stops) / 1000:.0f})")
    if times := medians(results, mode, "run_time_ratio"):
        parts.append(f"took {statistics.median(times):.2f} times as long as without a move, at most "
                     f"{max(times):.2f}")
    if sent := medians(results, mode, "wire_bytes"):
        parts.append(f"sent {statistics.median(sent) / 2**20:.0f} MiB")
    if free := medians(results, mode, "independence_us"):
        parts.append(f"needed the old host for {statistics.median(free) / 1e6:.2f} s more")
    return ("; ".join(parts) + ".") if parts else "Not measured in this run."


def which_mode(results):
    cards = "".join(
        f'<section style="--mode: {charts.COLOURS[mode]}"><h3>{escape(PLAIN[mode][0])}</h3>'
        f"<p><code>--mode {mode}</code></p>{paragraph(PLAIN[mode][1])}"
        f"{paragraph('Here: ' + sentence(results, mode))}</section>" for mode in MODES)
    cards += (f'<section style="--mode: {charts.NEUTRAL}"><h3>Let it find out</h3>'
              "<p><code>--mode auto</code></p>" + paragraph(
                  "Watches the program for a fifth of a second while it works, and then takes the mode "
                  "that is best by your wish: the shortest stop, the shortest time in which it needs "
                  "both hosts, or the least traffic. Says before what it expects, and afterwards how "
                  "that compares.") + "</section>")
    rules = """<ul>
<li>Somebody waits for the program's answers: <b>lazy</b>.</li>
<li>The old host must be free at a known time: <b>lazy</b> with <code>--deadline</code>.</li>
<li>The old host may fail at any moment, so that the program must not need it: <b>precopy</b> if the
program writes little of what it holds, <b>eager</b> if it writes much.</li>
<li>The program holds much and uses little of it, or will end soon, or the network is dear:
<b>demand</b>.</li>
<li>Unsure: <code>--mode auto --wish stop</code> (or <code>exposure</code>, or <code>bytes</code>).
<code>migratectl check PID --to HOST --mode auto</code> tells beforehand whether a program can be
moved, and what each mode would cost.</li></ul>"""
    caution = paragraph("The figures are medians over the programs of this run, on this machine; "
                        "yours will differ. Terms and boundaries are explained beside "
                        "each figure below.", "bounds")
    return f'<div class="modes">{cards}</div>{rules}{caution}'


def label(row):
    """A workload's name, and of the rest what is not as usual."""
    size = f" {row['mib']} MiB" if row["mib"] else ""
    return row["name"] + size + ("" if row["transport"] == "tcp" else f", {row['transport']}")


def grouped(results, key, divisor):
    groups = {}
    for row in results["workloads"]:
        if key in row["figures"]:
            name = label(row)
            spread = row["figures"][key]
            groups.setdefault(name, {})[row["mode"]] = (spread["median"] / divisor,
                                                        spread["mad"] / divisor)
    return groups


def overview(results):
    parts = []
    for key, logarithmic, line in (("longest_gap_us", True, None), ("run_time_ratio", False, 1),
                                   ("wire_bytes", False, None), ("independence_us", True, None)):
        heading, divisor, _, bounds = FIGURES[key]
        if groups := grouped(results, key, divisor):
            parts.append(f"<h3>{escape(heading)}</h3>{paragraph(bounds, 'bounds')}"
                         + figure(charts.bars, heading, heading, groups, logarithmic, line))
    return "".join(parts) or paragraph("No workload was moved in this run.")


def work_after(results):
    parts = [paragraph("Steps that a program did in each 10 ms after its first step at the "
                       "destination, median over the runs.", "bounds")]
    for name in dict.fromkeys(label(row) for row in results["workloads"] if row["work_after"]):
        curves = {row["mode"]: [(place * 10, value) for place, value in enumerate(row["work_after"])]
                  for row in results["workloads"]
                  if label(row) == name and row["work_after"]}
        parts.append(f"<h3>{escape(name)}</h3>" + figure(
            charts.lines, f"work after the move {name}", "ms after the first step",
            "steps per 10 ms", curves))
    return "".join(parts)


WISH_WORDS = {"stop": "the shortest stop", "exposure": "the shortest time with two hosts",
              "bytes": "the fewest bytes"}


def chosen_modes(results):
    """What mode auto took, against what every mode came to, and its forecasts."""
    rows = results.get("auto", [])
    if not rows:
        return paragraph("Mode auto was not measured in this run (--full, or --only auto).")
    total = auto.summary(rows)
    parts = [paragraph(
        "Mode auto watches a program for a fifth of a second and takes the mode that should be best by "
        "the wish. Here each mode was measured, too, and auto was right if its mode was as good as the "
        "best one, or nearly: stop and exposure within a quarter and a few ms, bytes within a "
        f"twentieth. Right in {total['best']} of {total['choices']} choices; of {total['workloads']} "
        "programs in all runs: " + ", ".join(f"{count} for {WISH_WORDS[wish]}" for wish, count
                                             in total["workloads_best"].items())
        + f". Forecasts within a factor of {auto.FACTOR}: "
        + ", ".join(f"{total['right'][key]} of {count} of {key}"
                    for key, count in total["forecasts"].items() if count) + ".")]
    table_rows = []
    for row in rows:
        for wish in auto.WISHES:
            told = [one for one in row["told"] if one["wish"] == wish]
            medians = row["medians"][wish]
            known = {mode: value for mode, value in medians.items() if value is not None}
            best = min(known, key=known.get)
            modes = ", ".join(dict.fromkeys(one["mode"] for one in told))
            ratios = [" ".join(f"{one['ratios'][key]:.2f}" if one["ratios"][key] is not None else "–"
                               for one in told) for key in ("stop", "bytes", "independence")]
            table_rows.append([row["name"], WISH_WORDS[wish],
                               ("" if all(one["best"] for one in told) else "!") + modes, best,
                               *ratios])
    parts.append(table("Measured to foretold, of each run; marked where another mode was better",
                       ["program", "wish", "auto took", "best here", "stop", "bytes",
                        "independence"], table_rows))
    return "".join(parts)


WAY_WORDS = {
    "fault": "a thread waited for it", "prefetch": "asked for beside a page that was waited for",
    "push": "sent unasked", "local": "from the destination's own file", "zero": "filled with zeros",
    "staged": "sent before the stop, and still valid", "starter": "came with the image",
    "never": "does not exist at the source: nothing to send"}


def pictures(results):
    taken = [one for one in results["pictures"] if one["ways"]]
    if not taken:
        return paragraph("No picture was taken in this run.")
    parts = [paragraph(
        f"Each point is a page of the program ({taken[0]['workload']}, {taken[0]['mib']} MiB; one of "
        "every few) at the time when it came to be there, counted from the program's first step at the "
        "destination, in a run that counts for nothing else. Where there is no point, the page was "
        "never sent.", "bounds"),
        "<ul>" + "".join(f"<li><b>{way}</b>: {escape(words)}</li>" for way, words in WAY_WORDS.items()
                         if any(way in one["ways"] for one in taken)) + "</ul>"]
    for one in taken:
        clouds = {way: [(at * 1000, mib) for at, mib in points] for way, points in one["ways"].items()}
        share = 100 * one["never_sent"] / one["sampled_pages"]
        parts.append(f"<h3>{escape(one['mode'])}</h3>"
                     + paragraph(f"Of the pages looked at, {share:.0f} % were never sent.", "bounds")
                     + figure(charts.points, f"pages that arrive {one['mode']}",
                              "ms after its first step there", "MiB from the start of its memory",
                              clouds))
    return "".join(parts)


def workload_tables(results):
    parts = []
    for mode in MODES:
        rows = []
        for row in results["workloads"]:
            if row["mode"] != mode:
                continue
            cells = [label(row), len(row["runs"]), number(row["unmoved_seconds"], 1, 2)]
            for key, (_, divisor, digits, _) in FIGURES.items():
                cells.append(number(row["figures"].get(key), divisor, digits))
            rows.append(cells)
        if rows:
            parts.append(table(f"Mode {mode}: median ± median absolute deviation. Every result's "
                               "checksum is that of an unmoved run.",
                               ["program", "runs", "unmoved, s",
                                *(one[0] for one in FIGURES.values())],
                               rows))
    bounds = "".join(f"<dt><b>{escape(one[0])}</b></dt><dd>{escape(one[3])}</dd>"
                     for one in FIGURES.values())
    return f'<dl class="bounds">{bounds}</dl>' + "".join(parts)


SERIES_COLUMNS = {
    "freeze": {"gap_us": ("heartbeat gap", 1, 0), "longest_gap_us": ("longest gap", 1, 0)},
    "fault": {"p99_us": ("p99", 1, 1), "max_us": ("longest", 1, 0)},
    "drain": {"faults": ("faults", 1, 0), "fault_p50_us": ("fault p50, us", 1, 0),
              "fault_p99_us": ("p99, us", 1, 0)},
    "tls": {},
}


def growth(results):
    """Whether the longest gap of a move grows with the memory of the program."""
    rows = [row for row in results["series"]
            if row["group"] == "freeze" and "longest_gap_us" in row["figures"]
            and row["name"].endswith("1 thread")]
    if len(rows) < 2:
        return ""
    first, last = (row["figures"]["longest_gap_us"]["median"] for row in (rows[0], rows[-1]))
    if not first:
        return ""
    return paragraph(f"Longest gap of the whole move, {rows[-1]['name']} to {rows[0]['name']}: "
                     f"{last / first:.2f}.")


def against_floors(results):
    parts = []
    units = {"freeze": ("us", 1, 0), "fault": ("us", 1, 1), "drain": ("s", 1, 3), "tls": ("", 1, 2)}
    for group, bounds in series.BOUNDARIES.items():
        rows = [[row["name"], number(row["figures"][row["main"]], *units[group][1:]),
                 f"{row['floor']:.{units[group][2]}f}",
                 ("!" if row["ratio"] and row["ratio"]["median"] < 0.95 and group != "tls" else "")
                 + number(row["ratio"], 1, 2),
                 *(number(row["figures"].get(key), *shown[1:])
                   for key, shown in SERIES_COLUMNS[group].items()), len(row["runs"])]
                for row in results["series"] if row["group"] == group]
        if rows:
            base = "in the clear" if group == "tls" else "floor"
            parts.append(f"<h3>{escape(group)}</h3>{paragraph(bounds, 'bounds')}" + table(
                f"{group} {units[group][0]}",
                ["", "measured", base, "ratio",
                 *(shown[0] for shown in SERIES_COLUMNS[group].values()), "runs"], rows)
                + (growth(results) if group == "freeze" else ""))
    rows = [[f"{label(row)}, {row['mode']}"] + [
        ("!" if (ratio := row["ratios"].get(key)) and ratio["median"] < 0.95 else "")
        + number(row["ratios"].get(key), 1, 2)
        for key in ("freeze_us", "fault_p50_us", "independence_us")] for row in results["workloads"]]
    if rows:
        parts.append("<h3>workloads</h3>" + paragraph(
            "Freeze to that of one thread, in mode eager with a plain copy of as many bytes over TCP; "
            "faults only in mode demand, since a push may bring a page sooner than asking; "
            "independence in mode lazy to the drain floor of as many bytes.", "bounds") + table(
            "Ratios to the floors of this run", ["program, mode", "freeze", "fault p50",
                                                 "independence"], rows))
    return "".join(parts)


def case_of(row):
    return row["name"], row["mib"], row["transport"]


def sparing(results):
    """What mode demand did not send, and whether it sent more than eager."""
    eager = {case_of(row): row["figures"]["wire_bytes"]["median"] for row in results["workloads"]
             if row["mode"] == "eager"}
    rows = []
    for row in results["workloads"]:
        if row["mode"] == "demand" and eager.get(case_of(row)):
            share = row["figures"]["wire_bytes"]["median"] / eager[case_of(row)]
            rows.append([row["name"], row["group"], row["mib"] or "–", row["transport"],
                         number(row["figures"].get("never_sent_share"), 0.01, 0),
                         ("!" if share > 1.02 else "") + f"{share:.2f}"])
    if not rows:
        return paragraph("Modes demand and eager were not both measured in this run.")
    return paragraph("Pages that the program had just before the move and that nothing carried; and "
                     "the bytes sent to those of mode eager, marked where more than 1.02.",
                     "bounds") + table("Mode demand", ["program", "kind", "MiB", "transport",
                                                      "never sent, %", "bytes to eager's"], rows)


def floors_table(results):
    floors = results["floors"]
    rows = [["fault", f"{floors['fault']['p50_us']} us", f"p99 {floors['fault']['p99_us']} us; "
             f"handler {floors['fault']['handler']}, server {floors['fault']['server']}, "
             f"on {places(floors['fault'], 'toucher_at', 'handler_at', 'server_at')}"]]
    for threads, one in floors["freeze"].items():
        rows.append([f"freeze, {threads} threads", f"{one['p50_us']} us", f"{one['way']}, image of "
                     f"{one['image_bytes']} bytes, on {places(one, 'tracer_at', 'server_at')}"])
    for mib, one in floors["drain"].items():
        for part, name in (("drain", "drain"), ("plain_copy", "plain copy (floor of eager)")):
            rows.append([f"{name}, {mib} MiB", f"{one[part]['seconds']:.3f} s",
                         f"{one[part]['connections']} connections, blocks of "
                         f"{one[part]['block'] >> 10} KiB, {one[part]['way']}, on "
                         f"{places(one[part], 'sender_at', 'receiver_at')}"])
    memory = floors["memory"]
    rows.append(["first touch of a page", f"{memory['first_touch_ns']} ns", ""])
    rows.append(["memcpy", f"{memory['memcpy_gib_per_second']} GiB/s", ""])
    return paragraph("The least code in the same processes, between the same hosts, in the same "
                     "direction; the best of blocking, polling and yielding, of places on "
                     "processors, of block sizes and of one or two connections, and of before and "
                     "after the measurements.", "bounds") + table(
        "Floors", ["", "best", "by"], rows, "words")


def places(floor, *keys):
    return ", ".join("any" if floor[key] < 0 else f"processor {floor[key]}" for key in keys)


def peers(results):
    criu = results["peers"].get("criu", {"skipped": "not asked for"})
    if "skipped" in criu:
        return paragraph(f"CRIU was not measured: {criu['skipped']}.")
    parts = [paragraph(f"{criu['workload']}, {criu['mib']} MiB, moved at the same moment by CRIU; its images "
                       "are in memory that both hosts see.", "bounds")]
    for kind in ("eager", "lazy"):
        if isinstance(criu[kind], str):
            parts.append(paragraph(f"CRIU, {kind}: {criu[kind]}"))
            continue
        rows = [[number_of + 1, f"{one['longest_gap_us'] / 1000:.0f}",
                 "–" if one["seconds_until_independent"] is None else
                 f"{one['seconds_until_independent']:.2f}", f"{one['seconds_until_ended']:.2f}",
                 f"{one['image_bytes'] / 2**20:.0f}"] for number_of, one in enumerate(criu[kind])]
        parts.append(table(f"CRIU, {kind}", ["run", "longest gap, ms", "independent after, s",
                                             "until the program ended, s", "MiB of images"], rows))
        parts.append(beside_criu(results, criu, kind))
    return "".join(parts)


def beside_criu(results, criu, kind):
    """How many times as long CRIU takes as this engine, in the mode that does the same."""
    ours = next((row["figures"] for row in results["workloads"]
                 if (row["name"], row["mib"], row["mode"], row["transport"]) ==
                 (criu["workload"], criu["mib"], kind, "tcp")), {})
    told = []
    for key, mine, scale, words in (("longest_gap_us", "longest_gap_us", 1, "longest gap"),
                                    ("seconds_until_independent", "independence_us", 1e6,
                                     "time until independent")):
        theirs = [one[key] * scale for one in criu[kind] if one[key] is not None]
        if theirs and ours.get(mine, {}).get("median"):
            told.append(f"{words} {statistics.median(theirs) / ours[mine]['median']:.1f} times as long")
    return paragraph(f"Beside mode {kind} of this run: {', '.join(told)}." if told else
                     f"This run has no move of {criu['workload']}, {criu['mib']} MiB, in mode {kind} to hold "
                     "that against.")


def listing(items):
    return "<ul>" + "".join(f"<li>{escape(item)}</li>" for item in items) + "</ul>"


def environment(results):
    rows = [[name.replace("_", " "), value] for name, value in results["environment"].items()]
    return table("Environment", ["", ""], rows, "words")


def sections(results):
    left_out = [f"{one['what']}: {one['reason']}" for one in results["skipped"]]
    yield "mode", "Which mode for me?", which_mode(results)
    yield "auto", "Whether mode auto is right", chosen_modes(results)
    yield "overview", "Programs and modes", overview(results)
    yield "after", "The dip after a move", work_after(results)
    yield "pages", "Pages that arrive", pictures(results)
    yield "floors", "How far from what the machine can do", against_floors(results)
    yield "sparing", "What mode demand never sends", sparing(results)
    yield "bounds", "The floors themselves", floors_table(results)
    yield "all", "All figures", workload_tables(results)
    yield "peers", "Peers", peers(results)
    yield "missing", "Left out, and not known", listing(left_out + MISSING)
    yield "environment", "Environment", environment(results)


def write(results, path):
    facts = results["environment"]
    parts = list(sections(results))
    warnings = (f'<div class="warning"><b>Do not quote these figures before reading this.</b>'
                f"{listing(results['warnings'])}</div>" if results["warnings"] else "")
    navigation = "".join(f'<a href="#{name}">{escape(heading)}</a>' for name, heading, _ in parts)
    body = "".join(f'<h2 id="{name}">{escape(heading)}</h2>{content}'
                   for name, heading, content in parts)
    path.write_text(
        f'<!DOCTYPE html>\n<html lang="en"><head><meta charset="utf-8">'
        f'<meta name="viewport" content="width=device-width, initial-scale=1">'
        f'<link rel="icon" href="data:,"><title>libmigrate: benchmarks of {escape(facts["date"])}'
        f"</title><style>{STYLE}</style></head><body><h1>What a move costs</h1>"
        f'<p class="facts">libmigrate {escape(facts["commit"])}, {escape(facts["date"])}, '
        f'{escape(facts["cpus"])} processors ({escape(facts["cpu"])}), Linux '
        f'{escape(facts["kernel"])}, run {escape(results["kind"])}</p><nav>{navigation}</nav>'
        f"{warnings}{body}</body></html>\n", encoding="utf-8")
