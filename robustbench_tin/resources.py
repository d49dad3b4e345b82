"""Resources of this machine: processor, cores, memory, GPUs."""

from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path

import torch


def cores() -> int:
    """Number of CPU cores that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def free_memory() -> int | None:
    """Bytes of memory still available, within a container's limit; None if the system does not tell."""
    found = [size for size in (_free_of_machine(), _free_of_container()) if size is not None]
    return min(found) if found else None


def processor_maker() -> str:
    """The maker of the processor as it names itself, such as ``AuthenticAMD``; empty if unknown."""
    with suppress(OSError):
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("vendor_id"):
                return line.partition(":")[2].strip()
    # Windows ends this text with the maker.
    return os.environ.get("PROCESSOR_IDENTIFIER", "").rpartition(" ")[2]


def gpus(device: str) -> tuple[int, ...]:
    """Numbers of the GPUs of a device: all for ``cuda``, one for ``cuda:1``, none for ``cpu``."""
    asked = torch.device(device)
    if asked.type != "cuda":
        return ()
    return tuple(range(torch.cuda.device_count())) if asked.index is None else (asked.index,)


def _free_of_machine() -> int | None:
    with suppress(OSError, ValueError, IndexError):
        for line in Path("/proc/meminfo").read_text().splitlines():
            if line.startswith("MemAvailable:"):
                return int(line.split()[1]) * 1024
    return None


def _free_of_container() -> int | None:
    """The memory left within the limits of control groups, version 2."""
    home = Path("/sys/fs/cgroup")
    with suppress(OSError, ValueError):
        limit, used = ((home / name).read_text().strip() for name in ("memory.max", "memory.current"))
        # Cached pages of files count as used, but are released on demand.
        cached = dict(line.split() for line in (home / "memory.stat").read_text().splitlines())
        if limit != "max":
            return max(0, int(limit) - int(used) + int(cached.get("inactive_file", 0)))
    return None
