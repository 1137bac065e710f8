"""What memory and processor time our daemons and workers take, seen from outside."""

import os
import pathlib
import threading

PERIOD_SECONDS = 0.1


class Daemons:
    """Looks at them ten times a second; what a worker did after the last look is not counted."""

    def __init__(self, bed):
        self.names = {os.stat(f"/proc/{pid}/ns/uts").st_ino for pid in bed.daemons()}  # of hosts
        self.known = {}  # of each pid, whether it is ours
        self.first_ns, self.last_ns = {}, {}
        self.peak_kib = 0
        self.ended = threading.Event()
        self.thread = threading.Thread(target=self.watch)

    def __enter__(self):
        self.look(first=True)
        self.thread.start()
        return self

    def __exit__(self, *error):
        self.ended.set()
        self.thread.join()
        self.look()

    def watch(self):
        while not self.ended.wait(PERIOD_SECONDS):
            self.look()

    def is_ours(self, pid):
        try:
            return (os.path.basename(os.readlink(f"/proc/{pid}/exe")) == "migrated"
                    and os.stat(f"/proc/{pid}/ns/uts").st_ino in self.names)
        except OSError:
            return False

    def look(self, first=False):
        memory = 0
        for name in filter(str.isdigit, os.listdir("/proc")):
            if name not in self.known:
                self.known[name] = self.is_ours(name)
            if not self.known[name]:
                continue
            try:
                used = int(pathlib.Path(f"/proc/{name}/schedstat").read_text().split()[0])
                used += sum(int((task / "schedstat").read_text().split()[0])
                            for task in pathlib.Path(f"/proc/{name}/task").iterdir()
                            if task.name != name)
                pages = int(pathlib.Path(f"/proc/{name}/statm").read_text().split()[1])
            except (OSError, ValueError, IndexError):
                continue
            if first:
                self.first_ns[name] = used
            self.last_ns[name] = max(used, self.last_ns.get(name, 0))
            memory += pages * os.sysconf("SC_PAGE_SIZE") // 1024
        self.peak_kib = max(self.peak_kib, memory)

    def figures(self):
        used = sum(last - self.first_ns.get(pid, 0) for pid, last in self.last_ns.items())
        return {"daemons_cpu_seconds": used / 1e9, "daemons_peak_mib": self.peak_kib / 1024}
