"""How much memory there is, and how much this process has used at most."""

from __future__ import annotations

import sys
from pathlib import Path

import torch

_LIMITS = (("memory.max", "memory.current"), ("memory/memory.limit_in_bytes", "memory/memory.usage_in_bytes"))
"""Files below /sys/fs/cgroup with what a container may use and uses: of its second version, and of its first."""


def available_memory(device: torch.device) -> int | None:
    """Bytes that can still be used: of a GPU, or of the machine or container; None where that is not known."""
    if device.type == "cuda":
        free, _ = torch.cuda.mem_get_info(device)
        # what torch keeps for later tensors is free for ours
        return int(free + torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device))
    if device.type != "cpu":
        return None
    known = [each for each in (_machine(), _container()) if each is not None]
    return min(known, default=None)


def _machine() -> int | None:
    """What the system says is available (Linux)."""
    try:
        lines = Path("/proc/meminfo").read_text(encoding="ascii").splitlines()
    except OSError:
        return None
    found = [line.split()[1] for line in lines if line.startswith("MemAvailable:")]
    return int(found[0]) * 1024 if found else None


def _container() -> int | None:
    """What the limit of a container leaves (Linux); None where there is no limit."""
    for names in _LIMITS:
        try:
            limit, used = (Path("/sys/fs/cgroup", name).read_text(encoding="ascii").strip() for name in names)
        except OSError:
            continue
        if limit.isdecimal() and used.isdecimal() and int(limit) < 2**60:
            return max(int(limit) - int(used), 0)
    return None


def peak_memory() -> int | None:
    """Most bytes of memory that this process has had so far, pages of mapped files among them; None on Windows."""
    try:
        import resource
    except ImportError:
        return None
    most = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return most if sys.platform == "darwin" else most * 1024


def peak_device_memory() -> int | None:
    """Most bytes of tensors that were on the GPU at once; None where none was used."""
    if not torch.cuda.is_available() or not torch.cuda.is_initialized():  # type: ignore[no-untyped-call]
        return None
    return int(torch.cuda.max_memory_allocated())


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an error of torch says that there is not enough memory, of a GPU or of the machine."""
    if isinstance(error, (torch.OutOfMemoryError, MemoryError)):
        return True
    return isinstance(error, RuntimeError) and "allocate memory" in str(error)
