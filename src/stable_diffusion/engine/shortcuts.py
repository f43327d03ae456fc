"""What work a run leaves out at each speed, and how far its pictures are from the exact ones: docs/speed.md.

exact    nothing: the same request gives the same bytes
fast     after the first quarter of the steps every second one takes the deep features of the step before (Ma et al.
         2023, "DeepCache")
fastest  after the first eighth two of three steps do, with less of the network left; guidance ends before the last
         quarter of the steps (Kynkaanniemi et al. 2024), like tokens of large feature maps are merged (Bolya & Hoffman
         2023), and the tiny decoder makes the picture where one was loaded
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

from torch import nn

from ..models.mmdit import MMDiT
from ..models.unet import UNet
from ..nn.attention import SpatialTransformer
from ..nn.sharing import with_layers
from ..nn.token_merging import MergingTransformer

FEWEST = 6
"""Steps of a run from which some are left out: the few steps of a distilled model differ too much."""
LARGE = 1024
"""Tokens of a feature map from which merging pays."""


@dataclass(frozen=True, kw_only=True)
class Shortcuts:
    """every      every so many steps one is whole; 1 is all
    first      share of the steps before, which are all whole
    shallow    blocks of the finest stage that run in the others
    merging    share of the tokens that the finest self-attentions merge
    least      tokens that a feature map must have for it
    interval   shares of the steps between which there is guidance, where the request has none
    tiny       the tiny decoder makes the picture
    """

    every: int = 1
    first: float = 0.25
    shallow: int = 1
    merging: float = 0.0
    least: int = LARGE
    interval: tuple[float, float] | None = None
    tiny: bool = False

    def __bool__(self) -> bool:
        """Whether the network is run otherwise than as it is."""
        return self.every > 1 or self.merging > 0

    def whole_at_first(self, steps: int) -> int | None:
        """How many steps of a run are whole at its start; None where all of them are."""
        return None if self.every == 1 or steps < FEWEST else math.ceil(steps * self.first)

    def merged(self, network: UNet | MMDiT, size: tuple[int, int]) -> UNet | MMDiT:
        """The network with merging self-attentions, over the same weights, for latents of `size` (h, w)."""
        if self.merging == 0 or not isinstance(network, UNet):
            return network
        stage = _finest(network)
        if stage is None:
            return network
        side = network.config.patch_size * 2**stage
        if math.ceil(size[0] / side) * math.ceil(size[1] / side) < self.least:
            return network
        names = (f"down.{stage}.", f"up.{len(network.up) - 1 - stage}.")

        def layer(name: str, part: nn.Module) -> nn.Module | None:
            if not isinstance(part, SpatialTransformer) or not name.startswith(names):
                return None
            return MergingTransformer(part, self.merging)

        return with_layers(network, layer)


EXACT = Shortcuts()
SPEED: dict[str, Shortcuts] = {
    "exact": EXACT,
    "fast": Shortcuts(every=2),
    "fastest": Shortcuts(every=3, first=0.125, shallow=0, merging=0.3, interval=(0.0, 0.75), tiny=True),
}


def shortcuts_of(speed: str, token_merging: float | None, *, guided: bool) -> Shortcuts:
    """Those of a speed; a ratio of merging that was given holds for feature maps of every size."""
    found = SPEED[speed]
    if token_merging is not None:
        found = replace(found, merging=token_merging, least=0)
    return found if guided else replace(found, interval=None)


def can_merge(network: UNet | MMDiT) -> bool:
    """Whether there are tokens of the picture alone that could be merged."""
    return isinstance(network, UNet) and _finest(network) is not None


def _finest(network: UNet) -> int | None:
    """The finest stage that attends."""
    stages = network.config.down_stages()
    return next((index for index, stage in enumerate(stages) if stage.attends), None)
