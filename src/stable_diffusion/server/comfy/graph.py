"""A graph as it is sent, checked node by node: known classes, links of the right type, values within their ranges."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from ...errors import InvalidRequest, brief, nearest, what_is
from ...request.names import resolve_sampler, resolve_schedule
from ..library import Library
from .faults import GraphFault, node_fault
from .nodes import KINDS, LINKS, Input, NodeKind, choices_of

MOST_NODES = 200
MOST_TEXT = 32_000


@dataclass(frozen=True)
class Link:
    """An output of a node."""

    node: str
    output: int


@dataclass(frozen=True)
class Node:
    """A node of a graph; its inputs are links or checked values."""

    id: str
    kind: NodeKind
    inputs: Mapping[str, Any]

    def link(self, name: str) -> Link:
        found: Link = self.inputs[name]
        return found


def checked_graph(data: object, library: Library, lists: dict[str, tuple[str, ...]]) -> dict[str, Node]:
    """The nodes of a graph by their ids; GraphFault for the first that cannot be run."""
    if not isinstance(data, Mapping) or not data:
        raise GraphFault("no_prompt", "there is no graph; expected nodes under `prompt`")
    if len(data) > MOST_NODES:
        raise GraphFault("invalid_prompt", f"the graph has {len(data)} nodes; expected at most {MOST_NODES}")
    kinds = {str(key): _kind(str(key), node) for key, node in data.items()}
    checker = _Checker(kinds, library, lists)
    nodes = {str(key): Node(str(key), kinds[str(key)], checker.inputs(str(key), node)) for key, node in data.items()}
    if not any(node.kind.is_output for node in nodes.values()):
        raise GraphFault("prompt_no_outputs", "the graph has no output; expected a SaveImage or PreviewImage")
    _check_rings(nodes)
    return nodes


def _kind(key: str, node: object) -> NodeKind:
    name = node.get("class_type") if isinstance(node, Mapping) else None
    if not isinstance(name, str):
        raise GraphFault("invalid_prompt", f"node {brief(key, 40)} has no class_type", f"Node ID '#{brief(key, 40)}'")
    if name not in KINDS:
        shown, close = brief(name, 80), nearest(name, KINDS)
        more = f": did you mean {close!r}?" if close else f"; it runs {', '.join(KINDS)}"
        sentence = f"this server does not run the node {shown!r}{more}"
        raise GraphFault("missing_node_type", sentence, f"Node ID '#{brief(key, 40)}'")
    return KINDS[name]


@dataclass(frozen=True)
class _Checker:
    kinds: Mapping[str, NodeKind]
    library: Library
    lists: dict[str, tuple[str, ...]]

    def inputs(self, key: str, node: Mapping[str, Any]) -> dict[str, Any]:
        """The inputs of a node."""
        given = node.get("inputs", {})
        kind = self.kinds[key]
        if not isinstance(given, Mapping):
            raise node_fault(key, kind.name, "invalid_input_type", "inputs is no object")
        found: dict[str, Any] = {}
        for each in kind.inputs:
            if each.name in given:
                try:
                    found[each.name] = self._input(each, given[each.name])
                except InvalidRequest as error:
                    raise node_fault(key, kind.name, _fault_kind(str(error)), str(error), each.name) from None
            elif each.required and (each.default is None or each.kind in LINKS):
                raise node_fault(key, kind.name, "required_input_missing", f"{each.name} is missing", each.name)
            else:
                found[each.name] = each.default
        return found

    def _input(self, each: Input, value: Any) -> Any:
        if each.kind in LINKS:
            return self._link(each, value)
        if isinstance(value, (list, dict)):
            raise InvalidRequest(f"{each.name} is taken from another node; expected a value of its own")
        if each.kind == "STRING":
            return _text(each.name, value)
        if each.kind == "CHOICE":
            return self._choice(each, value)
        return _number(each, value)

    def _link(self, each: Input, value: Any) -> Link:
        if not (isinstance(value, list) and len(value) == 2 and isinstance(value[1], int)):
            raise InvalidRequest(f"{each.name} is {what_is(value)}; expected a link: [node, number of its output]")
        source = self.kinds.get(str(value[0]))
        if source is None or not 0 <= value[1] < len(source.makes):
            raise InvalidRequest(f"{each.name} is taken from {brief(str(value[0]), 40)!r}; there is no such output")
        if source.makes[value[1]] != each.kind:
            raise InvalidRequest(f"{each.name} is a link to {source.makes[value[1]]}; expected one to {each.kind}")
        return Link(str(value[0]), value[1])

    def _choice(self, each: Input, value: Any) -> str:
        if not isinstance(value, str):
            raise InvalidRequest(f"{each.name} is {what_is(value)}; expected a name of the list")
        if each.choices == "checkpoints":
            return self.library.models.find(value).name
        if each.choices == "loras":
            return self.library.loras.find(value).name
        if each.choices == "samplers":
            resolve_sampler(value)
            return value
        if each.choices == "schedulers":
            return resolve_schedule(value)
        if each.choices == "images":  # looked for where it is loaded: pictures of the gallery are not in the list
            return _text(each.name, value)
        known = choices_of(each, self.lists)
        if value not in known:
            raise InvalidRequest(f"{each.name} {brief(value, 80)!r} is not in the list; expected {', '.join(known)}")
        return value


def _text(name: str, value: Any) -> str:
    text = str(value) if isinstance(value, (str, int, float)) else None
    if text is None or len(text) > MOST_TEXT or any("\ud800" <= sign <= "\udfff" for sign in text):
        raise InvalidRequest(f"{name} is no text of at most {MOST_TEXT} characters")
    return text


def _number(each: Input, value: Any) -> Any:
    """A number in its range; text that is one, and 20.0 for a whole number, as ComfyUI takes them."""
    try:
        if isinstance(value, bool) or (isinstance(value, str) and len(value) > 40):
            raise ValueError
        if each.kind == "INT" and not isinstance(value, float):
            number: float = int(value)
        else:
            number = float(value)
            if not math.isfinite(number) or (each.kind == "INT" and number != int(number)):
                raise ValueError
            number = int(number) if each.kind == "INT" else number
    except (TypeError, ValueError, OverflowError):
        wanted = "a whole number" if each.kind == "INT" else "a number"
        raise InvalidRequest(f"{each.name} is {brief(repr(value), 60)}; expected {wanted}") from None
    if each.low is not None and number < each.low:
        raise InvalidRequest(f"{each.name} is {number}; expected at least {each.low}")
    if each.high is not None and number > each.high:
        raise InvalidRequest(f"{each.name} is {number}; expected at most {each.high}")
    return number


def _fault_kind(sentence: str) -> str:
    """ComfyUI's name of a fault."""
    for words, kind in (
        ("at least", "value_smaller_than_min"),
        ("at most", "value_bigger_than_max"),
        ("link to", "return_type_mismatch"),
        ("link", "bad_linked_input"),
        ("number", "invalid_input_type"),
    ):
        if words in sentence:
            return kind
    return "value_not_in_list"


def _check_rings(nodes: Mapping[str, Node]) -> None:
    """GraphFault where a node is made from itself."""
    done: set[str] = set()
    for start in nodes:
        waiting: list[tuple[str, bool]] = [(start, False)]
        above: set[str] = set()
        while waiting:
            key, leaving = waiting.pop()
            if leaving:
                above.discard(key)
                done.add(key)
                continue
            if key in above:
                raise node_fault(key, nodes[key].kind.name, "dependency_cycle", "the node is made from itself")
            if key in done:
                continue
            above.add(key)
            waiting.append((key, True))
            links = [value.node for value in nodes[key].inputs.values() if isinstance(value, Link)]
            waiting += [(link, False) for link in links]
