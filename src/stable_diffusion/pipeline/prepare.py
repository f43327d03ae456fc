"""A request on a model made ready, once for the whole run: what this makes is checked, and is what runs.

Shapes: c h w latent channels, height and width; H W height and width in pixels.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from torch import Tensor

from ..diffusion.a1111 import a1111_truncate
from ..diffusion.sigmas import truncate
from ..engine.base import Engine, Features
from ..engine.torch import TORCH, engine_for
from ..models.ip_adapter import IPAdapter
from ..nn.sharing import origin
from ..request.control import Control
from ..request.metadata import Used
from ..request.request import Request
from ..text.prompt_schedule import Timeline
from ..types import Conditioning
from .denoiser import Expert, Final, Guidance, Pass
from .loras import LoraWeights
from .prompts import EncodedPrompts, choose_variants, encode_prompts, join_styles, varies
from .resolve import Resolved, ResolvedPass, resolve
from .tasks.control import LoadedControls
from .tasks.init_image import InitImage, image_conditioning, prepare_init
from .tasks.panorama import controls_with_horizon, share_horizon
from .tasks.sdxl import check_refiner
from .tasks.wildcards import WildcardFolder

if TYPE_CHECKING:
    from .models import StableDiffusion

Options = Mapping[str, float]
"""Settings of the sampler."""


@dataclass(frozen=True, eq=False, kw_only=True)
class Batch:
    """Pictures that are denoised together: number `first` and those after it. They differ by their seeds alone. `note`
    says why the chosen engine does not run them, where it does not."""

    first: int
    requests: tuple[Request, ...]
    prompts: EncodedPrompts
    passes: tuple[Pass, ...]
    note: str | None = None


@dataclass(frozen=True, eq=False, kw_only=True)
class Plan:
    """All that the pictures of a request share.

    refiner   the model for the last steps, where there is one
    channels  what the network is given beside the latent of each pass, [1,K,h,w]; None for nothing
    encode    (prompt, negative prompt) -> both encoded; the last two pairs are remembered
    engine    what runs the networks, where it does not refuse what a run asks of them
    """

    model: StableDiffusion
    resolved: Resolved
    refiner: StableDiffusion | None
    init: InitImage
    controls: LoadedControls
    channels: tuple[Tensor | None, ...]
    encode: Callable[[str, str], EncodedPrompts]
    wildcards: WildcardFolder | None
    options: Options
    final: Final
    engine: Engine

    @property
    def count(self) -> int:
        """How many pictures are asked for."""
        return self.resolved.request.count

    def used(self, batch: Batch) -> Used:
        """What the pictures of a batch are made with besides the model, for their text."""
        digits = None if self.refiner is None else self.refiner.hash
        engine = batch.passes[0].base.engine
        return replace(
            batch.prompts.adapters.used,
            controls=self.controls.entries,
            refiner_hash=digits,
            engine=engine.name,
            precision=engine.precision or str(self.model.dtype).removeprefix("torch."),
            sharing=engine.sharing or "alone",
        )

    def batches(self, together: int | None) -> Iterator[Batch]:
        """The pictures, so many at a time; None is one on a CPU and all on a GPU. Pictures whose prompts hold choices
        are made one at a time."""
        if varies(self.resolved.request) or (together is None and self.model.device.type == "cpu"):
            together = 1
        size = self.count if together is None else together
        for first in range(0, self.count, size):
            yield self.batch(first, [self.single(k) for k in range(first, min(first + size, self.count))])

    def single(self, index: int) -> Request:
        """What makes picture `index` alone, the choices in its prompts made."""
        return choose_variants(self.resolved.request.single(index), self.wildcards)

    def batch(self, first: int, requests: Sequence[Request]) -> Batch:
        """Pictures that have one prompt, ready."""
        prompts = self.encode(requests[0].prompt, requests[0].negative_prompt)
        engine, note = engine_for(self.engine, self._features(prompts))
        passes = []
        for index, each in enumerate(self.resolved.passes):
            passes.append(self._pass(index, each, prompts, engine))
        return Batch(first=first, requests=tuple(requests), prompts=prompts, passes=tuple(passes), note=note)

    def _features(self, prompts: EncodedPrompts) -> Features:
        """What the steps of these prompts ask of the denoising network."""
        kinds = [isinstance(unit.network, IPAdapter) for unit in self.controls.units]
        unet = prompts.adapters.model.denoising_process.unet
        return Features(
            seamless=bool(self.resolved.request.canvas.wrap),
            image_prompt=any(kinds),
            residuals=not all(kinds),
            weight_patches=origin(unet) is not unet,
            shortcuts=bool(self.resolved.shortcuts),
        )

    def _pass(self, index: int, each: ResolvedPass, prompts: EncodedPrompts, engine: Engine) -> Pass:
        resolved, process, factor = self.resolved, prompts.adapters.model.denoising_process, self.model.factor
        request, info = resolved.request, resolved.sampler
        size = (each.size[1] // factor, each.size[0] // factor)
        compat = request.noise.compat
        levels = process.sigmas(info.id, resolved.schedule, each.total, self.final, request.noise.shift, compat)
        image, sizes, refined = self.channels[index], request.micro_conditioning, None
        window, overlap = resolved.window // factor, resolved.overlap // factor
        if request.canvas.panorama:
            window, overlap = share_horizon(window, overlap, size[0])
        prompt, negative = (_given(timeline, image) for timeline in prompts.passes[index])
        base = Expert.of(process.network, (prompt, negative), size, sizes, self.controls.units, engine)
        if self.refiner is not None and prompts.refiner is not None and index + 1 == len(resolved.passes):
            second = self.refiner.denoising_process.network
            refined = Expert.of(second, prompts.refiner, size, sizes, engine=engine)
        return Pass(
            base=base,
            refiner=refined,
            switch=1.0 if request.refiner is None else request.refiner.switch,
            sampler=info,
            options=self.options,
            size=size,
            guidance=Guidance.of(
                levels,
                resolved.guidance / info.unit,
                request.guidance_rescale,
                request.guidance_interval or resolved.shortcuts.interval,
                resolved.image_guidance,
            ),
            sigmas=self._visited(levels, each, whole=index > 0 or request.image is None),
            strength=each.strength,
            mask=self.init.mask if index == 0 else None,
            soft=request.inpaint.soft,
            wrap=request.canvas.wrap,
            window=window,
            overlap=overlap,
            final=self.final if float(levels[-1]) == 0 else "sigma_min",
            shortcuts=resolved.shortcuts,
        )

    def _visited(self, levels: Tensor, each: ResolvedPass, *, whole: bool) -> Tensor:
        """Of a pass's levels those that its strength leaves; `whole` where no picture is given."""
        if each.strength == 0 or (whole and each.strength == 1):
            return levels
        if self.resolved.request.noise.compat == "a1111" and not whole:
            return a1111_truncate(levels, each.total, each.strength)
        return truncate(levels, each.strength)


def _given(timeline: Timeline, image: Tensor | None) -> Timeline:
    """A prompt's conditioning with what the network is given beside the latent."""

    def given(conditioning: Conditioning) -> Conditioning:
        return replace(conditioning, image=image)

    return timeline if image is None else timeline.map(given)


def prepare(
    model: StableDiffusion, request: Request, *, engine: Engine = TORCH, final: Final = "zero", **options: float
) -> Plan:
    """Check everything, and make all that a run needs: load what the request names, encode its prompts and pictures.

    engine, final, options  see `generate`

    InvalidRequest where the request does not fit the model, ModelFileError where a file of it cannot be used.
    """
    resolved, refiner = resolve(join_styles(request), model), None
    if resolved.request.refiner is not None:
        refiner = check_refiner(model, model.cache.refiner(resolved.request.refiner.model, model))
        named = replace(resolved.request.refiner, model=refiner.name)
        resolved = replace(resolved, request=replace(resolved.request, refiner=named))
    filled = resolved.request
    init = prepare_init(model, resolved)
    controls = [
        control if control.image is None else replace(control, image=init.crop(control.image, filled))
        for control in controls_with_horizon(filled.controls)
    ]
    wildcards = filled.prompting.wildcards_dir
    plan = Plan(
        model=model,
        resolved=resolved,
        refiner=refiner,
        init=init,
        controls=_loaded(model, controls),
        channels=tuple(
            image_conditioning(model, filled, each.size, InitImage() if index else init)
            for index, each in enumerate(resolved.passes)
        ),
        encode=_encoder(model, resolved, refiner),
        wildcards=None if wildcards is None else WildcardFolder(wildcards),
        options=_sampler_options(resolved, options),
        final=final,
        engine=engine,
    )
    for each in plan.batch(0, [plan.single(0)]).passes:
        each.check()
    return plan


def _loaded(model: StableDiffusion, controls: Sequence[Control]) -> LoadedControls:
    if not controls:
        return LoadedControls()
    from .tasks.control_files import load_controls

    return load_controls(model, controls)


def _encoder(
    model: StableDiffusion, resolved: Resolved, refiner: StableDiffusion | None
) -> Callable[[str, str], EncodedPrompts]:
    steps, weights = [(each.steps, each.before) for each in resolved.passes], LoraWeights(model)
    # A1111 runs a prompt's changes by calls of the network, of which its second-order samplers make two a step.
    calls = 2 if resolved.request.noise.compat == "a1111" and resolved.sampler.calls == 2 else 1

    @functools.lru_cache(maxsize=2)
    def encode(prompt: str, negative: str) -> EncodedPrompts:
        request = replace(resolved.request, prompt=prompt, negative_prompt=negative)
        return encode_prompts(model, request, steps, refiner, weights, calls)

    return encode


def _sampler_options(resolved: Resolved, given: Options) -> Options:
    """What a sampler's name implies, the request's settings as far as its sampler has them, and what was `given`."""
    asked = resolved.request.noise.options
    known = {name: value for name, value in asked.items() if name in resolved.sampler.options}
    return {**resolved.implied, **known, **given}
