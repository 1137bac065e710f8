#!/usr/bin/env python3
"""Makes a tool's manual page and completions of what `TOOL --describe` prints.

Usage: manual.py TOOL PROGRAM PAGE.in VERSION OUT

TOOL is the name, PROGRAM the file to run. PAGE.in is the manual page, in which lines @SYNOPSIS@,
@COMMANDS@, @OPTIONS@, @SETTINGS@ and @EXIT_STATUSES@ stand for what is made here. Written are OUT/PAGE.gz and
OUT/completions/{bash,zsh,fish}; for migrated also its example configuration and the page of that.
"""

import gzip
import json
import pathlib
import re
import subprocess
import sys

import commands
import completions

CONFIGURATION_NOTE = """\
# Configuration of migrated; read when it starts. See migrated.toml(5).
# What begins with # is a comment; the settings below show the defaults.
"""
# Nothing that a configuration file may set.
NOT_SETTINGS = {"--help", "--version", "--config", "--debug-stops"}


def roff(text):
    """Text as roff: nothing in it is a command, and `what is quoted` is bold."""
    text = text.replace("\\", "\\e").replace("-", "\\-")
    text = re.sub(r"`([^`]*)`", r"\\fB\1\\fR", text)
    return re.sub(r"^([.'])", r"\\&\1", text, flags=re.MULTILINE)


def names_of(option):
    names = ", ".join(f"\\fB{roff(name)}\\fR" for name in option.names)
    if not option.takes_value:
        return names
    words = "|".join(f"\\fB{roff(word)}\\fR" for word in option.words)
    return f"{names} " + (words or f"\\fI{roff(option.type)}\\fR")


def notes_of(option):
    notes = []
    if option.default:
        notes.append(f"Default: {roff(option.default.strip('[]'))}.")
    if option.environment:
        notes.append(f"Also from the environment: \\fB{roff(option.environment)}\\fR.")
    return " ".join(notes)


def sentence(text):
    return text if text.endswith(".") else text + "."


def entry(label, *paragraphs):
    return "\n".join([".TP", label, *(text for text in paragraphs if text)])


def options_of(command):
    return "\n".join(entry(names_of(option), roff(sentence(option.help)), notes_of(option))
                     for option in command.options)


def told_usage(command):
    """(usage, what it does) of a command whose help begins with its usage, as "exec HOST -- CMD...: ..."
    does: CLI11 knows nothing of what follows --."""
    if command.path:
        told = re.match(rf"({re.escape(command.path[-1])} [^:]+): (.+)", command.help)
        if told:
            usage = " ".join((*command.path[:-1], told.group(1)))
            return usage, told.group(2)[0].upper() + told.group(2)[1:]
    return "", command.help


def usage_of(tool, command):
    told, _ = told_usage(command)
    if told:
        name = " ".join(command.path)
        return f"\\fB{roff(f'{tool} {name}')}\\fR\\fI{roff(told.removeprefix(name))}\\fR"
    words = [f"\\fB{roff(' '.join((tool, *command.path)))}\\fR"]
    if command.options:
        words.append("[\\fIOPTIONS\\fR]")
    words += [f"\\fI{roff(each.positional)}\\fR" if each.required
              else f"[\\fI{roff(each.positional)}\\fR]" for each in command.positionals]
    if command.commands:
        words.append("\\fICOMMAND\\fR")
    return " ".join(words)


def synopsis_of(tool, root):
    shown = [without_help(each) if each.path else each for each in root.all() if not each.commands]
    return "\n.br\n".join(usage_of(tool, each) for each in shown)


def without_help(command):
    """Help is said once, of the tool itself."""
    kept = [each for each in command.options if "--help" not in each.names]
    return commands.Command(command.path, command.help, kept, command.positionals, command.commands)


def commands_of(tool, root):
    parts = []
    for command in map(without_help, root.all()):
        if command.path:
            parts += [f".SS {roff(command.name)}", roff(sentence(told_usage(command)[1])), ".PP",
                      usage_of(tool, command)]
            parts += [entry(f"\\fI{roff(each.positional)}\\fR", roff(sentence(each.help)),
                            notes_of(each)) for each in command.positionals]
            parts.append(options_of(command))
    return "\n".join(part for part in parts if part)


def settings_of(root):
    """The options of migrated that its configuration file may have, by their keys there."""
    for option in root.options:
        if not NOT_SETTINGS & set(option.names):
            yield option.names[-1][2:].replace("-", "_"), option


def toml_value(option):
    if not option.takes_value:
        return "false"
    if option.repeatable:
        values = [each for each in option.default.strip("[]").split(",") if each]
        return json.dumps(values)
    return option.default if option.type == "UINT" else json.dumps(option.default)


def settings_page(root):
    return "\n".join(entry(f"\\fB{key}\\fR = {roff(toml_value(option))}",
                           roff(sentence(option.help)))
                     for key, option in settings_of(root))


def wrapped(text, width=96):
    line = "#"
    for word in text.split():
        if len(line) + 1 + len(word) > width:
            yield line
            line = "#"
        line += " " + word
    yield line


def example_configuration(root):
    blocks = [CONFIGURATION_NOTE]
    for key, option in settings_of(root):
        blocks.append("\n".join([*wrapped(sentence(option.help)), f"#{key} = {toml_value(option)}"])
                      + "\n")
    return "\n".join(blocks)


def exit_statuses_of(description):
    told = [(each["status"], each["meaning"]) for each in description["exit_statuses"]]
    return "\n".join(entry(str(status), roff(sentence(meaning[0].upper() + meaning[1:])))
                     for status, meaning in told)


def write_page(template, tool, description, version, out):
    root = commands.command_of(description)
    made = {"@SYNOPSIS@": lambda: synopsis_of(tool, root),
            "@COMMANDS@": lambda: commands_of(tool, root),
            "@OPTIONS@": lambda: options_of(root),
            "@SETTINGS@": lambda: settings_page(root),
            "@EXIT_STATUSES@": lambda: exit_statuses_of(description)}
    lines = [made[line]() if line in made else line.replace("@VERSION@", version)
             for line in template.read_text().splitlines()]
    page = out / (template.name.removesuffix(".in") + ".gz")
    # No name and no time in it: the same text gives the same file.
    page.write_bytes(gzip.compress(("\n".join(lines) + "\n").encode(), 9, mtime=0))


def main(tool, program, template, version, out):
    template, out = pathlib.Path(template), pathlib.Path(out)
    printed = subprocess.run([program, "--describe"], check=True, capture_output=True, text=True)
    description = json.loads(printed.stdout)
    root = commands.command_of(description)
    shells = out / "completions"
    shells.mkdir(parents=True, exist_ok=True)
    write_page(template, tool, description, version, out)
    completions.write(shells, tool, root, commands.SOURCES[tool])
    if tool == "migrated":
        write_page(template.with_name("migrated.toml.5.in"), tool, description, version, out)
        (out / "migrated.toml").write_text(example_configuration(root))


if __name__ == "__main__":
    if len(sys.argv) != 6:
        sys.exit(__doc__)
    main(*sys.argv[1:])
