"""Upscalers in files: RRDBNet under the names of its three releases, and Real-ESRGAN's compact network.

old      "model.1.sub.0.RDB1.conv1.0.weight"   ESRGAN's first files and most that people trained from them
bsrgan   "RRDB_trunk.0.RDB1.conv1.weight"      ESRGAN's later code, RealSR, BSRGAN
new      "body.0.rdb1.conv1.weight"            BasicSR, Real-ESRGAN
compact  "body.0.weight", "body.1.weight"      SRVGGNetCompact: convolutions and slopes, counted together

The shapes give the config. In all of them the weights may stand below `params_ema.` or `params.`.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

from ...errors import BrokenModel
from ...models.upscalers import CompactConfig, CompactNet, RRDBConfig, RRDBNet
from ..keys import KeyTable, Rule, module
from .layout import Shapes, length, need

PREFIXES = ("params_ema.", "params.", "")
"""Where the network may be; the averaged weights go before the last ones, as their authors use them."""


@dataclass(frozen=True)
class RRDBNames:
    """How a layout calls its layers. `dense` is what stands between the number of a block and that of a convolution."""

    conv_in: str
    body: str
    dense: str
    end: str
    conv_body: str


LAYOUTS: dict[str, RRDBNames] = {
    "old": RRDBNames("model.0", "model.1.sub", "RDB", ".0", ""),
    "bsrgan": RRDBNames("conv_first", "RRDB_trunk", "RDB", "", "trunk_conv"),
    "new": RRDBNames("conv_first", "body", "rdb", "", "conv_body"),
}
ENDS = (("upconv", "HRconv", "conv_last"), ("conv_up", "conv_hr", "conv_last"))
"""Names of the last layers in files that do not count them."""


@dataclass(frozen=True)
class UpscalerPlan:
    """What a file is: where its network is, its config and its key table."""

    prefix: str
    config: RRDBConfig | CompactConfig
    table: KeyTable

    def make(self) -> RRDBNet | CompactNet:
        """The network, without weights."""
        return RRDBNet(self.config) if isinstance(self.config, RRDBConfig) else CompactNet(self.config)


def upscaler_prefix(shapes: Shapes) -> str:
    """Where the network of an upscaler's file is."""
    return next(prefix for prefix in PREFIXES if any(name.startswith(prefix) for name in shapes) or not prefix)


def upscaler_plan(shapes: Shapes) -> UpscalerPlan | None:
    """The plan of a file of these tensors; None where it is another kind of network.

    BrokenModel where a tensor that decides the shape is missing.
    """
    prefix = upscaler_prefix(shapes)
    inner = {name[len(prefix) :]: shape for name, shape in shapes.items() if name.startswith(prefix)}
    for name, names in LAYOUTS.items():
        mark = f"{names.body}.0.{names.dense}1.conv1{names.end}.weight"
        if mark in inner and not any(".conv1x1." in each for each in inner):  # that is ESRGAN+
            config = _rrdb_config(inner, names)
            return UpscalerPlan(prefix, config, KeyTable(tuple(_rrdb_rules(config, names, inner))))
        if name == "new" and _is_compact(inner):
            compact = _compact_config(inner)
            return UpscalerPlan(prefix, compact, KeyTable(tuple(_compact_rules(compact))))
    return None


# --- RRDBNet ----------------------------------------------------------------------------------------------------------


def _rrdb_config(shapes: Shapes, names: RRDBNames) -> RRDBConfig:
    blocks = length(shapes, names.body)
    if not names.conv_body:  # the old layout counts the convolution after the blocks among them
        blocks -= 1
    doublings, last = _doublings(shapes, names)
    width, channels = need(shapes, f"{names.conv_in}.weight")[:2]
    growth = need(shapes, f"{names.body}.0.{names.dense}1.conv1{names.end}.weight")[0]
    out = need(shapes, f"{last}.weight")[0]
    side = math.isqrt(channels // out) if out and channels % out == 0 else 1
    unshuffle = side if side in (2, 4) and side * side * out == channels else 1
    return RRDBConfig(
        in_channels=channels // unshuffle**2,
        out_channels=out,
        width=width,
        growth=growth,
        blocks=blocks,
        doublings=doublings,
        unshuffle=unshuffle,
    )


def _doublings(shapes: Shapes, names: RRDBNames) -> tuple[int, str]:
    """How often the features are doubled, and the name of the last layer."""
    if not names.conv_body:
        last = length(shapes, "model") - 1
        doublings, rest = divmod(last - 4, 3)
        if last < 4 or rest:
            raise BrokenModel(f"the last layer is model.{last}; expected model.4, model.7, model.10 or model.13")
        return doublings, f"model.{last}"
    up, _, last_name = _ends(shapes)
    return max((n for n in range(1, 7) if f"{up}{n}.weight" in shapes), default=0), last_name


def _ends(shapes: Shapes) -> tuple[str, str, str]:
    return next((ends for ends in ENDS if f"{ends[1]}.weight" in shapes), ENDS[-1])


def _rrdb_rules(config: RRDBConfig, names: RRDBNames, shapes: Shapes) -> Iterator[Rule]:
    yield from module("conv_in", names.conv_in)
    for block in range(config.blocks):
        for dense in range(3):
            for conv in range(5):
                theirs = f"{names.body}.{block}.{names.dense}{dense + 1}.conv{conv + 1}{names.end}"
                yield from module(f"body.{block}.dense.{dense}.convs.{conv}", theirs)
    if not names.conv_body:
        first = 3 * config.doublings + 2
        yield from module("conv_body", f"{names.body}.{config.blocks}")
        ups = [f"model.{3 * n + 3}" for n in range(config.doublings)]
        high, last = f"model.{first}", f"model.{first + 2}"
    else:
        up, high, last = _ends(shapes)
        yield from module("conv_body", names.conv_body)
        ups = [f"{up}{n + 1}" for n in range(config.doublings)]
    for number, name in enumerate(ups):
        yield from module(f"ups.{number}", name)
    yield from module("conv_high", high)
    yield from module("conv_out", last)


# --- compact ----------------------------------------------------------------------------------------------------------


def _is_compact(shapes: Shapes) -> bool:
    slopes = shapes.get("body.1.weight", ())
    return len(shapes.get("body.0.weight", ())) == 4 and len(slopes) == 1 and "body.0.bias" in shapes


def _compact_config(shapes: Shapes) -> CompactConfig:
    last = length(shapes, "body") - 1
    width, channels = need(shapes, "body.0.weight")[:2]
    rows = need(shapes, f"body.{last}.weight")[0]
    for out in dict.fromkeys((channels, 3, 1)):
        scale = math.isqrt(rows // out)
        if out * scale * scale == rows and scale:
            return CompactConfig(
                in_channels=channels, out_channels=out, width=width, layers=(last - 2) // 2, scale=scale
            )
    raise BrokenModel(f"body.{last}.weight has {rows} rows; expected the channels times a square")


def _compact_rules(config: CompactConfig) -> Iterator[Rule]:
    for layer in range(config.layers + 1):
        yield from module(f"convs.{layer}", f"body.{2 * layer}")
        yield from module(f"slopes.{layer}", f"body.{2 * layer + 1}", bias=False)
    yield from module("conv_out", f"body.{2 * config.layers + 2}")
