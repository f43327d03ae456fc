"""Any set of text encoder, denoiser and decoder, trained together end to end from finished runs.

Legend: B batch, c h w latent shape, R picture size.
Beside the denoising loss, the estimate of the clean latent is decoded and compared with the picture, weighted by
alpha^2 of its noise level (an estimate from pure noise has no one right picture). The gradient of that comparison runs
through the decoder, the denoiser and the text encoder, so that the three fit each other.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from ...diffusion.denoise import network_denoiser
from ...diffusion.loss import min_snr_weight
from ...diffusion.prediction import target
from ...diffusion.schedule import add_gaussian_noise
from ...errors import InvalidRequest
from ...types import Conditioning
from ..checkpoint import assign, find_checkpoint, load_part, read_state
from ..config import JointStage
from ..data import to_network
from ..optim import Group
from ..stage import Context, autocast, shared_noise
from .denoiser import DenoiserTraining
from .losses import gradient_loss


class JointTraining(DenoiserTraining):
    """Modules "unet", "text" and "vae"; only the parts that the config names get gradients.

    The encoder is never trained: the cached latents and their statistics stay valid.
    """

    config: JointStage

    def __init__(self, config: JointStage, context: Context) -> None:
        super().__init__(_completed(config), context)
        self.config = _completed(config)
        self.parts = frozenset(config.parts)
        for name, module in (("unet", self.unet), ("text", self.text)):
            assign(module, load_part(config.denoiser_run, name)[0], f"{name} of {config.denoiser_run}")
        self.unet.requires_grad_("denoiser" in self.parts)
        self.text.requires_grad_("text" in self.parts)
        for module in (self.vae.decoder, self.vae.post_quant_conv):
            module.requires_grad_("decoder" in self.parts)

    @property
    def modules(self) -> dict[str, nn.Module]:
        return {"unet": self.unet, "text": self.text, "vae": self.vae}

    @property
    def groups(self) -> list[Group]:
        rates: dict[str, tuple[dict[str, nn.Module], float]] = {
            "denoiser": ({"unet": self.unet}, 1.0),
            "text": ({"text": self.text}, self.config.text_learning_rate),
            "decoder": ({"vae": self.vae}, self.config.decoder_learning_rate),
        }
        return [Group(name, *rates[name]) for name in rates if name in self.parts]

    def backward(self, step: int, progress: float) -> dict[str, Tensor]:
        world, config = self.context.world, self.config
        rows, ids, timestep = self.draw(step)
        x0 = self.data[torch.from_numpy(rows).to(self.data.device)].float()
        noise = shared_noise(tuple(x0.shape), world, seed=config.seed, salt=5, step=step)
        denoising, picture = self._losses(x0, noise, timestep, ids, self._pictures(rows))
        total = denoising + config.decoder_weight * picture
        total.backward()  # type: ignore[no-untyped-call]
        return {"loss": total.detach(), "denoising": denoising.detach(), "picture": picture.detach()}

    def _pictures(self, rows: np.ndarray[Any, Any]) -> Tensor:
        raw = torch.from_numpy(self.context.pack.pictures(self.rows[rows])).to(self.context.device)
        return to_network(raw, self.config.size)

    def _losses(self, x0: Tensor, noise: Tensor, timestep: Tensor, ids: Tensor, image: Tensor) -> tuple[Tensor, Tensor]:
        """(denoising loss, loss of the decoded estimate against `image` [B,4,R,R]), both scalars."""
        schedule, prediction = self.schedule, self.config.prediction
        sigma = schedule.sigma(timestep.float())
        alpha_share = schedule.alpha(sigma) ** 2 / (schedule.alpha(sigma) ** 2 + sigma**2)
        noisy = add_gaussian_noise(schedule, x0, sigma, noise)
        outputs: list[Tensor] = []

        def network(x: Tensor, t: Tensor, tokens: Tensor, *, vector: Tensor | None = None) -> Tensor:
            outputs.append(self.run_unet(x, t, tokens, vector=vector).float())
            return outputs[-1]

        with autocast(self.context.device, self.config):
            cond: Conditioning = self.condition(ids)
            estimate = network_denoiser(network, schedule, prediction)(noisy, sigma, cond)  # type: ignore[arg-type]
            decoded = self.vae.decode(self.latents.denormalise(estimate)).float()
        wanted = target(prediction, x0, noise, sigma, schedule)  # type: ignore[arg-type]
        squared = (outputs[0] - wanted).square().flatten(1).mean(dim=1)
        if self.config.weighting == "min_snr":
            squared = squared * min_snr_weight(prediction, schedule, sigma)  # type: ignore[arg-type]
        weight = alpha_share[:, None, None, None]
        picture = (weight * (decoded - image).abs()).mean() + gradient_loss(decoded * weight, image * weight)
        return squared.mean(), picture


def _completed(config: JointStage) -> JointStage:
    """The config with run folders, network shape and prediction filled in from the denoiser run."""
    import dataclasses

    path = find_checkpoint(config.denoiser_run) if config.denoiser_run else None
    if path is None:
        raise InvalidRequest(
            f"denoiser_run = {config.denoiser_run!r} is not the folder of a finished denoiser run "
            "(--set denoiser_run=RUNS/denoiser)"
        )
    state = read_state(path)
    facts, stored = state["facts"], state["config"]
    return dataclasses.replace(
        config,
        vae_run=config.vae_run or stored["vae_run"],
        text_run=str(Path(config.denoiser_run)),
        prediction=facts["prediction"],
        size=int(facts["size"]),
        unet=facts["unet"],
    )
