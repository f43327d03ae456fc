"""Key tables: which tensors of a foreign checkpoint become which tensors of ours, exactly and in both directions.

A table is generated from a config by the same loops over the same plan that build the model, so that it names every
tensor once, on both sides, and nothing else. A rule changes a tensor by one of a closed set of operations, each of
which has an inverse; therefore `invert` undoes `convert` bit for bit.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from enum import Enum

import torch
from torch import Tensor, nn

from ..errors import BrokenModel


class Op(Enum):
    """What happens to a tensor on its way from their names to ours."""

    SAME = "same"
    SQUEEZE = "1x1 convolution to matrix"
    UNSQUEEZE = "matrix to 1x1 convolution"
    TRANSPOSE = "transposed matrix"
    SPLIT = "one tensor to several, by rows"
    CONCAT = "several tensors to one, by rows"
    SWAP_HALVES = "first and second half of the rows swapped"

    @property
    def inverse(self) -> Op:
        return _INVERSES.get(self, self)


_INVERSES = {
    Op.SQUEEZE: Op.UNSQUEEZE,
    Op.UNSQUEEZE: Op.SQUEEZE,
    Op.SPLIT: Op.CONCAT,
    Op.CONCAT: Op.SPLIT,
}


def apply(op: Op, tensors: list[Tensor], count: int) -> list[Tensor]:
    """`tensors` through `op`, giving `count` tensors; views where possible. BrokenModel where the shapes do not fit."""
    first = tensors[0]
    if op is Op.SQUEEZE:
        if first.dim() == 2:  # some public autoencoders already store a matrix
            return tensors
        if first.dim() != 4 or first.shape[2:] != (1, 1):
            raise BrokenModel(f"a tensor of shape {list(first.shape)} was found; expected a 1x1 convolution")
        return [first[:, :, 0, 0]]
    if op is Op.UNSQUEEZE:
        return [first[:, :, None, None]]
    if op is Op.TRANSPOSE:
        if first.dim() != 2:
            raise BrokenModel(f"a tensor of shape {list(first.shape)} was found; expected a matrix")
        return [first.t().contiguous()]
    if op is Op.SPLIT:
        if not first.dim() or first.shape[0] % count:
            raise BrokenModel(f"a tensor of shape {list(first.shape)} was found; its rows do not split in {count}")
        return list(first.chunk(count))
    if op is Op.CONCAT:
        if len({tensor.shape for tensor in tensors}) > 1:
            shapes = ", ".join(str(list(tensor.shape)) for tensor in tensors)
            raise BrokenModel(f"tensors of shapes {shapes} were found; expected equal shapes")
        return [torch.cat(tensors)]
    if op is Op.SWAP_HALVES:
        if not first.dim() or first.shape[0] % 2:
            raise BrokenModel(f"a tensor of shape {list(first.shape)} was found; its rows do not split in halves")
        return [torch.cat(first.chunk(2)[::-1])]
    return tensors


@dataclass(frozen=True)
class Rule:
    """Tensors `theirs` of a file become tensors `ours` of the model by `op`."""

    ours: tuple[str, ...]
    theirs: tuple[str, ...]
    op: Op = Op.SAME


@dataclass(frozen=True)
class KeyTable:
    """All rules of one network in one layout.

    `aliases` maps names that some files use to the name in the rules; `ignored` are names that may be there and hold
    nothing that the model needs (position numbers, the temperature of contrastive training). Aliases in `tied` may
    stand beside the name that they stand for: they hold the same tensor once more.
    """

    rules: tuple[Rule, ...]
    aliases: Mapping[str, str] = field(default_factory=dict)
    ignored: frozenset[str] = frozenset()
    tied: frozenset[str] = frozenset()

    def __post_init__(self) -> None:
        for names in (self.our_names(), self.their_names()):
            assert len(set(names)) == len(names), "a name occurs twice in a key table"

    def our_names(self) -> list[str]:
        return [name for rule in self.rules for name in rule.ours]

    def their_names(self) -> list[str]:
        return [name for rule in self.rules for name in rule.theirs]

    def prefixed(self, prefix: str) -> KeyTable:
        """The same table for a file in which all their names begin with `prefix`."""
        return KeyTable(
            tuple(Rule(rule.ours, tuple(prefix + name for name in rule.theirs), rule.op) for rule in self.rules),
            {prefix + alias: prefix + name for alias, name in self.aliases.items()},
            frozenset(prefix + name for name in self.ignored),
            frozenset(prefix + name for name in self.tied),
        )

    def compare(self, names: Iterable[str]) -> tuple[list[str], list[str]]:
        """(missing, unexpected) among the names of a file, in the order of the table and of the file."""
        names = list(names)
        found = self._resolve(names)
        missing = [name for name in self.their_names() if name not in found]
        used = set(found.values()) | self.ignored | self.tied
        return missing, [name for name in names if name not in used]

    def convert(
        self,
        state: Mapping[str, Tensor],
        finish: Callable[[Tensor], Tensor] = lambda tensor: tensor,
        done: Callable[[str], None] = lambda name: None,
    ) -> dict[str, Tensor]:
        """Their tensors to ours, each through `finish` before the next is read, so that tensors that are unpacked when
        they are asked for need not all be held unpacked; `done` is then called with the names that they had.
        BrokenModel where names are missing or unexpected, or a shape does not fit its op."""
        missing, unexpected = self.compare(state)
        if missing or unexpected:
            raise BrokenModel("; ".join(_listed(missing, "missing") + _listed(unexpected, "unexpected")))
        found = self._resolve(state)
        ours: dict[str, Tensor] = {}
        for rule in self.rules:
            try:
                made = apply(rule.op, [state[found[name]] for name in rule.theirs], len(rule.ours))
            except BrokenModel as error:
                raise BrokenModel(f"{rule.theirs[0]}: {error}") from None
            ours.update(zip(rule.ours, map(finish, made), strict=True))
            for name in rule.theirs:
                done(found[name])
        return ours

    def sources(self, names: Collection[str]) -> dict[str, list[str]]:
        """Our name -> the names, among those of a file, of the tensors that it is made of."""
        found = self._resolve(names)
        return {ours: [found[name] for name in rule.theirs] for rule in self.rules for ours in rule.ours}

    def invert(self, ours: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Our tensors to theirs: what `convert` would make `ours` from. Works on `meta`, to learn their shapes."""
        theirs: dict[str, Tensor] = {}
        for rule in self.rules:
            made = apply(rule.op.inverse, [ours[name] for name in rule.ours], len(rule.theirs))
            theirs.update(zip(rule.theirs, made, strict=True))
        return theirs

    def _resolve(self, names: Collection[str]) -> dict[str, str]:
        """Name in the rules -> name in the file; the name itself goes before its aliases."""
        found = {self.aliases[name]: name for name in names if name in self.aliases}
        known = set(self.their_names())
        found.update({name: name for name in names if name in known})
        return found


def own_names(network: nn.Module) -> KeyTable:
    """The table of a network under its own names."""
    return KeyTable(tuple(Rule((name,), (name,)) for name in network.state_dict()))


def _listed(names: list[str], what: str, limit: int = 10) -> list[str]:
    if not names:
        return []
    more = f" and {len(names) - limit} more" if len(names) > limit else ""
    return [f"{len(names)} tensors are {what}: {', '.join(names[:limit])}{more}"]


def module(ours: str, theirs: str, op: Op = Op.SAME, *, bias: bool = True) -> Iterator[Rule]:
    """The weight of a layer, changed by `op`, and its bias, unchanged."""
    yield Rule((f"{ours}.weight",), (f"{theirs}.weight",), op)
    if bias:
        yield Rule((f"{ours}.bias",), (f"{theirs}.bias",))


def modules(ours: str, theirs: str, names: Mapping[str, str]) -> Iterator[Rule]:
    """Several layers of a block, from our names to theirs; a block without a name has its layers at the top."""
    for our_name, their_name in names.items():
        yield from module(_join(ours, our_name), _join(theirs, their_name))


def resblock(ours: str, theirs: str, names: Mapping[str, str], channels: tuple[int, int]) -> Iterator[Rule]:
    """A residual block, which has the layer `skip` only where `channels` (in, out) differ."""
    same = channels[0] == channels[1]
    yield from modules(ours, theirs, {name: path for name, path in names.items() if not (same and name == "skip")})


def spatial_transformer(ours: str, theirs: str, depth: int, *, linear: bool) -> Iterator[Rule]:
    """A spatial transformer: LDM and diffusers name its layers alike. `linear` says that projections are matrices."""
    projection = Op.SAME if linear else Op.SQUEEZE
    yield from module(f"{ours}.norm", f"{theirs}.norm")
    yield from module(f"{ours}.proj_in", f"{theirs}.proj_in", projection)
    for index in range(depth):
        block, theirs_block = f"{ours}.blocks.{index}", f"{theirs}.transformer_blocks.{index}"
        for number, name in ((1, "self"), (2, "cross")):
            attention, theirs_attention = f"{block}.{name}_attention", f"{theirs_block}.attn{number}"
            yield from module(f"{block}.{name}_norm", f"{theirs_block}.norm{number}")
            for our_name, their_name in (("query", "to_q"), ("key", "to_k"), ("value", "to_v")):
                yield from module(f"{attention}.{our_name}", f"{theirs_attention}.{their_name}", bias=False)
            yield from module(f"{attention}.out", f"{theirs_attention}.to_out.0")
        yield from modules(
            block, theirs_block, {"mlp_norm": "norm3", "mlp.up": "ff.net.0.proj", "mlp.down": "ff.net.2"}
        )
    yield from module(f"{ours}.proj_out", f"{theirs}.proj_out", projection)


def _join(block: str, name: str) -> str:
    return f"{block}.{name}" if block else name
