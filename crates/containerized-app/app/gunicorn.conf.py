"""How gunicorn serves the app: it drains on SIGTERM, and has as many workers as the limit allows."""

import math
import os


def cores() -> int:
    """The limit of the control group, or else the cores of the machine."""
    for quota, period in (
        ("/sys/fs/cgroup/cpu.max", None),
        ("/sys/fs/cgroup/cpu/cpu.cfs_quota_us", "/sys/fs/cgroup/cpu/cpu.cfs_period_us"),
    ):
        try:
            words = open(quota).read().split()
            words += open(period).read().split() if period else []
            if words[0] not in ("max", "-1"):
                return max(1, math.ceil(int(words[0]) / int(words[1])))
        except OSError:
            continue
    return os.cpu_count() or 1


bind = f"0.0.0.0:{os.environ.get('PORT', '5000')}"
# One process: the counters of /metrics are its own. Threads are enough for work that waits.
workers = 1
threads = 32 * cores()
# Longer than the longest job. With preStop before it, it ends before the orchestrator's grace period does.
graceful_timeout = 20
# A heartbeat on a disk can hang; in a read-only container there is no other place.
worker_tmp_dir = "/dev/shm"
control_socket_disable = True
