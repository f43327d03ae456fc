"""Networks of full size with random weights, whole or with one block at a time in memory.

A block is an item of a `ModuleList`. Where a pair of networks is streamed, each block of either gets its weights when
it is called, those of a seed of its own, and loses them once it is through; so a pair takes the memory of one block and
of what is outside of blocks.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor, nn

from stable_diffusion.weights.keys import KeyTable


def empty(build: Callable[[], Any], *, streamed: bool = False) -> Any:
    """A network whose default initialisation is skipped; `randomise` fills it. Streamed, its blocks have no memory."""
    with torch.device("meta"):
        model = build()
    for module in _outside(model) if streamed else model.modules():
        module.to_empty(device="cpu", recurse=False)
    return model.eval()


def randomise(model: nn.Module, *, seed: int = 0) -> None:
    """Random values at a scale that keeps signals alive; norms and biases too, so that nothing can hide. What has no
    memory is left alone."""
    generator = torch.Generator().manual_seed(seed)
    for module in model.modules():
        is_norm = isinstance(module, (nn.GroupNorm, nn.LayerNorm))
        for name, parameter in module.named_parameters(recurse=False):
            if parameter.is_meta:
                continue
            parameter.data.normal_(generator=generator)
            if parameter.dim() > 1:
                parameter.data.mul_(parameter[0].numel() ** -0.5)
            else:
                parameter.data.mul_(0.3).add_(1.0 if is_norm and name == "weight" else 0.0)


def stream(reference: nn.Module, ours: nn.Module, table: KeyTable) -> None:
    """Let both networks, whose blocks have no memory, run with the same weights; `table` maps between their names."""
    theirs, mine = list(_blocks(reference)), list(_blocks(ours))
    assert len(theirs) == len(mine) > 0
    inside = {id(block): f"{name}." for name, block in ours.named_modules()}

    def weights(index: int) -> dict[str, Tensor]:
        """Ours, of which those that come from this block of the reference, or from outside of blocks, are real."""
        _fill(theirs[index], index)
        state = table.convert(reference.state_dict())
        theirs[index].to("meta")
        return state

    def enter(index: int) -> None:
        prefix = inside[id(mine[index])]
        state = {name[len(prefix) :]: tensor for name, tensor in weights(index).items() if name.startswith(prefix)}
        assert not any(tensor.is_meta for tensor in state.values())
        mine[index].load_state_dict(state, assign=True)

    outer = {name for name in ours.state_dict() if not any(name.startswith(inside[id(block)]) for block in mine)}
    state = table.convert(reference.state_dict())
    for index in range(len(theirs)):  # T5's first block holds what is outside of blocks here
        if not any(state[name].is_meta for name in outer):
            break
        state |= {name: tensor for name, tensor in weights(index).items() if name in outer and not tensor.is_meta}
    ours.load_state_dict(state, assign=True)
    for index in range(len(theirs)):
        theirs[index].register_forward_pre_hook(lambda block, inputs, index=index: _fill(block, index))
        mine[index].register_forward_pre_hook(lambda block, inputs, index=index: enter(index))
        for block in (theirs[index], mine[index]):
            block.register_forward_hook(lambda block, inputs, output: _clear(block))


def _fill(block: nn.Module, index: int) -> None:
    assert not list(block.buffers())
    block.to_empty(device="cpu")
    randomise(block, seed=index + 1)


def _clear(block: nn.Module) -> None:
    block.to("meta")


def _blocks(network: nn.Module) -> Iterator[nn.Module]:
    """The items of the outermost lists of a network."""
    for child in network.children():
        yield from child if isinstance(child, nn.ModuleList) else _blocks(child)


def _outside(network: nn.Module) -> Iterator[nn.Module]:
    inside = {id(module) for block in _blocks(network) for module in block.modules()}
    yield from (module for module in network.modules() if id(module) not in inside)
