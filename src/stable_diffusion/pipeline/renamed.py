"""Names of the release before this one: for one version they work, and warn with the name of today.

Nothing here imports torch, so that `stable_diffusion.SAMPLERS` does not either.
"""

from __future__ import annotations

import operator
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from ..errors import InvalidRequest, what_is
from ..request import names
from ..request.group import current_names, warn_renamed
from ..request.settings import Noise

if TYPE_CHECKING:
    from PIL.Image import Image

SOLVER = "stable_diffusion.diffusion.samplers.SOLVERS"
GRID = "stable_diffusion.diffusion.sigmas"
PROCESS = {
    "sampler": "defaults.sampler",
    "noise_schedule": "defaults.schedule",
    "steps": "defaults.steps",
    "guidance": "defaults.guidance",
    "default_size": "_default_size",
    "prediction": "network.prediction",
    "latent_channels": "network.channels",
    "downscale": "network.downscale",
    "size_numbers": "network.size_numbers",
    "edits": "network.edits",
}
"""What a `DenoisingProcess` had as attributes of its own, and where it is now."""
SOLVERS_HAVE = ("order", "calls", "stochastic", "brownian", "paired", "unit", "skips_last", "options")


class SamplerInfo(names.SamplerName):
    """A sampler's names, and for one version more what `SOLVERS` knows of it."""

    def __getattr__(self, name: str) -> Any:
        if name == "automatic":
            warn_renamed("SAMPLERS[...].automatic", "SAMPLERS[...].schedule")
            return self.schedule
        if name != "function" and name not in SOLVERS_HAVE:
            raise AttributeError(f"{type(self).__name__!r} object has no attribute {name!r}")
        from ..diffusion.samplers import solver

        found = solver(self.id)
        place = f"{SOLVER}[{self.id!r}]"
        warn_renamed(f"SAMPLERS[...].{name}", place if name == "function" else f"{place}.{name}")
        return found if name == "function" else getattr(found, name)


class ScheduleInfo(names.ScheduleName):
    """A noise schedule's names, and for one version more its function and the options of that."""

    def __getattr__(self, name: str) -> Any:
        if name not in ("levels", "options"):
            raise AttributeError(f"{type(self).__name__!r} object has no attribute {name!r}")
        from ..diffusion.sigmas import GRIDS, grid_options

        called = f"grid_options({self.id!r})" if name == "options" else f"GRIDS[{self.id!r}]"
        warn_renamed(f"SCHEDULES[...].{name}", f"{GRID}.{called}")
        return grid_options(self.id) if name == "options" else GRIDS[self.id]


SAMPLERS: dict[str, names.SamplerName] = {key: SamplerInfo(**vars(each)) for key, each in names.SAMPLERS.items()}
"""Every sampler by its id, in the order in which they are listed."""
SCHEDULES: dict[str, names.ScheduleName] = {key: ScheduleInfo(**vars(each)) for key, each in names.SCHEDULES.items()}
"""Every noise schedule by its id, in the order in which they are listed."""


class LatePreview:
    """`Progress.preview` where nobody said how often: false, None once pickled, for one version callable."""

    def __init__(self, make: Callable[[], Image]) -> None:
        self._make = make

    def __bool__(self) -> bool:
        return False

    def __repr__(self) -> str:
        return "None"

    def __reduce__(self) -> tuple[Any, ...]:
        return type(None), ()

    def __call__(self) -> Image:
        """The preview of this step."""
        warn_renamed("Progress.preview()", "Progress.preview, a picture, with generate(..., preview_every=1)")
        return self._make()


def late_preview(make: Callable[[], Image], preview_every: object) -> Any:
    """None where somebody said how often previews come (0 included), else what the last release had."""
    return LatePreview(make) if preview_every is None else None


def old_attribute(process: object, name: str) -> Any:
    """An attribute of a denoising process under its old name; AttributeError where there never was one."""
    if name not in PROCESS:
        raise AttributeError(f"{type(process).__name__!r} object has no attribute {name!r}")
    new = PROCESS[name]
    shown = "defaults.height and defaults.width, in pixels" if new.startswith("_") else new
    warn_renamed(f"DenoisingProcess.{name}", shown, level=4)
    return operator.attrgetter(new)(process)


def new_options(given: dict[str, Any]) -> dict[str, Any]:
    """Keywords of a denoising process with those of the last release under their names of today.

    windows  something with `height`, `width` and `overlap`    sides   networks beside the U-Net
    random   something with `kind` and `seed_delta`; None is what it is where nothing is given
    """
    options = current_names(given, level=5)
    for old, new, convert in (
        ("windows", "window and overlap", _window),
        ("sides", "controls", lambda sides: {"controls": tuple(sides)}),
        ("random", "noise", _noise),
    ):
        if old not in options:
            continue
        value = options.pop(old)
        warn_renamed(f"the setting {old} of the denoising process", new, level=4)
        options |= {} if value is None else convert(value)
    return options


def _window(windows: Any) -> dict[str, Any]:
    try:
        height, width, overlap = windows.height, windows.width, windows.overlap
    except AttributeError:
        raise InvalidRequest(f"windows is {what_is(windows)}; expected window=SIDE, overlap=LATENTS") from None
    if height != width:
        raise InvalidRequest(f"windows is {height} x {width} latents; expected a square: window=SIDE, overlap=LATENTS")
    return {"window": height, "overlap": overlap}


def _noise(random: Any) -> dict[str, Any]:
    try:
        return {"noise": Noise(source=random.kind, seed_delta=random.seed_delta)}
    except AttributeError:
        raise InvalidRequest(f"random is {what_is(random)}; expected noise=Noise(source=..., seed_delta=...)") from None
