"""A torch module and the shapes of its inputs -> an OpenVINO graph whose weights are inputs.

The module is traced with zeros in place of its weights, one number expanded to the shape of each, so that no weight is
read or copied. One graph therefore serves every checkpoint and every LoRA of an architecture; only `compiled` puts
weights into it. Tracing computes one call in float32: torch's devices without memory cannot be traced.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from ...nn.sharing import sharing
from .library import openvino

if TYPE_CHECKING:
    import openvino as ov

INPUT, WEIGHT = "input:", "weight:"
"""Beginnings of the names of a graph's inputs: what a call gives, and what the network is made of."""


def weights_of(module: nn.Module) -> dict[str, Tensor]:
    """Everything of a module that a graph is made with: parameters and buffers by name, each tensor once."""
    return {name: each.data for name, each in (*module.named_parameters(), *module.named_buffers())}


class Traced(nn.Module):
    """A module's method with all that it reads as arguments: the inputs by name, then the weights."""

    def __init__(self, module: nn.Module, method: str, inputs: tuple[str, ...]) -> None:
        """`inputs` are names of the method's arguments; the first three may be given by place."""
        super().__init__()
        shell = _shell(module)
        # through __dict__, since a registered module's weights would become part of the graph
        self.__dict__["call"] = getattr(shell, method)
        self.__dict__["names"] = inputs
        self.__dict__["places"] = list(_places(shell, weights_of(module)))

    def forward(self, *given: Tensor) -> Tensor:
        names: tuple[str, ...] = self.__dict__["names"]
        for (slots, leaf), weight in zip(self.__dict__["places"], given[len(names) :], strict=True):
            slots[leaf] = weight
        found: Tensor = self.__dict__["call"](**dict(zip(names, given, strict=False)))
        return found


def convert(module: nn.Module, method: str, shapes: Mapping[str, tuple[int, ...]]) -> ov.Model:
    """The graph of one call: `shapes` are those of the method's arguments by name, all float32.

    The inputs of the graph are named `input:NAME` and `weight:NAME`, and have fixed shapes. Takes seconds for a
    network of full size.
    """
    ov = openvino()
    weights = weights_of(module)
    given = [torch.zeros(shape) for shape in shapes.values()]
    given += [torch.zeros((), dtype=_kept(each)).expand(each.shape) for each in weights.values()]
    names = [*(INPUT + name for name in shapes), *(WEIGHT + name for name in weights)]
    with torch.no_grad(), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # a tracer warns of every size that it sees as a number
        run = Traced(module, method, tuple(shapes))
        traced = torch.jit.trace(run, tuple(given), check_trace=False)  # type: ignore[no-untyped-call]
        graph = ov.convert_model(traced, example_input=tuple(given))
    if len(graph.inputs) != len(names):
        raise RuntimeError(f"the graph has {len(graph.inputs)} inputs, and {len(names)} were expected")
    for parameter, name, tensor in zip(graph.get_parameters(), names, given, strict=True):
        parameter.set_friendly_name(name)
        parameter.set_partial_shape(ov.PartialShape(list(tensor.shape)))
        parameter.output(0).get_tensor().set_names({name})
    graph.validate_nodes_and_infer_types()
    return graph


def _kept(weight: Tensor) -> torch.dtype:
    """Graphs compute in float32; the engine asks for a lower precision when it compiles. Whole numbers stay such."""
    return torch.float32 if weight.is_floating_point() else weight.dtype


def _shell(module: nn.Module) -> nn.Module:
    """The module over slots of its own, for every weight, without memory."""
    empty = {name: torch.empty_like(each, device="meta") for name, each in module.named_parameters()}
    shell = sharing(module, empty)
    for part in shell.modules():
        part.__dict__["_buffers"] = dict(part._buffers)
    return shell


def _places(shell: nn.Module, weights: Mapping[str, Any]) -> Iterator[tuple[dict[str, Any], str]]:
    for name in weights:
        path, _, leaf = name.rpartition(".")
        owner = shell.get_submodule(path)
        yield (owner._parameters if leaf in owner._parameters else owner._buffers), leaf
