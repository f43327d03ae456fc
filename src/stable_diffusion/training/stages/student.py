"""Stage 5: a student that paints in a few steps and without guidance what its teacher paints in many, with guidance.

Legend: N ways, K jumps, B batch, c h w latent shape, T tokens.
The teacher paints captions of the pack from noise (`trajectories.py`); between two places on its way the student makes
one Euler step and is trained, by regression on the network's output, to arrive where the teacher did (one round of
Salimans & Ho 2022, "Progressive distillation", and of Meng et al. 2023, "On distillation of guided diffusion models",
on the teacher's own ways instead of noised pictures). Only low-rank changes are trained: the student is a small file
beside the teacher.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from tokenizers import Tokenizer
from torch import Tensor, nn

from ...diffusion.denoise import guided, network_denoiser
from ...diffusion.prediction import from_x0
from ...errors import InvalidRequest
from ...types import Conditioning, Schedule
from ...weights.load import load_parts
from ..config import StudentStage
from ..data import Captions, Order, encode_texts, to_pictures
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
)
from .denoiser import CHUNK, integrate
from .low_rank import add_low_rank
from .trajectories import follow, places, remembered

HELD = 32
"""Ways at the end that are not trained on."""


class StudentTraining:
    """Module "lora": the low-rank changes of the teacher's U-Net. The teacher is a model file."""

    def __init__(self, config: StudentStage, context: Context) -> None:
        if not Path(config.teacher).is_file():
            raise InvalidRequest(f"teacher = {config.teacher!r} is no file; give a model file (--set teacher=MODEL)")
        if config.ways <= HELD:
            raise InvalidRequest(f"ways = {config.ways}; expected more than the {HELD} that are held out")
        self.config, self.context = config, context
        parts = load_parts(config.teacher)
        self.vae, self.latents = parts.full_vae.to(context.device).eval(), parts.latents
        self.text, self.text_config = parts.clip.to(context.device).eval().requires_grad_(False), parts.clip.config
        self.schedule, self.prediction = parts.schedule, parts.prediction
        if parts.tokenizer.json is None:
            raise InvalidRequest(
                f"teacher = {config.teacher!r} holds no tokenizer; give a model in this package's format"
            )
        self.tokenizer = Tokenizer.from_str(parts.tokenizer.json)
        self.unet = prepare(parts.unet, context.device, config)
        self.network = autocast_network(self.unet, context.device, config)
        self.sigmas = places(self.schedule, config.jumps).to(context.device)
        self.rows = context.pack.select(config.data)
        self.nothing = torch.from_numpy(encode_texts(self.tokenizer, [""], self.text_config.context_length)).long()
        self.ids = self._chosen()
        self.ways = context.world.main_first(self._ways).to(context.device)
        self.lora = add_low_rank(self.unet, config.rank)
        self.run_unet = maybe_compile(self.unet, config)

    @property
    def modules(self) -> dict[str, nn.Module]:
        return {"lora": self.lora}

    @property
    def averaged(self) -> dict[str, nn.Module]:
        return self.modules

    @property
    def groups(self) -> list[Group]:
        return [Group("lora", {"lora": self.lora})]

    @property
    def facts(self) -> dict[str, Any]:
        return {"jumps": self.config.jumps, "guidance": self.config.guidance, "teacher": self._key()}

    def restore(self, facts: Mapping[str, Any]) -> None:
        if facts["teacher"] != self._key():
            raise InvalidRequest(f"the run {self.context.out} has another teacher than {self.config.teacher!r}")

    def _key(self) -> str:
        """Names the teacher and how it paints."""
        c = self.config
        settings = f"{c.jumps} {c.between} {c.guidance} {c.size} {c.seed} {c.data}".encode()
        return hashlib.sha256(Path(c.teacher).read_bytes() + settings).hexdigest()[:12]

    def _chosen(self) -> Tensor:
        """Token ids [N,T] of one caption for each way, drawn as in the training of the denoiser."""
        config, pack = self.config, self.context.pack
        order = Order(pack.weights(self.rows, config.data), config.seed)
        captions = Captions(pack, self.rows, self.tokenizer, self.text_config.context_length)
        drawn = order.batch(0, config.ways)
        chosen = {"chinese": config.data.chinese, "dropout": 0.0}
        return captions.choose(drawn, seed=config.seed, step=0, first=0, **chosen)[0]

    def _ways(self) -> Tensor:
        side = self.config.size // self.vae.downscale
        shape = (self.config.jumps + 1, self.latents.channels, side, side)
        folder = self.context.out / f"ways-{self._key()}"
        with evaluating(self.unet, self.text):
            return remembered(folder, self.config.ways, shape, lambda numbers: self._paint(numbers, shape[1:]))

    def condition(self, ids: Tensor) -> Conditioning:
        """Token ids [B,T] -> what the teacher tells its network."""
        return condition(self.text, ids, self.context.device)

    def _paint(self, numbers: range, shape: tuple[int, ...]) -> Tensor:
        """Ways of these numbers; number k starts from the noise of generator k."""
        ids = self.ids[[min(k, self.config.ways - 1) for k in numbers]]
        with autocast(self.context.device, self.config):
            cond = self.condition(ids).to(dtype=torch.float32)
            uncond = self.condition(self.nothing).to(dtype=torch.float32)
        denoise = guided(
            network_denoiser(self.network, self.schedule, self.prediction), cond, uncond, self.config.guidance
        )
        noise = [torch.randn(shape, generator=generator(torch.device("cpu"), self.config.seed, 9, k)) for k in numbers]
        return follow(
            denoise, torch.stack(noise).to(self.context.device), self.schedule, self.config.jumps, self.config.between
        )

    def _loss(self, numbers: NDArray[np.int64], jump: NDArray[np.int64], network: Any) -> Tensor:
        """Squared error [B] of the network's output at the start of these ways' jumps."""
        rows, begin = torch.from_numpy(numbers), torch.from_numpy(jump)
        here, there = self.ways[rows, begin].float(), self.ways[rows, begin + 1].float()
        sigma, after = self.sigmas[begin], self.sigmas[begin + 1]
        wanted = from_x0(self.prediction, arrival(here, there, sigma, after, self.schedule), here, sigma, self.schedule)
        with autocast(self.context.device, self.config):
            cond = self.condition(self.ids[rows])
            output: Tensor = network(here, self.schedule.timestep(sigma), cond.tokens, vector=cond.vector)
        return (output.float() - wanted).square().flatten(1).mean(dim=1)

    def backward(self, step: int, progress: float) -> dict[str, Tensor]:
        world, config = self.context.world, self.config
        random = np.random.default_rng([config.seed, 10, step])
        numbers = random.integers(config.ways - HELD, size=config.batch_size)
        jumps = (np.arange(config.batch_size) + random.integers(config.jumps)) % config.jumps
        share = config.batch_size // world.size
        mine = slice(world.rank * share, (world.rank + 1) * share)
        with attention_with_gradients(self.context.device):
            loss = self._loss(numbers[mine], jumps[mine], self.run_unet).mean()
        loss.backward()  # type: ignore[no-untyped-call]
        return {"loss": loss.detach()}

    def validate(self) -> dict[str, float]:
        """Mean squared error of each jump on the ways that are held out."""
        numbers = np.arange(self.config.ways - HELD, self.config.ways)
        with evaluating(self.unet):
            losses = [
                float(self._loss(numbers, np.full(HELD, jump), self.unet).mean()) for jump in range(self.config.jumps)
            ]
        return {"heldout_loss": sum(losses) / len(losses), **{f"jump_{k}": loss for k, loss in enumerate(losses)}}

    def sheet(self) -> Image.Image:
        """The student's pictures of eight held-out ways, and under each the teacher's."""
        numbers = torch.arange(self.config.ways - 8, self.config.ways)
        with evaluating(self.unet), autocast(self.context.device, self.config):
            cond = self.condition(self.ids[numbers]).to(dtype=torch.float32)
        noise = self.ways[numbers, 0].float() / self.sigmas[0]
        with evaluating(self.unet):
            denoise = network_denoiser(self.network, self.schedule, self.prediction)
            x = integrate(lambda x, sigma: denoise(x, sigma, cond), noise, self.schedule, self.config.jumps)
            latent = self.latents.denormalise(torch.cat([x, self.ways[numbers, -1].float()]))
            pictures = torch.cat([self.vae.decode(part).float() for part in torch.split(latent, CHUNK)])
        return sheet(to_pictures(pictures), columns=8)


def arrival(here: Tensor, there: Tensor, sigma: Tensor, after: Tensor, schedule: Schedule) -> Tensor:
    """The estimate of the clean latent [B,c,h,w] with which one Euler step from `here` at sigma [B] ends in `there`.

    x' = a' D + s' (x - a D) / s, solved for D.
    """
    s, then = sigma.view(-1, 1, 1, 1), after.view(-1, 1, 1, 1)
    share = then / s
    solved: Tensor = (there - share * here) / (schedule.alpha(then) - share * schedule.alpha(s))
    return solved
