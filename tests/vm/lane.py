#!/usr/bin/python3
"""What is tested in the virtual machine, in one boot. tests/vm/lane starts the machine with it."""

import os
import pathlib
import subprocess
import sys
import unittest

BUILD = pathlib.Path(os.environ["MIGRATE_BUILD_DIR"])


class Channels(unittest.TestCase):
    def test_channel(self):
        """The contract of channels, and how connections come about and end."""
        completed = subprocess.run([BUILD / "tests" / "transport" / "rdma_test"], check=False,
                                   stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
        self.assertEqual(completed.returncode, 0, completed.stdout)
        self.assertNotIn("SKIPPED", completed.stdout)
        print(completed.stdout.splitlines()[-1], file=sys.stderr)


if __name__ == "__main__":
    unittest.main(verbosity=2)
