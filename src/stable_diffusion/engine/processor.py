"""What this processor is good at, measured once and remembered in the user's cache folder.

Half precision is faster where the processor computes it (AVX-512 BF16, AMX), and slower where it is imitated. Which of
two attentions is faster depends on the processor, too. Neither can be told from a list of names that ages, so that they
are measured, by processor time of one core, which other work on the machine disturbs little, and written to a small
JSON file whose name holds the processor and the version of torch. Who deletes it has it measured again.
"""

from __future__ import annotations

import hashlib
import json
import platform
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from torch.nn import functional as F

from ..atomic import whole_file
from ..user_cache import cache_folder

WINS = 1.3
"""How many times faster bfloat16 must be than float32 to be the default."""


@dataclass(frozen=True)
class Measured:
    """Times in seconds of processor time: a matrix product in float32 and in bfloat16, and torch's fused attention and
    ours for long sequences in bfloat16."""

    float32: float
    bfloat16: float
    fused_attention: float
    chunked_attention: float

    @property
    def fast_bfloat16(self) -> bool:
        """Whether the processor computes bfloat16, and does not imitate it."""
        return self.bfloat16 * WINS < self.float32

    @property
    def chunked(self) -> bool:
        """Whether our attention is clearly faster than torch's for long sequences."""
        return self.chunked_attention * 1.1 < self.fused_attention


def measured() -> Measured:
    """What was measured on this processor, now where it was not before."""
    global _KNOWN
    with _LOCK:
        if _KNOWN is None:
            _KNOWN = _read(_path())
        if _KNOWN is None:
            _KNOWN = measure()
            with suppress(OSError):
                _write(_path(), _KNOWN)
        return _KNOWN


def fast_bfloat16() -> bool:
    """Whether bfloat16 is the faster precision on this CPU; false without measuring where torch has no such kernels."""
    return bool(torch.ops.mkldnn._is_mkldnn_bf16_supported()) and measured().fast_bfloat16


@torch.no_grad()
def measure() -> Measured:
    """Measure now; about a fifth of a second."""
    from ..nn.chunked_attention import chunked_attention

    generator = torch.Generator().manual_seed(0)
    left = torch.randn(512, 512, generator=generator)
    half = left.bfloat16()
    query = torch.randn(1, 1, 4096, 40, generator=generator).bfloat16()
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        return Measured(
            float32=_seconds(lambda: left @ left),
            bfloat16=_seconds(lambda: half @ half),
            fused_attention=_seconds(lambda: F.scaled_dot_product_attention(query, query, query)),
            chunked_attention=_seconds(lambda: chunked_attention(query, query, query)),
        )
    finally:
        torch.set_num_threads(threads)


def _seconds(work: Callable[[], object], times: int = 4) -> float:
    """The least processor time of the calling thread, the first call not counted."""
    work()
    taken = []
    for _ in range(times):
        start = time.thread_time()
        work()
        taken.append(time.thread_time() - start)
    return max(min(taken), 1e-9)


def processor() -> str:
    """What tells this processor from others: its name and instructions, as far as the system says."""
    words = [platform.machine(), torch.backends.cpu.get_cpu_capability()]
    with suppress(OSError):
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace").splitlines()
        for key in ("model name", "flags"):
            words += [line.partition(":")[2].strip() for line in lines if line.startswith(key)][:1]
    return " ".join([*words, platform.processor()])


def _path() -> Path:
    digest = hashlib.sha256(f"{processor()} {torch.__version__}".encode()).hexdigest()[:16]
    return cache_folder() / f"processor-{digest}.json"


def _read(path: Path) -> Measured | None:
    """What the file says; None where there is none, or not one of this form."""
    try:
        found = Measured(**json.loads(path.read_text(encoding="utf-8")))
        numbers = [float(value) for value in asdict(found).values()]
    except (OSError, ValueError, TypeError):
        return None
    return found if all(0 < number < 1e6 for number in numbers) else None


def _write(path: Path, found: Measured) -> None:
    with whole_file(path) as file:
        file.write(json.dumps(asdict(found)).encode())


_KNOWN: Measured | None = None
_LOCK = threading.Lock()
