"""What lane and pair share: where to find the build, and when nothing can be tested."""

import os
import pathlib
import shutil
import subprocess
import sys

HERE = pathlib.Path(__file__).resolve().parent
BUILD = pathlib.Path(
    os.environ.get("MIGRATE_BUILD_DIR", HERE.parents[1] / "build" / "dev")).resolve()
SKIPPED = 77


def skip_reason():
    """Why nothing can be tested, or nothing; then `run` need not prepare the machine any more."""
    if not shutil.which("qemu-system-x86_64"):
        return "there is no qemu-system-x86_64; run scripts/install-packages"
    if not (BUILD / "tests" / "transport" / "rdma_test").exists():
        return "this build has no RDMA; run scripts/install-packages, configure and build anew"
    prepared = subprocess.run([HERE / "prepare"], stdout=subprocess.PIPE, stderr=subprocess.PIPE,
                              text=True, check=False)
    if prepared.returncode != 0:
        return f"there is no kernel for the virtual machine: {prepared.stderr.strip()[-500:]}"
    os.environ["MIGRATE_VM_FOLDER"] = prepared.stdout.strip()
    return ""


def skip(reason):
    print(f"tests/vm: SKIPPED, nothing was tested over RDMA: {reason}", file=sys.stderr)
    return 1 if os.environ.get("CI") else SKIPPED


def environment():
    return dict(os.environ, MIGRATE_BUILD_DIR=str(BUILD))
