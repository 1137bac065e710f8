"""Charts as SVG, by gnuplot (docs/decisions/0032-charts-of-the-suite.md)."""

import html
import re
import shutil
import subprocess

COLOURS = {"lazy": "#1b6ca8", "demand": "#c8641b", "eager": "#4f7f2a",
           "precopy": "#7a4fa3", "hybrid": "#a3354f"}
NEUTRAL = "#555555"
# How a page came; told by shape, too, for who does not see colours.
WAYS = {"fault": ("#c0392b", 7), "prefetch": ("#e08e0b", 9), "push": ("#1b6ca8", 5),
        "local": ("#4f7f2a", 11), "zero": ("#888888", 13), "staged": ("#7a4fa3", 5),
        "starter": ("#111111", 3), "never": ("#cccccc", 1)}


class NoCharts(Exception):
    """gnuplot is not there, or could not draw."""


def available():
    return shutil.which("gnuplot") is not None


def quoted(text):
    """The name of a place on an axis, whatever is in it; gnuplot takes it for a format."""
    return '"' + re.sub(r'["\\\n`$]', " ", str(text)).replace("%", "%%") + '"'


def draw(title, commands, blocks, height=340):
    """An SVG element that scales with the page. `blocks` are lists of rows of data."""
    data = "".join(f"$data{number} << EOD\n"
                   + "\n".join(" ".join(map(str, row)) for row in rows) + "\nEOD\n"
                   for number, rows in enumerate(blocks))
    script = (f'set terminal svg size 900,{height} dynamic font "sans-serif,13" enhanced '
              f'background "white"\nset encoding utf8\nset border 3 lc rgb "#888888"\n'
              f'set tics nomirror textcolor rgb "#222222"\nset grid y lc rgb "#dddddd"\n'
              f'set key outside top center horizontal\n{data}{commands}\n')
    done = subprocess.run(["gnuplot"], input=script, capture_output=True, text=True, check=False,
                          timeout=60)
    if done.returncode != 0 or "<svg" not in done.stdout:
        raise NoCharts(done.stderr.strip() or "gnuplot drew nothing")
    svg = done.stdout[done.stdout.index("<svg"):]
    return own_names(svg, title)


def own_names(svg, title):
    """Names of parts of a picture, made those of this picture: many are in one page."""
    prefix = re.sub(r"\W+", "_", title.lower()) + "_"
    svg = re.sub(r"\bid=(['\"])(.+?)\1", lambda m: f"id={m[1]}{prefix}{m[2]}{m[1]}", svg)
    svg = re.sub(r"xlink:href=(['\"])#(.+?)\1", lambda m: f"href={m[1]}#{prefix}{m[2]}{m[1]}", svg)
    svg = re.sub(r"url\(#", f"url(#{prefix}", svg)
    named = f"<title>{html.escape(title)}</title>"
    return re.sub(r"<title>.*?</title>", lambda _: named, svg, count=1, flags=re.S)


def bars(title, label, groups, logarithmic=False, line=None):
    """Groups of bars: {group: {mode: (median, mad)}}, and a line at a height."""
    modes = [mode for mode in COLOURS if any(mode in values for values in groups.values())]
    others = {mode for values in groups.values() for mode in values} - set(modes)
    modes += sorted(others)
    width = 0.8 / max(len(modes), 1)
    blocks, plots = [], []
    for place, mode in enumerate(modes):
        rows = [(number - 0.4 + width * (place + 0.5), max(value[0], 1e-9), value[1])
                for number, values in enumerate(groups.values())
                if (value := values.get(mode)) is not None]
        blocks.append(rows)
        colour = COLOURS.get(mode, NEUTRAL)
        plots.append(f'$data{place} using 1:2:({width * 0.9}) with boxes lc rgb "{colour}" '
                     f'fs solid 0.85 title "{mode}"')
        plots.append(f'$data{place} using 1:2:3 with yerrorbars lc rgb "black" ps 0 notitle')
    names = ", ".join(f"{quoted(name)} {number}" for number, name in enumerate(groups))
    if line is not None:
        plots.append(f'{line} with lines lc rgb "#aa0000" dt 2 notitle')
    scale = "set logscale y" if logarithmic else "set yrange [0:*]"
    commands = (f'{scale}\nset ylabel "{label}"\nset xtics rotate by -30 ({names}) noenhanced\n'
                f"set xrange [-0.6:{len(groups) - 0.4}]\nplot " + ", ".join(plots))
    return draw(title, commands, blocks, height=380)


def lines(title, x_label, y_label, curves):
    """Curves over time: {name: [(x, y), ...]}."""
    plots = [f'$data{place} with lines lw 2 lc rgb "{COLOURS.get(name, NEUTRAL)}" title "{name}"'
             for place, name in enumerate(curves)]
    return draw(title, f'set xlabel "{x_label}"\nset ylabel "{y_label}"\nset yrange [0:*]\nplot '
                + ", ".join(plots), list(curves.values()))


def points(title, x_label, y_label, clouds):
    """Points by the way in which a page came: {way: [(x, y), ...]}."""
    shown = [way for way in WAYS if clouds.get(way)]
    plots = [f'$data{place} with points pt {WAYS[way][1]} ps 0.4 lc rgb "{WAYS[way][0]}" '
             f'title "{way}"' for place, way in enumerate(shown)]
    return draw(title, f'set xlabel "{x_label}"\nset ylabel "{y_label}"\nplot ' + ", ".join(plots),
                [clouds[way] for way in shown], height=360)
