"""Stage 1: the KL autoencoder on premultiplied RGBA.

Legend: B batch, R picture size, c latent channels, h = R / downscale.
Loss = L1 + multi-scale gradient (+ SSIM) + tiny KL, and late in the plan a patch discriminator with a hinge loss whose
weight follows the gradient ratio at the decoder's last layer (Esser et al. 2021, eq. 7).
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor, nn

from ...data.similarity import SIGNED, alpha_iou, psnr
from ...errors import InvalidRequest
from ...latents import LatentFormat
from ...models.vae import VAE, VAEConfig
from ..config import VAEStage
from ..data import Order, to_network, to_pictures
from ..optim import Group
from ..report import sheet
from ..stage import Context, autocast, evaluating, prepare, shared_noise, spread
from ..tables import build, to_table
from .losses import PatchDiscriminator, adaptive_weight, gradient_loss, hinge_discriminator_loss, ssim_loss

CHUNK = 32


class VAETraining:
    """Modules "vae" and, where the adversarial loss is on, "discriminator"."""

    def __init__(self, config: VAEStage, context: Context) -> None:
        self.config, self.context = config, context
        self.model_config = build(VAEConfig, {"image_channels": 4, **config.vae}, "vae")
        self.vae = VAE(self.model_config)
        if config.size % self.vae.downscale:
            raise InvalidRequest(f"size = {config.size} must be a multiple of the VAE's downscale {self.vae.downscale}")
        prepare(self.vae, context.device, config)
        self.discriminator: nn.Module | None = None
        if config.adversarial_after < 1.0 and config.adversarial_weight > 0:
            self.discriminator = prepare(PatchDiscriminator(4, config.discriminator_channels), context.device, config)
        pack = context.pack
        self.train_rows = pack.select(config.data)
        self.order = Order(pack.weights(self.train_rows, config.data), config.seed)
        self.held = _held_out(context, config)
        self.latents: dict[str, Any] | None = None

    @property
    def modules(self) -> dict[str, nn.Module]:
        extra = {} if self.discriminator is None else {"discriminator": self.discriminator}
        return {"vae": self.vae, **extra}

    @property
    def averaged(self) -> dict[str, nn.Module]:
        return {"vae": self.vae}

    @property
    def groups(self) -> list[Group]:
        return [Group("all", self.modules)]

    @property
    def facts(self) -> dict[str, Any]:
        return {"vae": to_table(self.model_config), "latents": self.latents}

    def restore(self, facts: Mapping[str, Any]) -> None:
        self.latents = facts["latents"]

    def pictures(self, rows: np.ndarray[Any, Any]) -> Tensor:
        """Pack rows -> [B,4,R,R] on the device."""
        raw = torch.from_numpy(self.context.pack.pictures(rows)).to(self.context.device)
        image = to_network(raw, self.config.size)
        return image.contiguous(memory_format=torch.channels_last) if self.config.channels_last else image

    def backward(self, step: int, progress: float) -> dict[str, Tensor]:
        world, config = self.context.world, self.config
        rows = self.order.batch(step, config.batch_size, world.rank, world.size)
        image = self.pictures(self.train_rows[rows])
        halved = int((step + 1) * config.equivariance) > int(step * config.equivariance)
        with autocast(self.context.device, config):
            posterior = self.vae.encode(image)
            mean, logvar = posterior.mean.float(), posterior.logvar.float()
            noise = shared_noise(tuple(mean.shape), world, seed=config.seed, salt=3, step=step)
            latent = mean + noise * (0.5 * logvar).exp()
            if halved:
                latent, image = F.avg_pool2d(latent, 2), F.avg_pool2d(image, 2)
            output = self.vae.decode(latent).float()
        losses = vae_losses(output, image, mean, logvar, config)
        adversarial = self.discriminator is not None and progress >= config.adversarial_after and not halved
        if adversarial:
            losses |= self._fool(output, losses["reconstruction"])
        total = losses["reconstruction"] + config.kl_weight * losses["kl"]
        if adversarial:
            total = total + losses.pop("weighted")
        total.backward()  # type: ignore[no-untyped-call]
        if adversarial:
            losses["discriminator"] = self._judge(image, output.detach())
        name = "halved" if halved else "loss"
        losses = {name: losses.pop("reconstruction"), **({} if halved else losses)}
        return {key: value.detach() for key, value in losses.items()}

    def _fool(self, output: Tensor, reconstruction: Tensor) -> dict[str, Tensor]:
        """The generator's adversarial loss; the discriminator's weights get no gradient from it."""
        assert self.discriminator is not None
        self.discriminator.requires_grad_(False)
        with autocast(self.context.device, self.config):
            loss = -self.discriminator(output).float().mean()
        self.discriminator.requires_grad_(True)
        weight = adaptive_weight(reconstruction, loss, last_layer(self.vae))
        return {"adversarial": loss, "weighted": self.config.adversarial_weight * weight * loss}

    def _judge(self, real: Tensor, fake: Tensor) -> Tensor:
        assert self.discriminator is not None
        with autocast(self.context.device, self.config):
            logits = self.discriminator(torch.cat([real, fake])).float()
        loss = hinge_discriminator_loss(*logits.chunk(2))
        loss.backward()  # type: ignore[no-untyped-call]
        return loss

    def validate(self) -> dict[str, float]:
        """PSNR and alpha IoU of the mode's reconstruction on held-out records; also sets the latent statistics."""
        with evaluating(self.vae):
            scores = [self._reconstruct(image)[1] for image in self._chunks(self.held)]
            self.latents = dataclasses.asdict(self._latent_format())
        quality, overlap = torch.cat(scores, dim=1).mean(dim=1).tolist()
        return {"psnr": quality, "alpha_iou": overlap}

    def _chunks(self, rows: np.ndarray[Any, Any]) -> list[Tensor]:
        return [self.pictures(rows[start : start + CHUNK]) for start in range(0, len(rows), CHUNK)]

    def _reconstruct(self, image: Tensor) -> tuple[Tensor, Tensor]:
        """(reconstruction [B,4,R,R], scores [2,B])."""
        with autocast(self.context.device, self.config):
            output = self.vae.decode(self.vae.encode(image).mean).float()
        return output, torch.stack([psnr(output.clamp(-1, 1), image, SIGNED), alpha_iou(output, image, SIGNED)])

    def _latent_format(self) -> LatentFormat:
        rows = spread(self.train_rows, self.config.statistics_count)
        latents, colours = [], []
        for start in range(0, len(rows), CHUNK):
            image = self.pictures(rows[start : start + CHUNK])
            with autocast(self.context.device, self.config):
                latents.append(self.vae.encode(image).mean.float().cpu())
            colours.append(F.avg_pool2d(image.float(), self.vae.downscale).cpu())
        return latent_format(torch.cat(latents), torch.cat(colours), self.vae.downscale)

    def sheet(self) -> Image.Image:
        """Held-out pictures, each above its reconstruction."""
        image = self.pictures(self.held[:24])
        with evaluating(self.vae):
            output, _ = self._reconstruct(image)
        pairs = [
            to_pictures(part)
            for a, b in zip(torch.split(image, 12), torch.split(output, 12), strict=True)
            for part in (a, b)
        ]
        return sheet(np.concatenate(pairs), columns=min(12, len(image)))


def vae_losses(output: Tensor, image: Tensor, mean: Tensor, logvar: Tensor, config: VAEStage) -> dict[str, Tensor]:
    """ "l1" and "reconstruction" per element, "kl" in nats per latent element."""
    l1 = (output - image).abs().mean()
    total = l1
    if config.gradient_weight > 0:
        total = total + config.gradient_weight * gradient_loss(output, image)
    if config.ssim_weight > 0:
        total = total + config.ssim_weight * ssim_loss(output, image)
    kl = 0.5 * (mean.square() + logvar.exp() - 1 - logvar).mean()
    return {"l1": l1, "reconstruction": total, "kl": kl}


def last_layer(module: nn.Module) -> Tensor:
    """The weight of the last convolution, where the gradient ratio is taken."""
    convolutions = [part for part in module.modules() if isinstance(part, nn.Conv2d)]
    named = [part for name, part in module.named_modules() if isinstance(part, nn.Conv2d) and "decoder" in name]
    return (named or convolutions)[-1].weight


def latent_format(latents: Tensor, colours: Tensor, downscale: int) -> LatentFormat:
    """Per-channel normalisation and linear preview of a latent space.

    latents [N,c,h,w] of the VAE, colours [N,3+,h,w] of the same places in [-1,1]. scale = 1 / std, shift = mean; the
    preview is the least-squares fit of the first three colour channels on the normalised latent and a constant.
    """
    channels = latents.shape[1]
    flat = latents.double().transpose(0, 1).reshape(channels, -1)
    shift, scale = flat.mean(dim=1), 1.0 / flat.std(dim=1).clamp(min=1e-6)
    inputs = torch.cat([(flat - shift[:, None]) * scale[:, None], torch.ones_like(flat[:1])]).T
    targets = colours[:, :3].double().transpose(0, 1).reshape(3, -1).T
    # Ridge keeps the fit defined where a channel is dead.
    gram = inputs.T @ inputs + 1e-6 * len(inputs) * torch.eye(channels + 1, dtype=torch.float64)
    factors = torch.linalg.solve(gram, inputs.T @ targets)
    rows = [[round(value, 5) for value in row] for row in factors.tolist()]
    return LatentFormat(
        channels=channels,
        downscale=downscale,
        scale=tuple(scale.tolist()),
        shift=tuple(shift.tolist()),
        preview=tuple((row[0], row[1], row[2]) for row in rows[:-1]),
        preview_bias=(rows[-1][0], rows[-1][1], rows[-1][2]),
    )


def latent_format_from(facts: Mapping[str, Any]) -> LatentFormat:
    """The LatentFormat that a VAE run stored (JSON lists become tuples)."""
    stored = facts.get("latents")
    if stored is None:
        raise InvalidRequest("the VAE run has no latent statistics yet: let it reach its first sample sheet or its end")
    values = dict(stored)
    for name in ("scale", "shift", "preview_bias"):
        values[name] = tuple(values[name]) if isinstance(values[name], (list, tuple)) else values[name]
    if values["preview"] is not None:
        values["preview"] = tuple((row[0], row[1], row[2]) for row in values["preview"])
    return LatentFormat(**values)


def _held_out(context: Context, config: VAEStage) -> np.ndarray[Any, Any]:
    """Held-out records, or training records where the pack holds none out."""
    try:
        rows = context.pack.select(config.data, "heldout")
    except InvalidRequest:
        rows = context.pack.select(config.data)
    return spread(rows, config.validation_count)
