"""Compresses pieces of work in so many threads for so many seconds.

Says how many, how long one took (median and p99), how often the kernel stopped us, how many cores Python counts, and how
many we were given.
"""

import os
import sys
import threading
import time
import zlib

threads, seconds = int(sys.argv[1]), float(sys.argv[2])
block = os.urandom(64 * 1024)
times, lock = [], threading.Lock()
end = time.monotonic() + seconds


def work():
    mine = []
    while (begun := time.monotonic()) < end:
        # zlib lets other threads of Python run meanwhile.
        zlib.compress(block)
        mine.append(time.monotonic() - begun)
    with lock:
        times.extend(mine)


workers = [threading.Thread(target=work) for _ in range(threads)]
begun, used = time.monotonic(), time.process_time()
for worker in workers:
    worker.start()
for worker in workers:
    worker.join()
given = (time.process_time() - used) / (time.monotonic() - begun)
times.sort()
stopped = 0
for path in ("/sys/fs/cgroup/cpu.stat", "/sys/fs/cgroup/cpu/cpu.stat", "/sys/fs/cgroup/cpu,cpuacct/cpu.stat"):
    try:
        lines = dict(line.split() for line in open(path))
        stopped = max(stopped, int(lines.get("nr_throttled", 0)))
    except OSError:
        continue
print(len(times), times[len(times) // 2] * 1000, times[len(times) * 99 // 100] * 1000, stopped, os.cpu_count(), given)
