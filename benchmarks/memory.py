"""The memory of this process, in bytes."""

import resource
from pathlib import Path


def peak_bytes():
    """Returns the largest memory that the process has had."""
    return 1_024 * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss


def status_bytes(name):
    """Returns a line of Linux' /proc/self/status, for example `VmRSS`."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(f"{name}:"):
            return 1_024 * int(line.split()[1])
    raise RuntimeError(f"/proc/self/status has no {name}")


def forget_peak():
    """Sets `status_bytes("VmHWM")`, the peak, to what the process has now."""
    Path("/proc/self/clear_refs").write_text("5")
