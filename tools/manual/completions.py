"""Completions of a tool's command line for bash, zsh and fish.

Each file is a table of what the tool has, and for bash the same few lines that read it. No shell needs
anything installed but itself.
"""

FILES = "FILE"
FOLDERS = "DIR"


def quoted(text):
    """As one word of any of the three shells."""
    return "'" + text.replace("'", "'\\''") + "'"


def values_of(option, sources):
    """(how, what): "words", "command" (which prints them), "file", "folder", or "" for any text."""
    if option.words:
        return "words", " ".join(option.words)
    if option.kind == FILES:
        return "file", ""
    if option.kind == FOLDERS:
        return "folder", ""
    if option.kind in sources:
        return "command", sources[option.kind]
    return "", ""


def own_and_above(root, command):
    """The options of a command, and those of the ones above it, which take theirs anywhere."""
    found = {}
    for other in root.all():
        if other.path == command.path[:len(other.path)]:
            for option in other.options:
                for name in option.names:
                    found[name] = option
    return found


# --- bash ---

BASH = """\
# Completion of {tool} for bash. Made from `{tool} --describe`; changes are lost.

# What a command has: the words that can follow, and what its arguments are.
_{tool}_of_command() {{
  words="" arguments=()
  case $1 in
{commands}
  esac
}}

# What the value of an option is: sets how and what; fails if it has none.
_{tool}_of_option() {{
  case $1:$2 in
{options}
    *) return 1 ;;
  esac
}}

# Offers values of a kind.
_{tool}_offer() {{
  local how=$1 what=$2 word=$3
  case $how in
    words) mapfile -t COMPREPLY < <(compgen -W "$what" -- "$word") ;;
    command) mapfile -t COMPREPLY < <(compgen -W "$(eval "$what" 2>/dev/null)" -- "$word") ;;
    file) mapfile -t COMPREPLY < <(compgen -f -- "$word"); compopt -o filenames 2>/dev/null ;;
    folder) mapfile -t COMPREPLY < <(compgen -d -- "$word"); compopt -o filenames 2>/dev/null ;;
  esac
}}

_{tool}() {{
  local word=${{COMP_WORDS[COMP_CWORD]}} previous=${{COMP_WORDS[COMP_CWORD - 1]}}
  local command="" words how what i given=0 skip=""
  local -a arguments
  COMPREPLY=()
  _{tool}_of_command ""
  for ((i = 1; i < COMP_CWORD; i++)); do
    local each=${{COMP_WORDS[i]}}
    if [[ $each == -- ]]; then  # What follows is a command of its own.
      mapfile -t COMPREPLY < <(compgen -c -f -- "$word")
      return
    elif [[ -n $skip || $each == = ]]; then
      [[ $each == = ]] || skip=""
    elif [[ $each == -* ]]; then
      ! _{tool}_of_option "$command" "$each" || skip=yes
    elif [[ " $words " == *" $each "* ]]; then
      command="${{command:+$command }}$each"
      _{tool}_of_command "$command"
    else
      given=$((given + 1))
    fi
  done
  # --option=value comes in three words.
  if [[ $word == = ]]; then word="" previous=${{COMP_WORDS[COMP_CWORD - 1]}};
  elif [[ $previous == = ]]; then previous=${{COMP_WORDS[COMP_CWORD - 2]}}; fi
  if [[ $previous == -* ]] && _{tool}_of_option "$command" "$previous"; then
    _{tool}_offer "$how" "$what" "$word"
  elif [[ $word == -* || -z ${{arguments[given]:-}} ]]; then
    mapfile -t COMPREPLY < <(compgen -W "$words" -- "$word")
  else
    how=${{arguments[given]%%:*}} what=${{arguments[given]#*:}}
    _{tool}_offer "$how" "$what" "$word"
  fi
}}
complete -F _{tool} {tool}
"""


def bash(tool, root, sources):
    commands, options = [], []
    for command in root.all():
        names = own_and_above(root, command)
        words = [each.path[-1] for each in command.commands] + list(names)
        arguments = " ".join(quoted(":".join(values_of(each, sources)))
                             for each in command.positionals)
        commands.append(f"    {quoted(command.name)}) words={quoted(' '.join(words))}"
                        f" arguments=({arguments}) ;;")
        for name, option in names.items():
            if option.takes_value:
                how, what = values_of(option, sources)
                options.append(f"    {quoted(command.name + ':' + name)})"
                               f" how={quoted(how)} what={quoted(what)} ;;")
    return BASH.format(tool=tool, commands="\n".join(commands), options="\n".join(options))


# --- zsh ---

def zsh_text(text):
    """Inside [...] of an _arguments specification, or before the colon of _describe."""
    return text.replace("\\", "\\\\").replace("[", "\\[").replace("]", "\\]").replace(":", "\\:")


def zsh_action(option, sources):
    how, what = values_of(option, sources)
    return {"words": f"({what})", "file": "_files", "folder": "_files -/",
            "command": "{compadd -- ${(f)\"$(" + what + ")\"}}", "": " "}[how]


def zsh_option(name, option, sources):
    repeat = "*" if option.repeatable else ""
    equals = "=" if option.takes_value and name.startswith("--") else ""
    value = f":{option.type}:{zsh_action(option, sources)}" if option.takes_value else ""
    return quoted(f"{repeat}{name}{equals}[{zsh_text(option.help)}]{value}")


def zsh_function(tool, command):
    return "_" + "_".join((tool, *command.path)).replace("-", "_")


def zsh(tool, root, sources):
    parts = [f"#compdef {tool}\n# Completion of {tool} for zsh. Made from `{tool} --describe`;"
             " changes are lost.\n"]
    for command in root.all():
        specifications = [zsh_option(name, option, sources)
                          for name, option in own_and_above(root, command).items()]
        body = [f"{zsh_function(tool, command)}() {{"]
        if command.commands:
            body += ["  local context state state_descr line", "  typeset -A opt_args",
                     "  local -a commands=("]
            body += [f"    {quoted(each.path[-1] + ':' + zsh_text(each.help))}"
                     for each in command.commands]
            body.append("  )")
            specifications += ["'1: :->command'", "'*:: :->rest'"]
        specifications += [quoted(f":{each.positional}:{zsh_action(each, sources)}")
                           for each in command.positionals]
        body.append("  _arguments -C \\\n    " + " \\\n    ".join(specifications))
        if command.commands:
            body += ["  case $state in", "    command) _describe command commands ;;",
                     "    rest)", "      case $line[1] in"]
            body += [f"        {each.path[-1]}) {zsh_function(tool, each)} ;;"
                     for each in command.commands]
            body += ["      esac ;;", "  esac"]
        parts.append("\n".join([*body, "}"]) + "\n")
    parts.append(f'{zsh_function(tool, root)} "$@"\n')
    return "\n".join(parts)


# --- fish ---

def fish_text(text):
    return "'" + text.replace("\\", "\\\\").replace("'", "\\'") + "'"


def fish_condition(command):
    seen = [f"__fish_seen_subcommand_from {word}" for word in command.path]
    if command.commands:
        below = " ".join(each.path[-1] for each in command.commands)
        seen.append(f"not __fish_seen_subcommand_from {below}")
    return "; and ".join(seen)


def fish_values(option, sources):
    how, what = values_of(option, sources)
    return {"words": f" -x -a {fish_text(what)}", "file": " -r -F",
            "folder": " -x -a '(__fish_complete_directories)'",
            "command": f" -x -a {fish_text('(sh -c ' + fish_text(what) + ')')}", "": " -x"}[how]


def fish_names(option):
    return "".join(f" -l {name[2:]}" if name.startswith("--") else f" -s {name[1:]}"
                   for name in option.names)


def fish(tool, root, sources):
    lines = [f"# Completion of {tool} for fish. Made from `{tool} --describe`; changes are lost.",
             f"complete -c {tool} -f"]
    for command in root.all():
        # Those of the tool itself may stand anywhere.
        condition = f" -n {fish_text(fish_condition(command))}" if command.path else ""
        before = f" -n {fish_text(fish_condition(command))}"
        for each in command.commands:
            lines.append(f"complete -c {tool}{before} -a {each.path[-1]} -d {fish_text(each.help)}")
        for option in command.options:
            if command.path and "--help" in option.names:
                continue
            values = fish_values(option, sources) if option.takes_value else ""
            lines.append(f"complete -c {tool}{condition}{fish_names(option)}{values}"
                         f" -d {fish_text(option.help)}")
        for each in command.positionals:
            if values_of(each, sources)[0]:
                lines.append(f"complete -c {tool}{condition}{fish_values(each, sources)}"
                             f" -d {fish_text(each.positional)}")
    return "\n".join(lines) + "\n"


def write(folder, tool, root, sources):
    for shell in (bash, zsh, fish):
        (folder / f"{tool}.{shell.__name__}").write_text(shell(tool, root, sources))
