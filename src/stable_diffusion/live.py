"""Many pictures of one request, each from another frame: what does not change between frames is made once.

    painter = LivePainter(LocalRunner(), Request("a red cat", model="embedded-fast", image=frame, strength=0.25))
    picture = painter.paint(Request(..., image=next_frame))

Prompts stay encoded, the network keeps its layers and the text's keys, the start noise is drawn once, and no text is
written into the pictures. On a CPU that computes bfloat16 the autoencoder runs in it, and for one or two calls a small
denoising network too: the pictures differ a little from those of the same request made alone (docs/speed.md).
"""

from __future__ import annotations

import copy
import threading
import weakref
from dataclasses import replace
from typing import TYPE_CHECKING, TypeVar

import torch
from PIL import Image

from .engine.precision import LARGE
from .errors import InvalidRequest
from .pipeline.codec import ImageDecoder, ImageEncoder
from .pipeline.generate import decode
from .pipeline.image import to_images
from .pipeline.models import StableDiffusion
from .pipeline.prepare import prepare
from .pipeline.process import DenoisingProcess
from .pipeline.tasks.background import composite
from .pipeline.tasks.init_image import input_kind, prepare_init
from .request.request import Request

if TYPE_CHECKING:
    from .runner import LocalRunner

M = TypeVar("M", bound=torch.nn.Module)
_HALVES: weakref.WeakKeyDictionary[torch.nn.Module, torch.nn.Module] = weakref.WeakKeyDictionary()
"""Networks in bfloat16, by the one in float32."""
FEW_CALLS = 2
"""Calls of the network up to which it may run in bfloat16: the error grows from call to call."""
_LOCK = threading.Lock()


class LivePainter:
    """Pictures of one request; one thread at a time may ask. InvalidRequest, at once, where the request cannot be used:
    it must have an image, and neither mask nor controls, which are made for one picture."""

    def __init__(self, runner: LocalRunner, request: Request) -> None:
        if request.image is None:
            raise InvalidRequest("a live picture starts from a frame; give it as image")
        for name in ("mask", "controls"):
            if getattr(request, name):
                raise InvalidRequest(f"a live picture has no {name}; leave out {name}")
        self.settings = replace(request, image=None, strength=None)
        self.strength, self.size = request.strength, request.image.size
        model = runner.model(request)
        self.model = _in_fast_precision(model)
        self._prepare(request)
        if self.calls > FEW_CALLS and self.model.dtype != model.dtype:
            self.model = _in_fast_precision(model, network=False)
            self._prepare(request)

    def fits(self, request: Request) -> bool:
        """Whether only the frame differs, and not in size."""
        if request.image is None or (request.strength, request.image.size) != (self.strength, self.size):
            return False
        return replace(request, image=None, strength=None) == self.settings

    @torch.no_grad()
    def paint(self, request: Request) -> Image.Image:
        """The picture of a request that `fits`: RGB, or RGBA where the model makes that."""
        if input_kind(self.model) != "latent":
            self._prepare(request)  # such a network is given the picture itself
        resolved = replace(self.plan.resolved, request=replace(self.plan.resolved.request, image=request.image))
        first, latent = self.batch.passes[0], prepare_init(self.model, resolved).latent
        single = self.batch.requests[0]
        source = first.base.network.noise(first.sampler, [self.seed], first.size, single.noise, [single.variation])
        start = source.start().to(self.model.device)
        # A network that edits pictures begins from noise alone: it is given the picture beside it.
        latent = start if latent is None else latent.to(start)
        given = None if latent is start else latent
        for step in first.steps(source, start, given, self.networks):
            latent = step.x
        straight = composite(decode(self.plan, latent), resolved.request.background, whole=False)
        (image,) = to_images(straight)
        return image

    @property
    def calls(self) -> int:
        """How often a frame asks the network."""
        first = self.batch.passes[0]
        return (len(first.sigmas) - 1) * first.sampler.calls

    @property
    def seed(self) -> int:
        """Of all its pictures; drawn once where the request has none."""
        return self.batch.requests[0].seed or 0

    def _prepare(self, request: Request) -> None:
        self.plan = prepare(self.model, request, engine=self.model.engine)
        self.batch = self.plan.batch(0, [self.plan.single(0)])
        self.networks = self.batch.passes[0].networks()


def _in_fast_precision(model: StableDiffusion, *, network: bool = True) -> StableDiffusion:
    """The model with its autoencoder in bfloat16, and with `network` a small denoising network too, where the processor
    is faster in it; else the model itself. A network with adapters attached keeps its own weights."""
    from .engine.processor import fast_bfloat16

    plain = model.device.type == "cpu" and model.image_decoder.dtype == torch.float32
    if not plain or not fast_bfloat16():
        return model
    vae, half = _half(model.parts.vae), torch.bfloat16
    placed = vae, model.parts.latents, model.device, half
    decoder = ImageDecoder(*placed)
    decoder.tiling = model.image_decoder.tiling
    found = replace(model, image_encoder=ImageEncoder(*placed), image_decoder=decoder, _by_engine={})
    weights = sum(each.numel() for each in model.parts.unet.parameters())
    if not network or model.dtype != torch.float32 or weights >= LARGE or model.attachments:
        return found
    unet, process = _half(model.parts.unet), model.denoising_process
    made = DenoisingProcess(
        replace(process.network, unet=unet, dtype=half), model.text_encoder, process.defaults, process.table
    )
    return replace(found, parts=replace(model.parts, unet=unet), dtype=half, denoising_process=made)


def _half(module: M) -> M:
    """A copy of a network in bfloat16, kept as long as the network is."""
    with _LOCK:
        if module not in _HALVES:
            _HALVES[module] = copy.deepcopy(module).to(torch.bfloat16)
        found: M = _HALVES[module]  # type: ignore[assignment]  # of the class of `module`
    return found
