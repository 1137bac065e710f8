#!/usr/bin/env python3
"""Makes the manual pages of the C interface of what its headers say.

Usage: api_pages.py VERSION OUT HEADER...

OUT/libmigrate.3.gz has the comment at the top of the first header, the types and all functions;
OUT/NAME.3.gz is the page of one function: what stands above its declaration.
"""

import gzip
import pathlib
import re
import shutil
import sys
import textwrap

from manual import roff, sentence

# What a header is made of; strings do not occur in declarations.
_PIECE = re.compile(r"(?P<comment>/\*.*?\*/)|(?P<directive>^#(?:[^\n]*\\\n)*[^\n]*$)|(?P<other>.)",
                    re.DOTALL | re.MULTILINE)
_FOR_CXX = re.compile(r"^#ifdef __cplusplus\n.*?^#endif.*?$", re.DOTALL | re.MULTILINE)
_COMMENT = re.compile(r"/\*.*?\*/", re.DOTALL)
_FUNCTION = re.compile(r"\b(migrate_\w+)\s*\(")


def comment_text(comment):
    """Without the stars at the beginnings of lines; paragraphs and examples stay apart."""
    lines = [re.sub(r"^\s*\*? ?", "", line).rstrip() for line in comment.strip().splitlines()]
    return "\n".join(lines).strip()


def prototype_of(code):
    """The declaration alone: no attribute, and no body of an inline function."""
    code = re.sub(r"\b(MIGRATE_[A-Z_]+|static inline)\s+", "", code)
    head = re.split(r"\{", code)[0] if _FUNCTION.search(re.split(r"\{", code)[0]) else code
    return re.sub(r"\s+", " ", head).strip().rstrip(";") + ";"


def paragraphs(text):
    """Prose as roff; what is indented is an example and keeps its lines."""
    parts = []
    text = re.sub(r"(?<=\.)\n(?=Returns )", "\n\n", text)
    for block in re.split(r"\n\s*\n", text):
        lines = block.splitlines()
        if lines and all(line.startswith("  ") for line in lines):
            parts.append(".PP\n.nf\n.RS\n" + roff(textwrap.dedent(block)) + "\n.RE\n.fi")
        else:
            parts.append(".PP\n" + roff("\n".join(line.strip() for line in lines)))
    return "\n".join(parts)


def is_whole(code):
    """Whether a declaration has come to its end: its semicolon, or the brace of a function's body."""
    bare = _COMMENT.sub("", code).strip()
    if bare.count("{") != bare.count("}"):
        return False
    is_body = bare.endswith("}") and re.match(r"[^{]*\)\s*\{", bare)
    return bare.endswith(";") or bool(is_body)


def read(text):
    """The declarations of a header, each with what is said of it, and what is said of none of them.

    What stands above a declaration is said of all up to the next blank line, what stands behind it on
    its line of it alone. A comment before a blank line is of the whole header, as the first one is; but
    for headings, which begin with dashes. What stands above a directive is not for the pages."""
    found, prose = [], []
    above = code = ""
    is_free, lines, last = False, 0, ""  # nothing declared below `above` yet; line ends since `last`
    for piece in _PIECE.finditer(_FOR_CXX.sub("", text)):
        word = piece.group()
        if code:
            code += word
            if is_whole(code):
                found.append((code.strip(), above))
                code, is_free, lines, last = "", False, 0, "declaration"
        elif piece.group("comment"):
            said = comment_text(word[2:-2])
            if last == "declaration" and lines == 0:
                found[-1] = (found[-1][0], f"{found[-1][1]}\n{said}".strip())
            else:
                above, is_free, lines, last = said, True, 0, "comment"
        elif word.isspace() or piece.group("directive"):
            lines += word.count("\n")
            if lines > 1 or not word.isspace():
                is_of_all = lines > 1 or not (prose or found)
                if is_free and is_of_all and not above.startswith("--"):
                    prose.append(above)
                above, is_free, last = "", False, ""
        else:
            code = word
    return found, prose


class Header:
    """What one header declares, with the comments above it."""

    def __init__(self, path):
        self.path = path
        self.functions, self.types = [], []
        found, prose = read(path.read_text())
        self.introduction = "\n\n".join(prose)
        for code, comment in found:
            name = _FUNCTION.search(code)
            if name and re.match(r"(MIGRATE_API|static inline)\b", code):
                self.functions.append((name.group(1), prototype_of(code), comment))
            else:
                self.types.append((code, comment))


def page(name, summary, version, sections):
    lines = [f".TH {name} 3 \"\" \"libmigrate {version}\" \"C interface of libmigrate\"",
             ".SH NAME", f"{roff(name)} \\- {roff(summary)}"]
    for title, body in sections:
        lines += [f".SH {title}", body]
    return "\n".join(lines) + "\n"


def summary_of(comment):
    text = re.sub(r"\s+", " ", comment)
    first = re.split(r"(?<=[.;]) ", text)[0].rstrip(".;")
    if not first:
        return "see libmigrate(3)"
    return first if first[1:2].isupper() else first[0].lower() + first[1:]


def synopsis(include, prototypes):
    wrapped = [line for each in prototypes for line in textwrap.wrap(each, 76, subsequent_indent="    ")]
    lines = "\n".join(f".B \"{roff(each)}\"" for each in wrapped)
    return f".nf\n.B #include <{include}>\n.PP\n{lines}\n.PP\nLink with \\fI\\-lmigrate\\fR.\n.fi"


def include_of(header):
    return "libmigrate/" + header.path.name


def function_page(header, name, prototype, comment, version):
    return page(name, summary_of(comment), version, [
        ("SYNOPSIS", synopsis(include_of(header), [prototype])),
        ("DESCRIPTION", paragraphs(sentence(comment))),
        ("SEE ALSO", "\\fBlibmigrate\\fR(3), \\fBmigratectl\\fR(1), \\fBmigrated\\fR(8)")])


def overview(headers, version):
    functions = [each for header in headers for each in header.functions]
    described = []
    for name, prototype, comment in functions:
        described.append(f".TP\n\\fB{roff(name)}\\fR(3)\n{roff(sentence(summary_of(comment)))}")
    types = [paragraphs(comment) + "\n.PP\n.nf\n.RS\n" + roff(code) + "\n.RE\n.fi"
             for header in headers for code, comment in header.types]
    introduction = "\n".join(paragraphs(header.introduction) for header in headers)
    includes = "\n.br\n".join(f".B #include <{include_of(each)}>" for each in headers)
    linking = (".PP\n\\fBcc\\fR $(pkg\\-config \\-\\-cflags \\-\\-libs libmigrate), or in CMake "
               "\\fBfind_package\\fR(libmigrate) and the target \\fBmigrate::client\\fR.")
    return page("libmigrate", "move running processes between hosts", version, [
        ("SYNOPSIS", includes + "\n" + linking),
        ("DESCRIPTION", introduction),
        ("FUNCTIONS", "\n".join(described)),
        ("TYPES", "\n".join(types)),
        ("SEE ALSO", "\\fBmigratectl\\fR(1), \\fBmigrated\\fR(8)")])


def main(version, out, *paths):
    out = pathlib.Path(out)
    shutil.rmtree(out, ignore_errors=True)  # Pages of functions that are gone.
    out.mkdir(parents=True)
    headers = [Header(pathlib.Path(path)) for path in paths]
    pages = {"libmigrate": overview(headers, version)}
    for header in headers:
        for function in header.functions:
            pages[function[0]] = function_page(header, *function, version)
    for name, text in pages.items():
        (out / f"{name}.3.gz").write_bytes(gzip.compress(text.encode(), 9, mtime=0))


if __name__ == "__main__":
    if len(sys.argv) < 4:
        sys.exit(__doc__)
    main(*sys.argv[1:])
