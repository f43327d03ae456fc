"""What the loop asks of a stage, and helpers the stages share.

A stage owns its modules and turns a step number into gradients; it holds no other state, so that step n is the same
after a resume. Everything random is drawn from `generator(seed, salt, step)`.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel

from ..types import Conditioning
from .config import StageConfig
from .data import TrainingPack
from .distributed import World
from .optim import Group
from .precision import fast_bfloat16


@dataclass(frozen=True)
class Context:
    """What every stage is built from. out: the run's folder."""

    pack: TrainingPack
    world: World
    out: Path

    @property
    def device(self) -> torch.device:
        return self.world.device


class Stage(Protocol):
    """One training stage. `facts` goes into the checkpoint as JSON and comes back through `restore`."""

    @property
    def modules(self) -> dict[str, nn.Module]: ...
    @property
    def averaged(self) -> dict[str, nn.Module]: ...
    @property
    def groups(self) -> list[Group]: ...
    @property
    def facts(self) -> dict[str, Any]: ...

    def restore(self, facts: Mapping[str, Any]) -> None:
        """Take back what `facts` held when the checkpoint was written."""
        ...

    def backward(self, step: int, progress: float) -> dict[str, Tensor]:
        """Accumulate this rank's gradients for `step`; returns scalars to log, "loss" among them."""
        ...

    def validate(self) -> dict[str, float]:
        """Numbers on held-out records, with the averaged weights in place."""
        ...

    def sheet(self) -> Image.Image | None:
        """Sample sheet with the averaged weights in place."""
        ...


def generator(device: torch.device, seed: int, salt: int, step: int) -> torch.Generator:
    """A generator that depends on its arguments only."""
    mixed = int(np.random.SeedSequence([seed, salt, step]).generate_state(1, np.uint64)[0] >> np.uint64(1))
    return torch.Generator(device).manual_seed(mixed)


def shared_noise(shape: tuple[int, ...], world: World, *, seed: int, salt: int, step: int) -> Tensor:
    """Standard normal rows [b, ...] of this rank, cut from the noise of the global batch [W b, ...]."""
    source = generator(world.device, seed, salt, step)
    whole = torch.randn((shape[0] * world.size, *shape[1:]), generator=source, device=world.device)
    return whole[world.rank * shape[0] : (world.rank + 1) * shape[0]]


def uses_bfloat16(device: torch.device, config: StageConfig) -> bool:
    """Whether products are taken in bfloat16: as the config says, or where the machine is faster in it."""
    return config.precision == "bf16" or (config.precision == "auto" and fast_bfloat16(device.type))


def autocast(device: torch.device, config: StageConfig) -> contextlib.AbstractContextManager[Any]:
    """bfloat16 where the config says so; float32 weights and optimiser stay."""
    return torch.autocast(device.type, torch.bfloat16, enabled=uses_bfloat16(device, config))


def attention_with_gradients(device: torch.device) -> contextlib.AbstractContextManager[Any]:
    """Plain attention inside, on the CPU, where the way back through torch's fused one is four times as slow.

    At the 256 tokens of a small denoiser that was a quarter of a step. Elsewhere torch chooses.
    """
    return sdpa_kernel(SDPBackend.MATH) if device.type == "cpu" else contextlib.nullcontext()


def autocast_network(network: nn.Module, device: torch.device, config: StageConfig) -> Any:
    """`network` for sampling: in the config's precision inside, float32 [B,c,h,w] outside."""

    def call(x: Tensor, timestep: Tensor, tokens: Tensor, **conditioning: Any) -> Tensor:
        with autocast(device, config):
            output: Tensor = network(x, timestep, tokens, **conditioning)
        return output.float()

    return call


def condition(text: nn.Module, ids: Tensor, device: torch.device) -> Conditioning:
    """Token ids [B,T] -> tokens [B,T,D], and the pooled text [B,V], which is the network's vector too."""
    found = text(ids.to(device))
    return Conditioning(tokens=found.tokens, pooled=found.pooled, vector=found.pooled)


def prepare(module: nn.Module, device: torch.device, config: StageConfig) -> nn.Module:
    """On the device, in the memory layout of the config, in training mode."""
    module.to(device)
    if config.channels_last:
        module.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    return module.train()


def maybe_compile(module: nn.Module, config: StageConfig) -> Any:
    """The callable to train with: `module` itself, or its compiled twin that shares its weights."""
    return torch.compile(module) if config.compile else module


@contextlib.contextmanager
def evaluating(*modules: nn.Module) -> Iterator[None]:
    """Evaluation mode and no gradients inside, former modes restored after."""
    modes = [module.training for module in modules]
    for module in modules:
        module.eval()
    try:
        with torch.no_grad():
            yield
    finally:
        for module, mode in zip(modules, modes, strict=True):
            module.train(mode)


def spread(indices: np.ndarray[Any, Any], count: int) -> np.ndarray[Any, Any]:
    """At most `count` of the indices, evenly spaced."""
    if len(indices) <= count:
        return indices
    return indices[np.linspace(0, len(indices) - 1, count).round().astype(np.int64)]
