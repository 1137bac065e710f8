#!/usr/bin/python3
"""Tests of the suite that need no host: statistics, holding against floors, the report."""

import html.parser
import pathlib
import sys
import tempfile
import unittest

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent))

from suite import auto, bed, charts, floors, main, report, runs, series, stats, workloads  # noqa: E402

PLACES = {"way": "yielding", "sender_at": -1, "receiver_at": 0}
ROOM = {"fault": {"p50_us": 20.0, "p99_us": 40.0, "handler": "polling", "server": "blocking",
                  "toucher_at": -1, "handler_at": 0, "server_at": 1},
        "freeze": {"1": {"p50_us": 100.0, "way": "blocking", "image_bytes": 14000, "tracer_at": 0,
                         "server_at": 1}},
        "drain": {"64": {"bytes": 64 << 20,
                         "drain": {"seconds": 0.1, "connections": 1, "block": 1 << 20, **PLACES},
                         "plain_copy": {"seconds": 0.05, "connections": 2, "block": 1 << 16,
                                        **PLACES}}},
        "memory": {"first_touch_ns": 300, "memcpy_gib_per_second": 8.0}}


def workload_row(mode, **figures):
    return {"name": "zipf <hot>", "group": "synthetic", "mib": 64, "mode": mode, "transport": "tcp",
            "checksum": "c", "unmoved_seconds": stats.spread([1.0]),
            "work_after": [1, 5, 9], "runs": [{}, {}],
            "figures": {key: stats.spread(values) for key, values in figures.items()},
            "ratios": {"freeze_us": stats.spread([1.5, 1.6])}}


def results():
    rows = [{"group": "freeze", "name": "16 MiB, 1 thread", "main": "freeze_us",
             "figures": {"freeze_us": stats.spread([150.0, 160.0])},
             "bound": ["freeze", "1", "p50_us"], "runs": [{}, {}]}]
    series.settle(rows, ROOM)
    return {"schema": main.SCHEMA, "kind": "smoke", "environment": {
                "commit": "abc", "date": "today", "cpus": 2, "cpu": "A & B", "kernel": "6"},
            "warnings": ["load average 3"], "skipped": [{"what": "FFT", "reason": "no <fftw>"}],
            "floors": ROOM, "series": rows, "peers": {"criu": {"skipped": "none was given"}},
            "workloads": [workload_row(mode, freeze_us=[2000.0, 3000.0], wire_bytes=[2**20] * 2,
                                       run_time_ratio=[1.1, 1.2], independence_us=[5e5, 6e5])
                          for mode in report.MODES],
            "pictures": [{"workload": "zipf", "mode": "lazy", "mib": 64, "sampled_pages": 4,
                          "never_sent": 1,
                          "ways": {"fault": [[0.1, 3.0], [0.2, 4.0]], "push": [[0.3, 5.0]]}}]}


class Statistics(unittest.TestCase):
    def test_spread_is_median_and_median_deviation(self):
        figures = stats.spread([1, 100, 3, 4, 2])
        self.assertEqual((figures["median"], figures["mad"]), (3, 1))

    def test_gather_leaves_out_what_is_unknown(self):
        gathered = stats.gather([{"a": 1, "b": None, "c": "x", "d": True}, {"a": 3, "b": 5}])
        self.assertEqual(set(gathered), {"a", "b"})
        self.assertEqual(gathered["a"]["median"], 2)
        self.assertEqual(gathered["b"]["runs"], [5])

    def test_ratios_are_of_each_run_to_its_floor(self):
        self.assertEqual(stats.ratios([10, 30], [10, 20])["runs"], [1, 1.5])
        self.assertEqual(stats.ratios([10, 30], [10])["runs"], [1, 3])
        self.assertIsNone(stats.ratios([10], [0]))

    def test_a_floor_is_beaten_by_more_than_a_twentieth(self):
        self.assertTrue(stats.beaten(stats.spread([0.94])))
        self.assertFalse(stats.beaten(stats.spread([0.96])))
        self.assertFalse(stats.beaten(None))

    def test_series_are_as_long_as_half_of_them(self):
        self.assertEqual(stats.series_medians([[1, 2], [3, 4, 9], [5, 6, 7, 8]]), [3, 4, 8])
        self.assertEqual(stats.series_medians([]), [])


class Floors(unittest.TestCase):
    def test_best_takes_the_better_of_each(self):
        other = {**ROOM, "fault": {**ROOM["fault"], "p50_us": 10.0},
                 "memory": {"first_touch_ns": 900, "memcpy_gib_per_second": 8.0}}
        best = floors.best(ROOM, other)
        self.assertEqual(best["fault"]["p50_us"], 10.0)
        self.assertEqual(best["memory"]["first_touch_ns"], 300)
        self.assertEqual(floors.best(None, ROOM), ROOM)

    def test_a_drain_is_scaled_from_the_nearest_size(self):
        self.assertAlmostEqual(floors.drain_seconds(ROOM, 128 << 20), 0.2)
        self.assertAlmostEqual(floors.drain_seconds(ROOM, 32 << 20, "plain_copy"), 0.025)


class Gaps(unittest.TestCase):
    MOVE = {"freeze_us": 5, "faults": {"count": 0, "p50_us": 0, "p99_us": 0}, "wire_bytes": 1,
            "pages": {"fault": 3, "push": 4, "zero": 100}, "phases_us": {},
            "owed_nothing_after_us": 1000}

    def test_only_gaps_of_the_move_count(self):
        told = {"begin_ns": 0, "end_ns": 10_000_000_000, "first_there_ns": 2_000_000,
                "steps_per_10_ms": [7, 8, 9],
                "gaps": [{"start_ns": 500_000, "us": 900}, {"start_ns": 1_500_000, "us": 40},
                         {"start_ns": 5_000_000, "us": 700}]}
        seen = runs.of_program(told, self.MOVE, 1_000_000)
        self.assertEqual(seen["longest_gap_us"], 40)
        self.assertEqual(seen["first_instruction_us"], 1000)
        self.assertEqual(seen["work_after"], [7, 8, 9])

    def test_pages_never_sent_are_those_that_nothing_carried(self):
        figures = runs.of_move(self.MOVE, 14)
        self.assertEqual((figures["carried_pages"], figures["never_sent_pages"]), (7, 7))
        self.assertIsNone(figures["fault_p50_us"])

    def test_a_program_without_heartbeat_says_nothing(self):
        self.assertEqual(runs.of_program({"checksum": "c"}, self.MOVE, 0), {})

    def test_a_picture_has_every_so_manieth_page_as_it_came(self):
        start = 0x10000
        trace = [f"2000000 fault {start:#x} 1", f"3000000 push {start + 4096:#x} 2000",
                 f"3000000 never {start + 2048 * 4096:#x} 500", f"1 push {start - 8192:#x} 2"]
        seen = runs.sampled(trace, 1e6, start, 4096)
        self.assertEqual(seen["sampled_pages"], 1024)
        self.assertEqual(seen["ways"]["fault"], [[1.0, 0.0]])
        self.assertEqual(len(seen["ways"]["push"]), 500)
        self.assertEqual(len(seen["ways"]["never"]), 125)
        self.assertEqual(seen["never_sent"], 1024 - 501)

    def test_longest_gap_of_none_is_nothing(self):
        self.assertEqual(bed.longest_gap_us({"gaps": []}, 0, 1), 0)


def told(wish, mode, *, stop=1000, sent=1000, after=10000):
    return {"wish": wish, "mode": mode, "freeze_us": stop, "wire_bytes": sent, "independence_us": after,
            "choice": {"modes": [{"mode": mode, "stop_us": 1000, "bytes": 1000,
                                  "least_bytes": 100 if mode == "demand" else 1000,
                                  "independence_us": None if mode == "demand" else 10000}]}}


class Auto(unittest.TestCase):
    MODES = {"lazy": [{"freeze_us": 10_000, "wire_bytes": 10**8, "independence_us": 10**6}],
             "eager": [{"freeze_us": 10**6, "wire_bytes": 10**8, "independence_us": 0}],
             "demand": [{"freeze_us": 11_000, "wire_bytes": 10**7, "independence_us": None}]}

    def test_its_workloads_exist(self):
        for name in auto.NAMES:
            self.assertIsInstance(auto.work_of(name), workloads.Workload)
        self.assertEqual(len(set(auto.NAMES)), 10)

    def test_a_mode_is_best_if_it_is_nearly_so(self):
        row = auto.row_of("zipf", 64, self.MODES, [
            told("stop", "demand"), told("stop", "eager"), told("exposure", "eager"),
            told("exposure", "demand"), told("bytes", "demand"), told("bytes", "lazy")])
        self.assertEqual([one["best"] for one in row["told"]],
                         [True, False, True, False, True, False])
        total = auto.summary([row])
        self.assertEqual((total["choices"], total["best"]), (6, 3))
        self.assertEqual(total["workloads_best"], {"stop": 0, "exposure": 0, "bytes": 0})

    def test_a_bound_is_right_below_it(self):
        self.assertEqual(auto.ratios_of(told("bytes", "demand", sent=300))["bytes"], 1)
        self.assertEqual(auto.ratios_of(told("bytes", "demand", sent=2000))["bytes"], 2)
        self.assertEqual(auto.ratios_of(told("bytes", "lazy", sent=300))["bytes"], 0.3)
        self.assertIsNone(auto.ratios_of(told("bytes", "demand"))["independence"])
        self.assertEqual(auto.ratios_of(told("stop", "lazy", after=20000))["independence"], 2)

    def test_a_factor_goes_both_ways(self):
        self.assertEqual([auto.is_right(ratio) for ratio in (0.6, 0.7, 1.4, 1.6, None)],
                         [False, True, True, False, True])


class Page(html.parser.HTMLParser):
    """What a page refers to, and its names."""

    def __init__(self):
        super().__init__()
        self.links, self.names, self.tags = [], [], []

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        for key, value in attrs:
            if key in ("src", "href", "xlink:href"):
                self.links.append(value)
            elif key == "id":
                self.names.append(value)


class Report(unittest.TestCase):
    def page(self, told):
        with tempfile.TemporaryDirectory() as folder:
            path = pathlib.Path(folder) / "report.html"
            report.write(told, path)
            text = path.read_text()
        page = Page()
        page.feed(text)
        return text, page

    def test_needs_nothing_from_elsewhere(self):
        _, page = self.page(results())
        for link in page.links:
            self.assertTrue(link.startswith(("#", "data:")), link)
        self.assertNotIn("script", page.tags)

    def test_names_are_unique_and_links_lead_to_them(self):
        _, page = self.page(results())
        self.assertEqual(len(page.names), len(set(page.names)))
        self.assertLessEqual({link[1:] for link in page.links if link.startswith("#")},
                             set(page.names))

    def test_escapes_what_it_is_told(self):
        text, _ = self.page(results())
        self.assertIn("A &amp; B", text)
        self.assertIn("no &lt;fftw&gt;", text)
        self.assertFalse("<hot>" in text)

    def test_shows_warnings_and_what_was_left_out(self):
        text, _ = self.page(results())
        self.assertIn("load average 3", text)
        self.assertIn("CRIU was not measured: none was given", text)

    def test_marks_what_beats_its_floor(self):
        told = results()
        told["series"][0]["ratio"] = stats.spread([0.5])
        self.assertIn('<td class="off">0.50', self.page(told)[0])
        self.assertNotIn('<td class="off">', self.page(results())[0])

    def test_tells_how_the_longest_gap_grows(self):
        told = results()
        told["series"] = [{**told["series"][0], "name": f"{mib} MiB, 1 thread", "figures": {
            "freeze_us": stats.spread([1.0]), "longest_gap_us": stats.spread([gap])}}
                          for mib, gap in ((16, 2.0), (256, 3.0))]
        self.assertTrue("256 MiB, 1 thread to 16 MiB, 1 thread: 1.50." in self.page(told)[0])

    def test_marks_where_demand_sends_more_than_eager(self):
        told = results()
        self.assertFalse('<td class="off">' in self.page(told)[0])
        told["workloads"][1]["figures"]["wire_bytes"] = stats.spread([2**21])
        self.assertTrue('<td class="off">2.00' in self.page(told)[0])

    def test_shows_what_auto_took_and_marks_where_another_mode_was_better(self):
        told_of = results()
        told_of["auto"] = [auto.row_of("zipf", 64, Auto.MODES, [
            told("stop", "eager"), told("exposure", "eager"), told("bytes", "demand")])]
        text, _ = self.page(told_of)
        self.assertIn('<td class="off">eager', text)
        self.assertIn("Right in 2 of 3 choices", text)

    def test_is_written_of_a_run_in_which_nothing_was_moved(self):
        told = {**results(), "workloads": [], "series": [], "pictures": []}
        self.assertIn("Not measured in this run.", self.page(told)[0])

    def test_a_name_on_an_axis_is_one_word_to_gnuplot_and_no_format(self):
        self.assertEqual(charts.quoted('a "b" `c`\n$d 20 %'), '"a  b   c   d 20 %%"')

    @unittest.skipUnless(charts.available(), "gnuplot is not installed")
    def test_draws_whatever_a_workload_is_called(self):
        told = results()
        for row in told["workloads"]:
            row["name"] = "sparse 20 % 'of' \"$it\" <&>"
        self.assertFalse("No chart" in self.page(told)[0])


class Workloads(unittest.TestCase):
    def test_names_are_unique(self):
        names = [work.name for work in workloads.chosen(quick=False)]
        self.assertEqual(len(names), len(set(names)))

    def test_smoke_uses_workloads_that_exist(self):
        self.assertLessEqual(set(main.SMOKE_WORKLOADS),
                             {work.name for work in workloads.chosen(quick=False)})

    def test_a_missing_program_is_said_to_be(self):
        absent = workloads.Program("x", "pkg", ("no-such-program-anywhere",), None)
        self.assertIn("package pkg", workloads.missing(absent))


if __name__ == "__main__":
    unittest.main()
