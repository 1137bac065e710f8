"""What the figures were taken on, and what speaks against them."""

import os
import pathlib
import subprocess
import time

ROOT = pathlib.Path(__file__).resolve().parent.parent.parent
CAP_SYS_RESOURCE = 24
SLOW_TOUCH_NS = 1500  # With page tables of its own a machine takes a few hundred.


def available_mib():
    for line in pathlib.Path("/proc/meminfo").read_text().splitlines():
        if line.startswith("MemAvailable:"):
            return int(line.split()[1]) // 1024
    return 0


def output(*command):
    result = subprocess.run(command, capture_output=True, text=True, check=False, cwd=ROOT)
    return result.stdout.strip()


def build_type(build):
    cache = build / "CMakeCache.txt"
    for line in cache.read_text().splitlines() if cache.exists() else []:
        if line.startswith("CMAKE_BUILD_TYPE"):
            return line.partition("=")[2] or "none"
    return "unknown"


def holds_capability(number):
    for line in pathlib.Path("/proc/self/status").read_text().splitlines():
        if line.startswith("CapEff:"):
            return bool(int(line.split()[1], 16) >> number & 1)
    return False


def environment(build, first_touch_ns=None):
    cpu = "unknown"
    for line in pathlib.Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            cpu = line.partition(":")[2].strip()
            break
    dirty = output("git", "status", "--porcelain", "--untracked-files=no")
    facts = {
        "commit": (output("git", "rev-parse", "--short=12", "HEAD") or "unknown")
                  + (" with changes" if dirty else ""),
        "kernel": os.uname().release,
        "cpu": cpu,
        "cpus": len(os.sched_getaffinity(0)),
        "memory_available_mib": available_mib(),
        "page_bytes": os.sysconf("SC_PAGE_SIZE"),
        "build_type": build_type(build),
        "load_average": round(os.getloadavg()[0], 2),
        "first_touch_ns": first_touch_ns,
        "date": time.strftime("%Y-%m-%d %H:%M:%S UTC", time.gmtime()),
    }
    warnings = []
    if facts["build_type"] not in ("Release", "RelWithDebInfo"):
        warnings.append(f"build type {facts['build_type']}: not optimised")
    if not holds_capability(CAP_SYS_RESOURCE):
        warnings.append("no CAP_SYS_RESOURCE: limits of a process cannot be raised")
    if facts["first_touch_ns"] and facts["first_touch_ns"] > SLOW_TOUCH_NS:
        warnings.append(f"a first touch takes {facts['first_touch_ns']:.0f} ns: page tables are "
                        "probably shadowed by the hypervisor (or the machine is busy)")
    if facts["load_average"] > 0.5:
        warnings.append(f"load average {facts['load_average']}: others are using this machine")
    facts["warnings"] = warnings
    return facts
