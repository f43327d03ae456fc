"""Stage 3: the denoiser on cached latents, with the text encoder trained along at its own rate.

Legend: N records, B batch, c h w latent shape, T tokens, D token width, V vector width.
The loss, the times and their weights are those of diffusion/loss.py. Every latent of the selection is computed once
with the VAE's mean, normalised, and kept as float16 in the run folder or the config's latent_cache.
"""

from __future__ import annotations

import hashlib
import itertools
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor, nn

from ...diffusion.denoise import guided, network_denoiser
from ...diffusion.loss import diffusion_loss, draw_times, to_timestep, with_high_noise
from ...diffusion.schedule import DiscreteSchedule, FlowSchedule, ddpm_schedule
from ...errors import InvalidRequest
from ...latents import LatentFormat
from ...models.clip import CLIPText, CLIPTextConfig
from ...models.unet import UNet, UNetConfig
from ...models.vae import VAE, VAEConfig
from ...types import Conditioning, Schedule
from ...weights.containers.atomic import atomic_file
from ...weights.load import load_parts
from ..checkpoint import assign, load_part
from ..config import DenoiserStage
from ..data import Captions, Order, encode_texts, load_tokenizer, to_network, to_pictures
from ..optim import Group
from ..report import sheet
from ..stage import (
    Context,
    attention_with_gradients,
    autocast,
    autocast_network,
    condition,
    evaluating,
    generator,
    maybe_compile,
    prepare,
    shared_noise,
)
from ..tables import build, to_table
from ..warm_start import towers_of
from .text import held_out
from .trajectories import places
from .vae import latent_format_from

CHUNK = 32
VALIDATION = 256


class DenoiserTraining:
    """Modules "unet" and "text"."""

    config: DenoiserStage

    def __init__(self, config: DenoiserStage, context: Context) -> None:
        self.config, self.context = config, context
        self.vae, self.latents = load_vae(config.vae_run)
        self.vae.to(context.device).eval().requires_grad_(False)
        self.text, self.text_config = load_text(config.text_run)
        prepare(self.text, context.device, config).requires_grad_(config.text_learning_rate > 0)
        self.unet_config = self._unet_config()
        self.unet = prepare(UNet(self.unet_config), context.device, config)
        self.run_unet = maybe_compile(self.unet, config)
        self.schedule = make_schedule(config)
        self.tokenizer = load_tokenizer(context.pack.folder)
        self.rows = context.pack.select(config.data)
        self.order = Order(context.pack.weights(self.rows, config.data), config.seed)
        self.captions = Captions(context.pack, self.rows, self.tokenizer, self.text_config.context_length)
        self.data = self._cached(self.rows)
        self.held_rows = held_out(context.pack, config.data, VALIDATION)
        self.held = self._cached(self.held_rows)

    def _unet_config(self) -> UNetConfig:
        channels, width = self.latents.channels, self.text_config.width
        pooled = width if self.text_config.projection_dim is None else self.text_config.projection_dim
        known = {"in_channels": channels, "out_channels": channels, "context_dim": width, "vector_dim": pooled}
        return build(UNetConfig, {**known, **self.config.unet}, "unet")

    @property
    def modules(self) -> dict[str, nn.Module]:
        return {"unet": self.unet, "text": self.text}

    @property
    def averaged(self) -> dict[str, nn.Module]:
        return self.modules

    @property
    def groups(self) -> list[Group]:
        groups = [Group("unet", {"unet": self.unet})]
        if self.config.text_learning_rate > 0:
            groups.append(Group("text", {"text": self.text}, self.config.text_learning_rate))
        return groups

    @property
    def facts(self) -> dict[str, Any]:
        return {
            "unet": to_table(self.unet_config),
            "text": to_table(self.text_config),
            "schedule": self.schedule.to_config(),
            "prediction": self.config.prediction,
            "size": self.config.size,
        }

    def restore(self, facts: Mapping[str, Any]) -> None:
        """Nothing beyond the modules."""

    def _cached(self, pack_rows: NDArray[np.int64]) -> Tensor:
        """Normalised latents [N,c,h,w] of these records, float16, on the device."""
        folder = Path(self.config.latent_cache) if self.config.latent_cache else self.context.out
        path = folder / f"latents-{self._key(pack_rows)}.npy"
        if self.context.world.main and not path.is_file():
            self._encode(pack_rows, path)
        self.context.world.barrier()
        return torch.from_numpy(np.load(path)).to(self.context.device)

    def _key(self, pack_rows: NDArray[np.int64]) -> str:
        weights = self.vae.encoder.conv_out.weight.detach().cpu().numpy()
        names = "\n".join(self.context.pack.records[int(row)].name for row in pack_rows)
        digest = hashlib.sha256(weights.tobytes() + pack_rows.tobytes() + f"{self.config.size}{names}".encode())
        return f"{self.config.size}-{digest.hexdigest()[:12]}"

    @torch.no_grad()
    def _encode(self, pack_rows: NDArray[np.int64], path: Path) -> None:
        side = self.config.size // self.vae.downscale
        out = np.empty((len(pack_rows), self.latents.channels, side, side), dtype=np.float16)
        for start in range(0, len(pack_rows), CHUNK):
            raw = torch.from_numpy(self.context.pack.pictures(pack_rows[start : start + CHUNK]))
            with autocast(self.context.device, self.config):
                mean = self.vae.encode(to_network(raw.to(self.context.device), self.config.size)).mean
            out[start : start + CHUNK] = self.latents.normalise(mean.float()).cpu().half().numpy()
        with atomic_file(path) as file:
            np.save(file, out)

    def condition(self, ids: Tensor) -> Conditioning:
        return condition(self.text, ids, self.context.device)

    def draw(self, step: int) -> tuple[NDArray[np.int64], Tensor, Tensor]:
        """(rows of the selection, token ids [B,T], timesteps [B]) of this rank at `step`."""
        world, config = self.context.world, self.config
        rows = self.order.batch(step, config.batch_size, world.rank, world.size)
        first = world.rank * len(rows)
        ids, _ = self.captions.choose(
            rows,
            seed=config.seed,
            step=step,
            first=first,
            chinese=config.data.chinese,
            dropout=config.data.caption_dropout,
        )
        times = draw_times(
            config.batch_size,
            config.times,  # type: ignore[arg-type]
            mean=config.time_mean,
            std=config.time_std,
            stratified=True,
            generator=generator(torch.device("cpu"), config.seed, 4, step),
        )
        timestep = with_high_noise(
            self.schedule,
            to_timestep(self.schedule, times),
            config.high_noise_share,
            config.high_noise_from,
            generator=generator(torch.device("cpu"), config.seed, 7, step),
        )
        return rows, ids, timestep[first : first + len(rows)].to(self.context.device)

    def backward(self, step: int, progress: float) -> dict[str, Tensor]:
        world, config = self.context.world, self.config
        rows, ids, timestep = self.draw(step)
        x0 = self.data[torch.from_numpy(rows).to(self.data.device)].float()
        noise = shared_noise(tuple(x0.shape), world, seed=config.seed, salt=5, step=step)
        with attention_with_gradients(self.context.device):
            loss = self.loss(x0, noise, timestep, ids, self.run_unet).mean()
        loss.backward()  # type: ignore[no-untyped-call]
        return {"loss": loss.detach()}

    def loss(self, x0: Tensor, noise: Tensor, timestep: Tensor, ids: Tensor, network: Any) -> Tensor:
        """Per-sample loss [B]."""
        with autocast(self.context.device, self.config):
            cond = self.condition(ids)
            return diffusion_loss(
                network,
                self.schedule,
                self.config.prediction,  # type: ignore[arg-type]
                x0,
                noise,
                timestep,
                cond.tokens,
                vector=cond.vector,
                weighting=self.config.weighting,  # type: ignore[arg-type]
            )

    def validate(self) -> dict[str, float]:
        """Loss on held-out latents at fixed times and noise."""
        captions = Captions(self.context.pack, self.held_rows, self.tokenizer, self.text_config.context_length)
        total, device = 0.0, self.context.device
        with evaluating(self.unet, self.text):
            for start in range(0, len(self.held), CHUNK):
                x0 = self.held[start : start + CHUNK].float()
                source = generator(torch.device("cpu"), 0, 6, start)
                noise = torch.randn(x0.shape, generator=source).to(device)
                timestep = to_timestep(self.schedule, (torch.arange(len(x0)) + 0.5) / len(x0)).to(device)
                numbers = np.arange(start, start + len(x0))
                ids, _ = captions.choose(numbers, seed=0, step=start, first=0, chinese=0.5, dropout=0.0)
                total += float(self.loss(x0, noise, timestep, ids, self.unet).sum())
        return {"heldout_loss": total / len(self.held)}

    def sheet(self) -> Image.Image:
        """The config's prompts with guidance, seeds 0, 1, 2, ..."""
        prompts = list(self.config.prompts)
        with evaluating(self.unet, self.text):
            pictures = self.sample(prompts, self.config.guidance, self.config.sample_steps)
        return sheet(to_pictures(pictures), columns=min(6, len(prompts)), labels=prompts)

    @torch.no_grad()
    def sample(self, prompts: list[str], guidance: float, steps: int) -> Tensor:
        """Pictures [N,4,R,R] of the prompts; picture k starts from the noise of seed k."""
        side, device = self.config.size // self.vae.downscale, self.context.device
        ids = encode_texts(self.tokenizer, [*prompts, ""], self.text_config.context_length)
        with autocast(device, self.config):
            cond = self.condition(torch.from_numpy(ids).long()).to(dtype=torch.float32)
        cond, uncond = cond.map(lambda t: t[:-1]), cond.map(lambda t: t[-1:])
        network = autocast_network(self.unet, device, self.config)
        wrapped = network_denoiser(network, self.schedule, self.config.prediction)  # type: ignore[arg-type]
        denoise = guided(wrapped, cond, uncond, guidance)
        shape = (self.latents.channels, side, side)
        noise = [torch.randn(shape, generator=torch.Generator().manual_seed(k)) for k in range(len(prompts))]
        latent = integrate(lambda x, sigma: denoise(x, sigma).x0, torch.stack(noise).to(device), self.schedule, steps)
        chunks = torch.split(self.latents.denormalise(latent), CHUNK)
        return torch.cat([self.vae.decode(chunk).float() for chunk in chunks])


def integrate(denoise: Any, noise: Tensor, schedule: Schedule, steps: int) -> Tensor:
    """Deterministic first-order sampling (DDIM; for a flow it is Euler's method) over evenly spaced timesteps."""
    sigmas = places(schedule, steps).to(noise.device)
    x = noise * sigmas[0]
    for now, after in itertools.pairwise(sigmas):
        x0 = denoise(x, now.expand(len(x)))
        direction = (x - schedule.alpha(now) * x0) / now
        x = schedule.alpha(after) * x0 + after * direction
    return x


def make_schedule(config: DenoiserStage) -> DiscreteSchedule | FlowSchedule:
    """Rectified flow for "flow"; else Stable Diffusion's DDPM schedule, with zero terminal SNR for v."""
    if config.prediction == "flow":
        return FlowSchedule(config.shift)
    return ddpm_schedule("scaled_linear", zero_terminal_snr=config.prediction == "v")


def load_vae(run: str) -> tuple[VAE, LatentFormat]:
    """The autoencoder of a VAE run, or of a model file, and its latent statistics."""
    if not run:
        raise InvalidRequest("vae_run is not set: give the folder of a VAE training run (--set vae_run=RUNS/vae)")
    if Path(run).is_file():
        parts = load_parts(run)
        return parts.full_vae, parts.latents
    weights, state = load_part(run, "vae")
    vae = VAE(build(VAEConfig, state["facts"]["vae"], "vae"))
    assign(vae, weights, f"the VAE of {run}")
    return vae, latent_format_from(state["facts"])


def load_text(run: str) -> tuple[CLIPText, CLIPTextConfig]:
    """The text encoder of a text (or denoiser) run, of a model file or of a tower file."""
    if not run:
        raise InvalidRequest("text_run is not set: give the folder of a text training run (--set text_run=RUNS/text)")
    if Path(run).is_file():
        towers = towers_of(Path(run))
        clip = load_parts(run).clip if towers is None else towers.text()[0]
        return clip, clip.config
    weights, state = load_part(run, "text")
    config = build(CLIPTextConfig, state["facts"]["text"], "text")
    text = CLIPText(config)
    assign(text, weights, f"the text encoder of {run}")
    return text, config
