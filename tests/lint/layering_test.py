#!/usr/bin/env python3
"""Holds the sources to the layer table of HACKING.md and to the sizes of files.

Usage: layering_test.py ROOT [unittest arguments]
"""

import collections
import functools
import pathlib
import re
import sys
import tempfile
import unittest

ROOT = pathlib.Path()

# What each folder may include besides itself. A folder that is not named may include nothing.
MAY_INCLUDE = {
    "base": set(),
    "transport": {"base"},
    "pager": {"base"},
    "libmigrate": {"base", "transport", "pager"},
    "mpi": set(),
    "tools": {"base", "transport", "pager", "libmigrate"},
}
MAY_INCLUDE["tests"] = set(MAY_INCLUDE) | {"tests"}
MAY_INCLUDE["bench"] = set(MAY_INCLUDE) | {"bench"}

# A tool that may know less than its folder.
MAY_INCLUDE_TOOL = {"tools/testbed": {"base", "tools"}}

HEADER_LINES = 200
FUNCTION_LINES = 70
SOURCE_LINES = 600

ARCHITECTURE = "libmigrate/arch/"
# What only the folder of one architecture may say: registers, and headers with their layouts.
ARCHITECTURE_WORDS = re.compile(
    r"#\s*include\s*<(asm/(?!mman|ioctl)\w+\.h|cpuid\.h|immintrin\.h|sys/(user|reg)\.h)>"
    r"|#\s*include\s*\"libmigrate/arch/\w+/"
    r"|\bSYS_(poll|epoll_wait|select|pause|open|creat|time|alarm|dup2|pipe|readlink|access|l?stat|unlink)\b"
    r"|\bxcr0\b|\b0x7ffffffff000\b|\bSYS_modify_ldt\b|\bPR_[GS]ET_TSC\b(?!\")|\[vsyscall\]"
    r"|\buser_(fp)?regs_struct\b|\barch_prctl\b|\bSYS_arch_prctl\b|__x86_64__|\basm\s*(volatile)?\s*\(")

TRANSPORTS = ("transport/page_transport.cc", "transport/rdma")
# What only a transport of pages itself may be called by: all else goes by the table of them.
TRANSPORT_WORDS = re.compile(r"\w*rdma\w*", re.IGNORECASE)

INCLUDE = re.compile(r'^\s*#\s*include\s*"([^"]+)"', re.MULTILINE)
# Nor does it help to name a file of ours as if it were the system's.
INCLUDE_AS_SYSTEM = re.compile(rf"^\s*#\s*include\s*<((?:{'|'.join(MAY_INCLUDE)})/[^>]+)>", re.MULTILINE)
# Made by protoc at build time from libmigrate/proto/.
GENERATED = re.compile(r"\.pb\.h$")
# The installed headers are found by this prefix, below libmigrate/include/.
PUBLIC_PREFIX = "libmigrate/"


def code_files(root):
    """Paths of sources and headers, relative to the root."""
    for folder in MAY_INCLUDE:
        for path in sorted((root / folder).rglob("*")):
            if path.suffix in (".cc", ".h", ".hpp", ".c", ".S") and path.is_file():
                yield path.relative_to(root)


@functools.cache
def text_of(path):
    return path.read_text()


def includes(root, path):
    text = text_of(root / path)
    return INCLUDE.findall(text) + INCLUDE_AS_SYSTEM.findall(text)


def exists(root, name):
    """Whether an include names a file from the root, or a public header by its installed name."""
    return (GENERATED.search(name) or (root / name).is_file()
            or (name.startswith(PUBLIC_PREFIX)
                and (root / "libmigrate" / "include" / name).is_file()))


def layering_faults(root):
    for path in code_files(root):
        folder = path.parts[0]
        allowed = MAY_INCLUDE[folder] | {folder}
        for tool, narrower in MAY_INCLUDE_TOOL.items():
            if path.is_relative_to(tool):
                allowed = narrower
        for name in includes(root, path):
            other = name.split("/")[0]
            if "/" not in name or other not in MAY_INCLUDE:
                # Tests may sit beside small headers of their own; all else is named from the root.
                if folder not in ("tests", "bench") or not (root / path.parent / name).is_file():
                    yield f'{path}: "{name}" is not named from the root'
            elif other not in allowed:
                yield f'{path}: {folder}/ must not include "{name}"'
            elif not exists(root, name):
                yield f'{path}: "{name}" does not exist'


ROOMS = "docs/architecture.md"
ROOM_ROW = re.compile(r"^\| `(\w+)/` \|", re.MULTILINE)
# The most that one room may have of the lines of libmigrate.
ROOM_SHARE = 0.2


def rooms_of(root):
    """The rooms of libmigrate in the order in which docs/architecture.md lists them: a room may
    include those before it."""
    text = (root / ROOMS).read_text()
    return ROOM_ROW.findall(text[text.index("| room |"):])


def room_files(root):
    for path in code_files(root):
        if path.parts[0] == "libmigrate" and len(path.parts) > 2:
            yield path.parts[1], path


def room_faults(root):
    """Arrows between rooms that do not lead upwards in the list, so that there is no circle."""
    rank = {room: place for place, room in enumerate(rooms_of(root))}
    for path in code_files(root):
        if path.parts[0] == "libmigrate" and len(path.parts) == 2:
            yield f"{path}: is in no room"
    for room, path in room_files(root):
        if room not in rank:
            yield f"{path}: room {room}/ is not in the list of {ROOMS}"
            continue
        for name in includes(root, path):
            parts = name.split("/")
            if parts[0] != "libmigrate" or len(parts) < 3 or parts[1] == room:
                continue
            if rank.get(parts[1], len(rank)) > rank[room]:
                yield f'{path}: room {room}/ must not include "{name}"'


def room_size_faults(root):
    lines = collections.Counter()
    for room, path in room_files(root):
        lines[room] += text_of(root / path).count("\n")
    for room, count in lines.items():
        if len(lines) > 1 and count > ROOM_SHARE * lines.total():
            yield f"libmigrate/{room}/: {count} of {lines.total()} lines (limit {ROOM_SHARE:.0%})"


def internal_faults(root):
    for path in code_files(root):
        for name in includes(root, path):
            owner, internal, _ = name.partition("/internal/")
            if internal and not str(path).startswith((owner + "/", "tests/", "bench/")):
                yield f'{path}: "{name}" is private to {owner}/'


def architecture_faults(root):
    for path in code_files(root):
        if path.parts[0] in ("tests", "bench") or str(path).startswith(ARCHITECTURE):
            continue
        found = ARCHITECTURE_WORDS.search(text_of(root / path))
        if found or path.suffix == ".S":
            what = found.group(0) if found else "assembly"
            yield f"{path}: {what} belongs into {ARCHITECTURE}"


def transport_faults(root):
    """Nobody names a transport of pages but its own files and the table."""
    for path in code_files(root):
        if path.parts[0] in ("tests", "bench") or str(path).startswith(TRANSPORTS):
            continue
        code = re.sub(r"//.*", "", text_of(root / path))
        if found := TRANSPORT_WORDS.search(code):
            yield f"{path}: {found.group(0)}: transports of pages are in transport/page_transport.h"


def size_faults(root):
    for path in code_files(root):
        lines = text_of(root / path).count("\n")
        limit = HEADER_LINES if path.suffix in (".h", ".hpp") else SOURCE_LINES
        if lines > limit:
            yield f"{path}: {lines} lines; {limit} are allowed"


# Where a definition begins that is no function, at the left margin as clang-format has it.
NO_FUNCTION = re.compile(r"(struct|class|enum|union|namespace|extern|template|#|//|\}|\s|$"
                         r"|constexpr [^(]*(=|$))")


def function_faults(root):
    for path in code_files(root):
        if path.suffix != ".cc" or path.parts[0] in ("tests", "bench"):
            continue
        begin = None
        for number, line in enumerate(text_of(root / path).splitlines(), 1):
            if not NO_FUNCTION.match(line):
                begin = begin or number
            if begin and line.startswith("}"):
                if number - begin >= FUNCTION_LINES:
                    yield f"{path}:{begin}: {number - begin + 1} lines (limit {FUNCTION_LINES})"
            if line.startswith("}") or line.endswith(";") and not line[:1].isspace():
                begin = None


def first_include_faults(root):
    for path in code_files(root):
        if path.suffix != ".cc":
            continue
        public = path.parts[0] == "libmigrate" and (
            root / "libmigrate" / "include" / "libmigrate" / path.with_suffix(".h").name)
        own = str(path.with_suffix(".h"))
        if not (root / own).is_file():
            if not (public and public.is_file()):
                continue
            own = f"libmigrate/{public.name}"
        first = re.search(r'^\s*#\s*include\s*[<"]([^>"]+)[>"]', text_of(root / path),
                          re.MULTILINE)
        if first and first.group(1) not in (own, f"libmigrate/include/{own}"):
            yield f'{path}: includes "{first.group(1)}" before its own "{own}"'


def guard_faults(root):
    for path in code_files(root):
        if path.suffix == ".h":
            # The C interface is for any compiler, and so has a guard of the standard's kind.
            guards = ["#pragma once"] + (["#ifndef "] if "libmigrate/include" in str(path) else [])
            text = text_of(root / path)
            if not any(guard in text for guard in guards):
                yield f"{path}: #pragma once is missing"


TYPE = re.compile(r"^(?:class|struct|enum class) (?:MIGRATE_ATTRIBUTE\([\w()]*\) )?(\w+)(?:\s[^;]*)?$")
NAMESPACE = re.compile(r"^namespace ([\w:]+) \{")


def types_of(text):
    """Types that a header defines, with their namespace. Members of namespaces are not indented."""
    inside = []
    for line in text.splitlines():
        if opened := NAMESPACE.match(line):
            inside.append(opened.group(1))
        elif line.startswith("}  // namespace") and inside:
            inside.pop()
        elif (defined := TYPE.match(line)) and not line.rstrip().endswith(";"):
            yield "::".join(inside + [defined.group(1)])


def type_faults(root):
    """Two types of one name in one namespace are taken for one by the linker, without a word."""
    where = {}
    for path in code_files(root):
        if path.suffix == ".h" and path.parts[0] != "tests":
            for name in types_of(text_of(root / path)):
                if name in where:
                    yield f"{path}: {name} is defined in {where[name]}, too"
                where[name] = path


# Rooms whose classes decide what becomes of a process: so much, and no more, fits into a head.
DECIDING_ROOMS = ("guest", "home", "move", "takeover", "host")
MEMBERS = 20
FLAGS = 2
MEMBER = re.compile(r"^  (?:const |std::unique_ptr|static )?[\w:<>,&*\s()]*\b\w+_"
                    r"(\[\w*\]| = [^;]*|\{[^;]*\}| MIGRATE_GUARDED_BY\(\w+\))*;")
# Where a function's body begins, and no initial value of a member.
BODY = re.compile(r"(\)[\w\s]*|\b(struct|class|enum|union)\b.*) \{$")


def members_in(lines):
    """Declarations of a class, each as one line however many it takes, as clang-format has them:
    they begin two columns in, and go on further in."""
    declaration = None
    for line in lines:
        line = re.sub(r"\s*//.*", "", line).rstrip()
        indent = len(line) - len(line.lstrip())
        closes = line.startswith("  }") and declaration is not None
        if line and indent == 2 and not closes:
            declaration = line
        elif line and indent >= 2 and declaration:
            declaration += " " + line.lstrip()
        else:
            continue
        if declaration.endswith(";"):
            if MEMBER.match(declaration):
                yield declaration
            declaration = None
        elif declaration.endswith((":", "}")) or BODY.search(declaration):
            declaration = None


def is_flag(declaration):
    kind = declaration.replace("std::atomic<bool>", "bool").partition("=")[0]
    while "<" in kind:  # What is kept in a container, or what a function returns, is no flag.
        kind, inner = re.sub(r"<[^<>]*>", "", kind), kind
        if kind == inner:
            break
    return re.search(r"\bbool\b", kind) is not None


def class_faults(root):
    for path in code_files(root):
        if path.suffix == ".S" or path.parts[0] != "libmigrate" or path.parts[1] not in DECIDING_ROOMS:
            continue
        name, body = None, []
        for line in text_of(root / path).splitlines():
            if (defined := TYPE.match(line)) and not line.endswith(";"):
                name, body = defined.group(1), []
            elif line.startswith("};") and name:
                members = list(members_in(body))
                flags = sum(map(is_flag, members))
                if len(members) > MEMBERS or flags > FLAGS:
                    yield (f"{path}: {name} has {len(members)} members and {flags} flags; "
                           f"{MEMBERS} and {FLAGS} are allowed")
                name = None
            elif name:
                body.append(line)


class Layering(unittest.TestCase):
    """Each check over the whole tree."""

    def hold(self, faults):
        found = list(faults(ROOT))
        self.assertFalse(found, "\n" + "\n".join(found))

    def test_lower_layers_include_no_higher_one(self):
        self.hold(layering_faults)

    def test_rooms_know_only_those_before_them(self):
        self.hold(room_faults)

    def test_no_room_is_too_large(self):
        self.hold(room_size_faults)

    def test_every_room_of_the_list_exists(self):
        for room in rooms_of(ROOT):
            self.assertTrue((ROOT / "libmigrate" / room).is_dir(), room)

    def test_private_headers_stay_private(self):
        self.hold(internal_faults)

    def test_architecture_stays_in_its_folder(self):
        self.hold(architecture_faults)

    def test_transports_of_pages_are_named_by_their_table_only(self):
        self.hold(transport_faults)

    def test_files_are_small(self):
        self.hold(size_faults)

    def test_functions_are_small(self):
        self.hold(function_faults)

    def test_sources_include_their_own_header_first(self):
        self.hold(first_include_faults)

    def test_types_have_names_of_their_own(self):
        self.hold(type_faults)

    def test_deciding_classes_are_small(self):
        self.hold(class_faults)

    def test_headers_are_guarded(self):
        self.hold(guard_faults)


class Checks(unittest.TestCase):
    """The checks themselves, on a tree with one fault."""

    def check(self, faults, path, text):
        with tempfile.TemporaryDirectory() as name:
            root = pathlib.Path(name)
            for good in ["base/a.h", "pager/p.h", "pager/internal/i.h", "libmigrate/m.h"]:
                (root / good).parent.mkdir(parents=True, exist_ok=True)
                (root / good).write_text("#pragma once\n")
            self.assertEqual(list(faults(root)), [])
            (root / path).parent.mkdir(parents=True, exist_ok=True)
            (root / path).write_text(text)
            self.assertEqual(len(list(faults(root))), 1)

    def test_find_faults_between_rooms(self):
        with tempfile.TemporaryDirectory() as name:
            root = pathlib.Path(name)
            for room in "abcdef":
                (root / "libmigrate" / room).mkdir(parents=True)
                (root / "libmigrate" / room / "x.h").write_text("#pragma once\n")
            (root / "docs").mkdir()
            (root / ROOMS).write_text("| room | does |\n" + "".join(
                f"| `{room}/` | x |\n" for room in "abcdef"))
            self.assertEqual(list(room_faults(root)) + list(room_size_faults(root)), [])
            (root / "libmigrate/a/y.cc").write_text('#include "libmigrate/b/x.h"\n' + "\n" * 9)
            self.assertEqual(len(list(room_faults(root))), 1)
            self.assertEqual(len(list(room_size_faults(root))), 1)
            (root / "libmigrate/b/y.cc").write_text("#include <libmigrate/c/x.h>\n")
            self.assertEqual(len(list(room_faults(root))), 2)
            (root / "libmigrate/y.cc").write_text("\n")
            self.assertEqual(len(list(room_faults(root))), 3)
            (root / "libmigrate/zoo").mkdir()
            (root / "libmigrate/zoo/y.hpp").write_text("\n")
            self.assertEqual(len(list(room_faults(root))), 4)

    def test_find_faults(self):
        self.check(layering_faults, "base/b.cc", '#include "pager/p.h"\n')
        self.check(layering_faults, "transport/t.h", '#include "pager/p.h"\n')
        self.check(layering_faults, "pager/q.cc", '#include "libmigrate/m.h"\n')
        self.check(layering_faults, "pager/q.cc", '#include "p.h"\n')
        self.check(layering_faults, "pager/q.cc", '#include "base/gone.h"\n')
        self.check(layering_faults, "libmigrate/n.cc", '#include "tests/x.h"\n')
        self.check(layering_faults, "tools/testbed/n.cc", '#include "libmigrate/m.h"\n')
        self.check(internal_faults, "libmigrate/n.cc", '#include "pager/internal/i.h"\n')
        self.check(architecture_faults, "libmigrate/n.cc", "#include <sys/user.h>\n")
        self.check(architecture_faults, "libmigrate/n.cc", "int n = SYS_poll;\n")
        self.check(architecture_faults, "libmigrate/n.cc", "int n = PR_GET_TSC;\n")
        self.check(transport_faults, "tools/t.cc", "// rdma\nconnect_rdma();\n")
        self.check(size_faults, "base/b.h", "\n" * (HEADER_LINES + 1))
        self.check(size_faults, "base/b.cc", "\n" * (SOURCE_LINES + 1))
        long = "void f() {\n" + "  g();\n" * (FUNCTION_LINES - 1) + "}\n"
        self.check(function_faults, "base/b.cc", long + "void h() {\n}\n")
        self.check(first_include_faults, "base/a.cc", '#include <string>\n#include "base/a.h"\n')
        self.check(guard_faults, "base/b.h", "\n")
        twice = "namespace m {\nclass A;\nclass A : B {\n};\nclass A::C {\n};\nstruct A {\n};\n}  // namespace m\n"
        many = "class A {\n" + "".join(f"  int n{i}_ = 0;\n" for i in range(MEMBERS + 1)) + "};\n"
        self.check(class_faults, "libmigrate/move/a.h", many)
        flags = "class A {\n" + "".join(f"  bool b{i}_ = false;\n" for i in range(FLAGS + 1)) + "};\n"
        self.check(class_faults, "libmigrate/move/a.h", flags)
        self.check(type_faults, "base/b.h", twice)

    def test_count_members_over_several_lines(self):
        text = """
 public:
  A(int a, int b)
      : a_(a),
        b_(b) {}
  int f() const { return a_; }
  void g(int a_,
         int b_) const;
  bool h() {
    return is_it_;
  }
  struct Inner {
    bool inner_ = false;
  };

 private:
  int a_ = 0;  // what it is; of old
  int b_[4] = {};
  std::map<std::string,
           std::pair<int, bool>>
      long_one_;
  std::array<int, 2> values_{
      1,
      2,
  };
  std::function<bool(int)> ask_;
  std::atomic<bool>
      flag_ = false;
  const bool fixed_ =
      true;
""".splitlines()
        members = list(members_in(text))
        self.assertEqual([re.search(r"(\w+_)\b(?! *[(:])", each).group(1) for each in members],
                         ["a_", "b_", "long_one_", "values_", "ask_", "flag_", "fixed_"])
        self.assertEqual([is_flag(each) for each in members],
                         [False, False, False, False, False, True, True])
        many = "class A {\n" + "".join(f"  std::map<int,\n           int>\n      n{i}_;\n"
                                       for i in range(MEMBERS + 1)) + "};\n"
        self.check(class_faults, "libmigrate/move/a.h", many)


if __name__ == "__main__":
    ROOT = pathlib.Path(sys.argv.pop(1)).resolve()
    unittest.main()
