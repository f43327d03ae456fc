"""A graph with a run's weights in it, ready to be called.

The weights are handed over where they lie in memory; OpenVINO packs those of products and convolutions for this
processor, once, and reads the others in place. A call runs one row of the batch at a time, in the one shape that was
compiled: so a picture is the same bits whatever pictures are beside it.
"""

from __future__ import annotations

import threading
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from .convert import INPUT, WEIGHT
from .library import openvino

if TYPE_CHECKING:
    import openvino as ov

PRECISIONS = {torch.float32: "f32", torch.bfloat16: "bf16"}
"""What OpenVINO may compute in -> its name there."""


@dataclass(frozen=True)
class Machine:
    """How networks are compiled here: the precision of products and convolutions, and the number of threads."""

    precision: torch.dtype
    threads: int

    @property
    def settings(self) -> dict[str, Any]:
        return {
            "INFERENCE_PRECISION_HINT": PRECISIONS[self.precision],
            "INFERENCE_NUM_THREADS": self.threads,
            "NUM_STREAMS": 1,
            "PERFORMANCE_HINT": "LATENCY",
        }


class Compiled:
    """`compiled(inputs)` is the network's answer [B,...] in float32. Threads take turns."""

    def __init__(self, graph: ov.Model, weights: Mapping[str, Tensor], machine: Machine) -> None:
        """The graph of one row, as `convert` makes it; it is used up. `weights` must stay unchanged while this is in
        use."""
        _insert(graph, weights)
        self._names = [each.get_friendly_name().removeprefix(INPUT) for each in graph.get_parameters()]
        self._request = _core().compile_model(graph, "CPU", machine.settings).create_infer_request()
        self._lock = threading.Lock()

    def __call__(self, inputs: Mapping[str, Tensor]) -> Tensor:
        """`inputs` have B rows each; the answer has as many, and is the caller's own."""
        count = max(len(each) for each in inputs.values())
        arrays = {name: np.ascontiguousarray(inputs[name].detach().float().numpy()) for name in self._names}
        with self._lock:
            rows = [self._row(arrays, row) for row in range(count)]
        return torch.from_numpy(np.concatenate(rows) if count > 1 else rows[0])

    def _row(self, arrays: Mapping[str, np.ndarray[Any, Any]], row: int) -> np.ndarray[Any, Any]:
        given = {INPUT + name: array[row : row + 1] for name, array in arrays.items()}
        found: np.ndarray[Any, Any] = self._request.infer(given, share_inputs=True, share_outputs=False)[0]
        return found


def _core() -> Any:
    """OpenVINO has one core in a process: what it knows of the processor is found out once."""
    global _CORE
    if _CORE is None:
        _CORE = openvino().Core()
    return _CORE


_CORE: Any = None


def computes_in_bfloat16() -> bool:
    """Whether this processor multiplies bfloat16 faster than float32."""
    return "BF16" in _core().get_property("CPU", "OPTIMIZATION_CAPABILITIES")


def _insert(graph: ov.Model, weights: Mapping[str, Tensor]) -> None:
    """Put weights in place of the inputs that stand for them."""
    for parameter in graph.get_parameters():
        name = parameter.get_friendly_name()
        if not name.startswith(WEIGHT):
            continue
        constant = _constant(weights[name.removeprefix(WEIGHT)])
        parameter.output(0).replace(constant.output(0))
        graph.remove_parameter(parameter)
    graph.validate_nodes_and_infer_types()


_AS_BITS = {torch.bfloat16: "bf16", torch.float16: "f16"}


def _constant(weight: Tensor) -> Any:
    """A weight as a constant of the graph that shares its memory; half precision is widened when it is packed."""
    ov = openvino()
    weight = weight.detach().contiguous()
    if weight.dtype not in _AS_BITS:
        return ov.op.Constant(weight.numpy(), shared_memory=True)
    kind = getattr(ov.Type, _AS_BITS[weight.dtype])
    tensor = ov.Tensor(weight.view(torch.uint16).numpy(), ov.Shape(list(weight.shape)), kind)
    return ov.opset13.convert(ov.op.Constant(tensor, shared_memory=True), "f32")
