"""What a tool says of its command line (`TOOL --describe`), as objects.

manual.py and completions.py are written against these, so that what a tool adds to its command line is
in its manual page and in the completions of all shells without further work.
"""

import dataclasses


@dataclasses.dataclass
class Option:
    names: list        # -h, --help; none for a positional
    positional: str    # its name, or ""
    help: str
    type: str          # "" for a flag
    words: list        # the only values that it may have, if any
    default: str
    environment: str
    required: bool
    repeatable: bool

    @property
    def takes_value(self):
        return bool(self.type)

    @property
    def value(self):
        """What stands for its value: the words, or the name of its kind."""
        return "|".join(self.words) if self.words else self.type

    @property
    def kind(self):
        """What completes its value: FILE, DIR, or what manual.py knows of this tool."""
        return self.positional or self.type


@dataclasses.dataclass
class Command:
    path: tuple        # ("keys", "init"); () for the tool itself
    help: str
    options: list
    positionals: list
    commands: list

    @property
    def name(self):
        return " ".join(self.path)

    def all(self):
        """This command and all below it."""
        yield self
        for command in self.commands:
            yield from command.all()


def command_of(description, path=()):
    """The command of the JSON object that `TOOL --describe` prints."""
    options = [Option(**each) for each in description["options"]]
    return Command(
        path=path,
        help=description["help"],
        options=[each for each in options if each.names],
        positionals=[each for each in options if each.positional],
        commands=[command_of(each, (*path, each["name"])) for each in description["commands"]])


# Where the names come from that a shell offers for a value, beside FILE and DIR: a shell command that
# prints them, one a line. Nothing is offered if it fails.
_FIRST_COLUMN = "2>/dev/null | sed -n '2,$s/ .*//p'"
_OF_PROCESSES = f"migratectl ps {_FIRST_COLUMN}"
SOURCES = {
    "migratectl": {
        "HOST": f"migratectl hosts {_FIRST_COLUMN}",
        "ID": _OF_PROCESSES,
        "PID": f"{_OF_PROCESSES}; ps -o pid= -u \"$(id -u)\" | tr -d ' '",
    },
    "testbed": {"HOST": "testbed list 2>/dev/null | sed 's/ .*//'"},
    "migrated": {},
}
