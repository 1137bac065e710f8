#!/usr/bin/env python3
"""Holds the documents to the tree: every file that they name exists.

Usage: docs_test.py ROOT [unittest arguments]
"""

import pathlib
import re
import sys
import unittest

ROOT = pathlib.Path()

# A path, in backquotes or not: from the root, from libmigrate/ as the documents shorten it, or from
# the document, as a link.
NAMED = re.compile(r"(?<![\w./*-])((?:[\w.-]+/)+[\w.-]*\.(?:cc|h|S|md|py|pml|proto|in))\b")
LINKED = re.compile(r"\]\(([\w./-]+\.md)(?:#[\w-]*)?\)")


def documents():
    yield ROOT / "README.md"
    yield ROOT / "HACKING.md"
    yield from sorted((ROOT / "docs").rglob("*.md"))


class Documents(unittest.TestCase):
    def test_name_files_that_exist(self):
        for document in documents():
            for name in NAMED.findall(document.read_text()):
                there = [(base / name).exists()
                         for base in (ROOT, ROOT / "libmigrate", document.parent)]
                with self.subTest(document=document.name, name=name):
                    self.assertTrue(any(there))

    def test_link_to_files_that_exist(self):
        for document in documents():
            for name in LINKED.findall(document.read_text()):
                with self.subTest(document=document.name, name=name):
                    self.assertTrue((document.parent / name).exists())

    def test_the_index_has_every_decision(self):
        folder = ROOT / "docs" / "decisions"
        index = set(LINKED.findall((folder / "README.md").read_text()))
        self.assertEqual(index, {path.name for path in folder.glob("0*.md")})


if __name__ == "__main__":
    ROOT = pathlib.Path(sys.argv.pop(1)).resolve()
    unittest.main()
