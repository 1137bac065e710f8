#!/usr/bin/env python3
"""Holds manual pages, completions and example configuration to what the tools' --help says.

Usage: manual_test.py ROOT BUILD_DIR [unittest arguments]

What --help prints is read as a person would read it, not from what the pages were made of. A shell that
is not installed is skipped.
"""

import gzip
import os
import pathlib
import re
import shutil
import subprocess
import sys
import tempfile
import unittest
import unittest.mock

ROOT = pathlib.Path()
BUILD = pathlib.Path()

PAGES = {"migratectl": "migratectl.1", "migrated": "migrated.8", "testbed": "testbed.1"}
_OPTION = re.compile(r"^  (-\S+)")
_COMMAND = re.compile(r"^  ([a-z][\w-]*)  ", re.MULTILINE)
_WORDS = re.compile(r"^  \S*?(--[\w-]+) \w+:\{([^}]*)\}")


def run(*arguments, **options):
    return subprocess.run([str(each) for each in arguments], capture_output=True, text=True,
                          timeout=50, **options)


class Help:
    """What `TOOL COMMAND... --help` shows."""

    def __init__(self, tool, path=()):
        self.path = path
        shown = run(BUILD / "bin" / tool, *path, "--help")
        assert shown.returncode == 0, shown.stderr
        self.options, self.words, commands = set(), {}, []
        for line in shown.stdout.splitlines():
            if option := _OPTION.match(line):
                self.options |= set(option.group(1).split(","))
            if words := _WORDS.match(line):
                self.words[words.group(1)] = words.group(2).split(",")
        if "Subcommands:" in shown.stdout:
            commands = _COMMAND.findall(shown.stdout.split("Subcommands:")[1])
        self.commands = [Help(tool, (*path, command)) for command in commands]

    def all(self):
        yield self
        for command in self.commands:
            yield from command.all()


def page_text(name):
    """A page as man shows it, without what it does for a terminal."""
    page = gzip.decompress((BUILD / "manual" / f"{name}.gz").read_bytes()).decode()
    text = re.sub(r"\\f[BIRP]", "", page).replace("\\-", "-").replace("\\&", "")
    return text.replace("\\e", "\\")


class Manual(unittest.TestCase):
    def test_every_command_and_option_has_its_place(self):
        for tool, name in PAGES.items():
            page = page_text(name)
            for command in Help(tool).all():
                part = page
                if command.path:
                    heading = f".SS {' '.join(command.path)}\n"
                    self.assertIn(heading, page)
                    part = re.split(r"^\.S[SH] ", page.split(heading)[1], flags=re.MULTILINE)[0]
                for option in command.options - {"-h", "--help"}:
                    with self.subTest(tool=tool, command=command.path, option=option):
                        self.assertRegex(part, rf"(?m)^(\S+, )*{re.escape(option)}( |,|$)")

    def test_has_no_option_that_the_tool_has_not(self):
        for tool, name in PAGES.items():
            known = {option for each in Help(tool).all() for option in each.options}
            shown = re.findall(r"(?m)^(--[\w-]+)(?: \S+)?$", page_text(name))
            self.assertGreater(len(shown), 0)
            self.assertLessEqual(set(shown), known)

    def test_is_valid(self):
        if not shutil.which("man"):
            self.skipTest("man is not installed (man-db)")
        for page in (BUILD / "manual").rglob("*.gz"):
            shown = run("man", "--warnings", "--local-file", page,
                        env={"LC_ALL": "C.UTF-8", "MANWIDTH": "100", "PATH": "/usr/bin:/bin"})
            with self.subTest(page=page.name):
                self.assertEqual((shown.returncode, shown.stderr), (0, ""))

    def test_every_function_has_a_page(self):
        pages = {path.name for path in (BUILD / "manual/man3").iterdir()}
        functions = {f"{name}.3.gz"
                     for header in (ROOT / "libmigrate/include/libmigrate").glob("*.h")
                     for name in re.findall(r"^MIGRATE_API\b[^;({]*?\b(migrate_\w+)\s*\(",
                                            header.read_text(), re.MULTILINE)}
        self.assertLessEqual(functions | {"libmigrate.3.gz"}, pages)


class Configuration(unittest.TestCase):
    NOT_SETTINGS = {"-h", "--help", "--version", "--config", "--debug-stops"}

    def settings(self):
        return {option[2:].replace("-", "_")
                for option in Help("migrated").options - self.NOT_SETTINGS}

    def test_example_has_every_setting(self):
        example = (BUILD / "manual/migrated.toml").read_text()
        self.assertEqual(set(re.findall(r"(?m)^#(\w+) = ", example)), self.settings())

    def test_example_is_what_the_daemon_takes(self):
        """With every setting written out: it then fails at the first that cannot be carried out,
        not at one that it does not understand."""
        example = (BUILD / "manual/migrated.toml").read_text()
        with tempfile.NamedTemporaryFile("w", suffix=".toml") as file:
            file.write(re.sub(r"(?m)^#(?=\w+ = )", "", example) + '\nunheard_of = "x"\n')
            file.flush()
            daemon = run(BUILD / "bin/migrated", "--config", file.name)
        self.assertEqual(daemon.returncode, 2)
        self.assertIn('unknown key "unheard_of"', daemon.stderr)

    def test_document_has_every_setting(self):
        text = (ROOT / "docs/operations.md").read_text()
        rows = text.split("| setting | default | means |")[1].split("\n\n")[0]
        named = {name for row in rows.splitlines() if row.startswith("| `")
                 for name in re.findall(r"`(\w+)`", row.split("|")[1])}
        self.assertEqual(named - {"debug_stops"}, self.settings())


class Completion(unittest.TestCase):
    def offered(self, tool, lines):
        """What the shell offers for the last word of each line, a list of sets."""
        raise NotImplementedError

    def check(self):
        """One shell for each tool: some take their time to start."""
        for tool in PAGES:
            expected = list(expectations(Help(tool)))
            answers = self.offered(tool, [line for line, _, _ in expected])
            for (line, words, exactly), offered in zip(expected, answers, strict=True):
                with self.subTest(tool=tool, line=line):
                    self.assertLessEqual(words, offered)
                    if exactly:
                        self.assertEqual(words, offered)


def expectations(top):
    """(what was typed, what must be offered, whether nothing else may be)."""
    for command in top.all():
        yield ((*command.path, "--"), {each for each in command.options if each.startswith("--")},
               False)
        if command.commands:
            yield (*command.path, ""), {each.path[-1] for each in command.commands}, False
        for option, words in command.words.items():
            yield (*command.path, option, ""), set(words), True
    yield ("--no-such",), set(), True


class Bash(Completion):
    def offered(self, tool, lines):
        script = 'source "$1"\n'
        for line in lines:
            words = " ".join(f"'{word}'" for word in (tool, *line))
            script += (f"COMP_WORDS=({words}) COMP_CWORD={len(line)}; _{tool};"
                       ' echo "${COMPREPLY[*]}"\n')
        file = BUILD / "manual/completions" / f"{tool}.bash"
        shown = run("bash", "--norc", "-c", script, "bash", file)
        self.assertEqual((shown.returncode, shown.stderr), (0, ""))
        return [set(line.split()) for line in shown.stdout.splitlines()]

    def test_offers_what_help_shows(self):
        self.check()

    def test_offers_processes_and_hosts(self):
        with tempfile.TemporaryDirectory() as folder:
            tool = pathlib.Path(folder) / "migratectl"
            tool.write_text('#!/bin/sh\nif [ "$1" = ps ]; then echo "ID PID"; echo "6cff50e6 22465";'
                            ' else echo "HOST ADDRESS"; echo "hostB 10.0.0.2"; fi\n')
            tool.chmod(0o755)
            with unittest.mock.patch.dict(os.environ, PATH=f"{folder}:/usr/bin:/bin"):
                shown, moved, host, to = self.offered("migratectl", [
                    ("show", ""), ("move", ""), ("move", "7", ""), ("check", "7", "--to", "")])
        self.assertEqual((shown, host, to), ({"6cff50e6"}, {"hostB"}, {"hostB"}))
        self.assertLessEqual({"6cff50e6", str(os.getpid())}, moved)

    def test_completes_values_after_an_equals_sign(self):
        self.assertEqual(self.offered("migratectl", [("move", "--mode", "=", "la"),
                                                     ("move", "--mode", "=")]),
                         [{"lazy"}, {"lazy", "demand", "eager", "precopy", "hybrid", "auto"}])

    def test_offers_commands_after_two_dashes(self):
        self.assertIn("bash", self.offered("testbed", [("exec", "hostA", "--", "bas")])[0])


@unittest.skipUnless(shutil.which("fish"), "fish is not installed")
class Fish(Completion):
    def offered(self, tool, lines):
        script = "source $argv[1]\n"
        for line in lines:
            script += f"complete -C '{' '.join((tool, *line))}'; echo END\n"
        file = BUILD / "manual/completions" / f"{tool}.fish"
        with tempfile.TemporaryDirectory() as home:
            shown = run("fish", "--no-config", "-c", script, file,
                        env={"HOME": home, "PATH": "/usr/bin:/bin"})
        self.assertEqual((shown.returncode, shown.stderr), (0, ""))
        return [{line.split("\t")[0] for line in answer.splitlines() if line}
                for answer in shown.stdout.split("END\n")[:-1]]

    def test_offers_what_help_shows(self):
        self.check()


# Lists what zsh would offer, in a terminal of its own, once its line editor is ready: each line is typed,
# Control-O lists and Control-P ends the list. What is typed is seen too.
ZSH = r"""
zmodload zsh/zpty
zpty shell zsh -f -i
zpty -w shell "PROMPT= RPROMPT= LISTMAX=1000 COLUMNS=300; stty columns 300 rows 200"
zpty -w shell "fpath=($1 \$fpath); autoload -Uz compinit; compinit -u -D"
zpty -w shell "setopt nolistbeep; zstyle ':completion:*' list-prompt ''; bindkey '^O' list-choices"
zpty -w shell "end-list() { BUFFER= ; zle -I; print END; }; zle -N end-list; bindkey '^P' end-list"
zpty -w shell "zle-line-init() { print REA''DY; }; zle -N zle-line-init"
while zpty -r shell line && [[ $line != *READY* ]]; do :; done
shift
for typed; do
  zpty -n -w shell "$typed"$'\x0f\x10'
  while zpty -r shell line; do print -r -- "$line"; [[ $line != *END* ]] || break; done
done
zpty -d shell
"""


@unittest.skipUnless(shutil.which("zsh"), "zsh is not installed")
class Zsh(Completion):
    def offered(self, tool, lines):
        typed = [" ".join((tool, *line)) for line in lines]
        with tempfile.TemporaryDirectory() as folder:
            shutil.copy(BUILD / "manual/completions" / f"{tool}.zsh",
                        pathlib.Path(folder) / f"_{tool}")
            shown = run("zsh", "-f", "-c", ZSH, "zsh", folder, *typed,
                        env={"HOME": folder, "PATH": "/usr/bin:/bin", "TERM": "dumb"})
        self.assertEqual(shown.returncode, 0, shown.stderr)
        answers = re.split(r"^.*END.*\n", shown.stdout.replace("\r", ""), flags=re.MULTILINE)[:-1]
        return [set(re.findall(r"(?<!\S)[\w-]+", answer)) - {tool} - set(line)
                for line, answer in zip(lines, answers, strict=True)]

    def test_offers_what_help_shows(self):
        self.check()


if __name__ == "__main__":
    ROOT = pathlib.Path(sys.argv.pop(1)).resolve()
    BUILD = pathlib.Path(sys.argv.pop(1)).resolve()
    unittest.main()
