"""Optimisers: AdamW, and Muon for hidden matrices (Jordan et al. 2024, "Muon: an optimizer for hidden layers").

Muon replaces the momentum matrix by its nearest semi-orthogonal one, found by five quintic Newton-Schulz steps, so that
every direction of the update has about the same size. Embeddings, first and last layers, biases and gains stay with
AdamW.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from stable_diffusion.errors import InvalidRequest
from stable_diffusion.training.config import OptimiserConfig

NEWTON_SCHULZ = (3.4445, -4.7750, 2.0315)
EDGE_NAMES = ("conv_in", "conv_out", "embedding", "head")


@dataclass(frozen=True)
class Group:
    """Parameters that share a rate: `rate` times the config's learning rates."""

    name: str
    modules: Mapping[str, nn.Module]
    rate: float = 1.0


def learning_rate_factor(step: int, total: int | None, config: OptimiserConfig) -> float:
    """Multiplier of the learning rate at `step` of a plan of `total` steps (None: no end is known, hold)."""
    warm = min(1.0, (step + 1) / config.warmup_steps) if config.warmup_steps > 0 else 1.0
    if total is None or config.schedule == "constant":
        return warm
    progress = min(1.0, step / max(total, 1))
    if config.schedule == "cosine":
        shape = config.final + (1 - config.final) * 0.5 * (1 + math.cos(math.pi * progress))
    else:
        left = (1 - progress) / max(config.decay_fraction, 1e-9)
        shape = config.final + (1 - config.final) * min(1.0, left)
    return warm * shape


def orthogonalise(matrix: Tensor, steps: int = 5, *, half: bool = False) -> Tensor:
    """About U V^T of the singular value decomposition of [rows, columns]: singular values land in about [0.7, 1.2].

    Every quintic step multiplies X from the left by M = a I + b G + c G^2, G = X X^T, so that only the small square
    G and the product Q of the M need iterating, and X is touched twice: 2 r + 17 square products for an r times wider
    matrix instead of 10 r + 5, and a 3x3 convolution has r = 9. Squaring X costs half the digits, hence float32.

    half: multiply X itself by every M in bfloat16, which needs no digits to spare: twice as fast where the processor
    has matrix units for bfloat16 and nowhere else.
    """
    a, b, c = NEWTON_SCHULZ
    tall = matrix.shape[0] > matrix.shape[1]
    x = (matrix.T if tall else matrix).float()
    x = x / (x.norm() + 1e-7)
    if half:
        x = x.bfloat16()
        for _ in range(steps):
            gram = x @ x.T
            x = torch.addmm(x, torch.addmm(gram, gram, gram, beta=b, alpha=c), x, beta=a)
        return (x.T if tall else x).to(matrix.dtype)
    gram = x @ x.T
    product = torch.eye(len(gram), dtype=gram.dtype, device=gram.device)
    for left in reversed(range(steps)):
        step = torch.addmm(b * gram, gram, gram, alpha=c)
        step.diagonal().add_(a)
        product = step @ product
        if left:
            gram = step @ gram @ step
    result: Tensor = product @ x
    return (result.T if tall else result).to(matrix.dtype)


def muon_eligible(name: str, parameter: Tensor) -> bool:
    """Hidden matrices and convolution kernels; nothing at the edges of the network and nothing tiny."""
    edge = any(part.endswith(EDGE_NAMES) for part in name.split(".")[-2:])
    return parameter.ndim >= 2 and not edge and min(parameter.shape[0], parameter[0].numel()) >= 16


class Optimiser:
    """AdamW and, where the config says so, Muon, over named parameters; its state is a flat table of tensors.

    half: Muon's products in bfloat16 (see `orthogonalise`); weights and moments stay in float32.
    """

    def __init__(self, groups: Sequence[Group], config: OptimiserConfig, *, half: bool = False) -> None:
        self.config, self.half = config, half
        self.named: dict[str, nn.Parameter] = {}
        self.rates: dict[str, float] = {}
        for group in groups:
            for prefix, module in group.modules.items():
                for name, parameter in module.named_parameters():
                    if parameter.requires_grad:
                        self.named[f"{prefix}.{name}"] = parameter
                        self.rates[f"{prefix}.{name}"] = group.rate
        if not self.named:
            raise InvalidRequest("nothing to train: no parameter needs a gradient")
        muon = config.name == "muon"
        self.muon = [name for name, p in self.named.items() if muon and muon_eligible(name, p)]
        self.momentum = {name: torch.zeros_like(self.named[name]) for name in self.muon}
        self.adam = self._adamw([name for name in self.named if name not in self.momentum])

    def _adamw(self, names: Sequence[str]) -> torch.optim.AdamW:
        """One torch parameter group per (rate, decayed or not); 1-d parameters are not decayed."""
        table: dict[tuple[float, float], list[nn.Parameter]] = {}
        for name in names:
            decay = self.config.weight_decay if self.named[name].ndim >= 2 else 0.0
            table.setdefault((self.rates[name], decay), []).append(self.named[name])
        groups = [{"params": params, "weight_decay": decay, "rate": rate} for (rate, decay), params in table.items()]
        config = self.config
        groups = groups or [{"params": [], "weight_decay": 0.0, "rate": 1.0}]  # all is Muon's
        return torch.optim.AdamW(groups, lr=config.learning_rate, betas=config.betas, eps=config.epsilon, fused=True)

    def clip(self, largest: float) -> float:
        """Global gradient norm before clipping to `largest` (0: only measure)."""
        gradients = [p.grad for p in self.named.values() if p.grad is not None]
        norm = torch.linalg.vector_norm(torch.stack(torch._foreach_norm(gradients)).float())
        value = float(norm)
        if largest > 0 and math.isfinite(value) and value > largest:
            torch._foreach_mul_(gradients, largest / value)
        return value

    @torch.no_grad()
    def step(self, factor: float) -> None:
        """One update at `factor` times the configured rates, then gradients are dropped."""
        for group in self.adam.param_groups:
            group["lr"] = self.config.learning_rate * group["rate"] * factor
        self.adam.step()
        for name in self.muon:
            self._muon_step(name, factor)
        self.zero()

    def _muon_step(self, name: str, factor: float) -> None:
        parameter, momentum = self.named[name], self.momentum[name]
        if parameter.grad is None:
            return
        momentum.lerp_(parameter.grad, 1 - self.config.momentum)
        update = parameter.grad.lerp(momentum, self.config.momentum)  # Nesterov
        update = orthogonalise(update.reshape(update.shape[0], -1), half=self.half).view_as(parameter)
        rows, columns = parameter.shape[0], parameter[0].numel()
        rate = self.config.muon_learning_rate * self.rates[name] * factor
        parameter.mul_(1 - rate * self.config.weight_decay)
        parameter.add_(update, alpha=-rate * math.sqrt(max(1.0, rows / columns)))

    def zero(self) -> None:
        for parameter in self.named.values():
            parameter.grad = None

    def state(self) -> dict[str, Tensor]:
        """Moments by "kind.parameter name"; AdamW's step counts are scalars."""
        tensors = {f"momentum.{name}": value for name, value in self.momentum.items()}
        names = {id(parameter): name for name, parameter in self.named.items()}
        for parameter, moments in self.adam.state.items():
            for kind, value in moments.items():
                tensors[f"{kind}.{names[id(parameter)]}"] = value
        return tensors

    def load(self, state: Mapping[str, Tensor]) -> None:
        """Restore `state`; names that the state lacks start fresh."""
        for key, value in state.items():
            kind, _, name = key.partition(".")
            if kind == "momentum" and name in self.momentum:
                self.momentum[name].copy_(value)
            elif kind != "momentum" and name in self.named:
                parameter = self.named[name]
                held = self.adam.state.setdefault(parameter, {})
                held[kind] = value.clone() if kind == "step" else value.to(parameter).clone()
