"""What is wrong with a graph, in ComfyUI's shape: one sentence, and the faults of each node."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ...errors import brief
from ..errors import ErrorShape

PREFIXES = (
    *("/prompt", "/history", "/queue", "/interrupt", "/free", "/object_info", "/embeddings", "/models"),
    *("/features", "/extensions", "/upload/", "/view", "/ws", "/comfy", "/api"),
)


class GraphFault(Exception):
    """A graph that cannot be run; `kind` is ComfyUI's name of the fault, `details` where it is."""

    def __init__(self, kind: str, sentence: str, details: str = "", nodes: Mapping[str, Any] | None = None) -> None:
        super().__init__(sentence)
        self.kind, self.sentence, self.details = kind, sentence, details
        self.nodes = dict(nodes or {})

    def body(self) -> dict[str, Any]:
        """The answer, whose status is 400."""
        return {**comfy_error(self.kind, self.sentence, self.details), "node_errors": self.nodes}


def comfy_error(kind: str, sentence: str, details: str = "") -> dict[str, Any]:
    return {"error": {"type": kind, "message": sentence, "details": details, "extra_info": {}}}


def node_fault(node_id: str, class_type: str, kind: str, sentence: str, name: str = "") -> GraphFault:
    """A fault of one node, or of its input `name`."""
    fault = {"type": kind, "message": sentence, "details": name, "extra_info": {"input_name": name} if name else {}}
    errors = {node_id: {"errors": [fault], "dependent_outputs": [], "class_type": class_type}}
    where = f"node {node_id} ({class_type}): {sentence}"
    return GraphFault("prompt_outputs_failed_validation", where, brief(name, 80), errors)


def error_of_comfy(status: int, sentence: str, code: str, param: str | None) -> dict[str, Any]:
    """Any other failure in ComfyUI's shape."""
    return {**comfy_error(code, sentence, param or ""), "node_errors": {}}


ERRORS = ErrorShape(PREFIXES, error_of_comfy)
