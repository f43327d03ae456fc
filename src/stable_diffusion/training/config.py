"""Training settings: frozen dataclasses, one per stage, read from TOML and overridden by `key=value` pairs.

A file holds the stage's own keys at the top, and the tables [data], [optimiser] and one table per model (for example
[vae]), whose keys are those of the model's own config class. Every unknown key is an error that names the nearest one.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from stable_diffusion.errors import InvalidRequest, unknown_choice
from stable_diffusion.training.tables import build, parse_pair, put, read_toml


@dataclass(frozen=True, kw_only=True)
class DataConfig:
    """Which records are drawn, how often, and which of their captions.

    kinds, styles, concepts, shards: keep only these (empty: all; * and ? in concepts as in file names); exclude_styles:
    leave these out. weights: how often a kind, style, source, concept or shard is drawn relative to 1.0 (products where
    several match; * and ? as in file names). chinese: share of Chinese captions where a record has both.
    caption_dropout: share of empty captions. limit: first N records only (0: all).
    """

    kinds: tuple[str, ...] = ()
    styles: tuple[str, ...] = ()
    concepts: tuple[str, ...] = ()
    shards: tuple[str, ...] = ()
    exclude_styles: tuple[str, ...] = ()
    weights: dict[str, float] = field(default_factory=dict)
    chinese: float = 0.35
    caption_dropout: float = 0.0
    limit: int = 0


@dataclass(frozen=True, kw_only=True)
class OptimiserConfig:
    """AdamW, or Muon for hidden matrices with AdamW for the rest; warm-up, then `schedule` over the whole plan.

    schedule: "wsd" holds the rate and goes linearly to `final` of it in the last `decay_fraction` of the steps;
    "cosine" follows half a cosine; "constant" holds. clip: global gradient norm (0: off).
    """

    name: str = "adamw"
    learning_rate: float = 1e-3
    muon_learning_rate: float = 0.01
    betas: tuple[float, float] = (0.9, 0.99)
    epsilon: float = 1e-8
    weight_decay: float = 0.01
    momentum: float = 0.95
    warmup_steps: int = 100
    schedule: str = "wsd"
    decay_fraction: float = 0.25
    final: float = 0.02
    clip: float = 1.0

    def __post_init__(self) -> None:
        _choice("optimiser name", self.name, ("adamw", "muon"))
        _choice("learning-rate schedule", self.schedule, ("wsd", "cosine", "constant"))


@dataclass(frozen=True, kw_only=True)
class StageConfig:
    """What every stage has. steps: end of the plan counted over all invocations (None: the time budget decides).

    total_minutes: training time over all invocations that the learning-rate plan spans (None: this invocation's).
    precision: "bf16", "float32" or "auto", which is bf16 where the machine is faster in it. threads: CPU threads (0:
    torch's choice). Minutes are wall-clock.
    start_from: a model file or run folder whose weights a new run begins with, start_parts: which of its modules take
    them (empty: all that the source has).
    """

    seed: int = 0
    size: int = 128
    batch_size: int = 32
    steps: int | None = None
    total_minutes: float | None = None
    precision: str = "auto"
    channels_last: bool = False
    compile: bool = False
    threads: int = 0
    ema: float = 0.999
    log_every: int = 10
    checkpoint_minutes: float = 5.0
    sample_minutes: float = 10.0
    start_from: str = ""
    start_parts: tuple[str, ...] = ()
    data: DataConfig = field(default_factory=DataConfig)
    optimiser: OptimiserConfig = field(default_factory=OptimiserConfig)

    def __post_init__(self) -> None:
        _choice("precision", self.precision, ("auto", "bf16", "float32"))
        for name in ("size", "batch_size", "log_every"):
            if getattr(self, name) < 1:
                raise InvalidRequest(f"{name} = {getattr(self, name)} must be at least 1")
        if not 0.0 <= self.ema < 1.0:
            raise InvalidRequest(f"ema = {self.ema} must be at least 0 and less than 1")


@dataclass(frozen=True, kw_only=True)
class VAEStage(StageConfig):
    """KL autoencoder. Loss weights are per element (means), so they do not depend on size or batch.

    adversarial_after: share of the plan after which the patch discriminator joins (1: never). equivariance: share of
    steps that decode the halved latent and compare it with the halved picture, which smooths the latent space (EQ-VAE,
    arXiv:2502.09509).
    """

    gradient_weight: float = 1.0
    ssim_weight: float = 0.0
    kl_weight: float = 1e-4
    equivariance: float = 0.25
    adversarial_weight: float = 0.1
    adversarial_after: float = 1.0
    discriminator_channels: int = 32
    validation_count: int = 256
    statistics_count: int = 2048
    vae: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class TextStage(StageConfig):
    """Text encoder and image tower. contrastive: "clip" (softmax) or "siglip". Teacher: "minilm" or "none".

    lexicon_weight: of the loss that brings words of the pack's lexicon.tsv to the names that captions use, `lexicon`
    words a step. negatives: share of captions that are repeated with one word wrong (a colour, number or relation).
    jitter: pictures are shifted and scaled by up to this share of their side. text_learning_rate: share of the tower's
    rate at which the text encoder is trained (0: frozen, so that the tower learns to see for one that is in use).
    """

    size: int = 64
    batch_size: int = 128
    contrastive: str = "clip"
    contrastive_weight: float = 1.0
    teacher: str = "minilm"
    teacher_weight: float = 1.0
    lexicon_weight: float = 0.0
    lexicon: int = 128
    negatives: float = 0.0
    jitter: float = 0.0
    text_learning_rate: float = 1.0
    text: dict[str, Any] = field(default_factory=dict)
    tower: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        super().__post_init__()
        _choice("contrastive loss", self.contrastive, ("clip", "siglip"))
        _choice("teacher", self.teacher, ("minilm", "none"))
        if not 0.0 <= self.jitter <= 0.5:
            raise InvalidRequest(f"jitter = {self.jitter} must be from 0 to 0.5")
        if self.lexicon < 1 or not 0.0 <= self.negatives <= 1.0:
            raise InvalidRequest(
                f"lexicon = {self.lexicon} must be at least 1, and negatives = {self.negatives} from 0 to 1"
            )


@dataclass(frozen=True, kw_only=True)
class DenoiserStage(StageConfig):
    """Denoiser on cached latents. vae_run, text_run: run folders of the earlier stages, or
    a model file that holds them.

    text_learning_rate: share of the denoiser's rate at which the text encoder is trained jointly (0: frozen).
    times: "logit_normal" or "uniform"; weighting: "none" or "min_snr". high_noise_share: share of each batch whose
    noise level is uniform from high_noise_from to 1 instead, where the shape of a picture is decided. prompts: what the
    sample sheet shows. latent_cache: folder of the latents that several runs share (empty: the run's own).
    """

    vae_run: str = ""
    text_run: str = ""
    prediction: str = "flow"
    times: str = "logit_normal"
    time_mean: float = 0.0
    time_std: float = 1.0
    shift: float = 1.0
    weighting: str = "none"
    high_noise_share: float = 0.0
    high_noise_from: float = 0.8
    latent_cache: str = ""
    text_learning_rate: float = 0.3
    guidance: float = 3.5
    sample_steps: int = 20
    prompts: tuple[str, ...] = (
        "a red apple",
        "a cat face",
        "a blue car",
        "a smiling face with sunglasses",
        "a house",
        "a green tree",
        "a birthday cake",
        "a beautiful sunset over the ocean",
        "a castle on a hill at night with stars",
        "海上的日落",
        "一只可爱的小狗",
        "红色的花",
    )
    unet: dict[str, Any] = field(default_factory=dict)
    text: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        super().__post_init__()
        _choice("prediction", self.prediction, ("eps", "v", "flow", "x0"))
        _choice("time distribution", self.times, ("logit_normal", "uniform"))
        _choice("loss weighting", self.weighting, ("none", "min_snr"))
        if not 0.0 <= self.high_noise_share <= 1.0:
            raise InvalidRequest(f"high_noise_share = {self.high_noise_share} must be from 0 to 1")
        if not 0.0 <= self.high_noise_from < 1.0:
            raise InvalidRequest(f"high_noise_from = {self.high_noise_from} must be at least 0 and less than 1")


@dataclass(frozen=True, kw_only=True)
class JointStage(DenoiserStage):
    """Any set of parts trained end to end from finished runs. parts: "text", "denoiser", "decoder"."""

    denoiser_run: str = ""
    parts: tuple[str, ...] = ("text", "denoiser", "decoder")
    decoder_weight: float = 1.0
    decoder_learning_rate: float = 0.1

    def __post_init__(self) -> None:
        super().__post_init__()
        for part in self.parts:
            _choice("part", part, ("text", "denoiser", "decoder"))


@dataclass(frozen=True, kw_only=True)
class StudentStage(StageConfig):
    """A few-step student of a model file, `teacher`, as low-rank changes of its U-Net.

    jumps: steps that the student takes. between: steps of the teacher to each of them, with `guidance`. ways: pictures
    that the teacher paints first, of captions that [data] chooses. rank: of the changes.
    """

    teacher: str = ""
    jumps: int = 4
    between: int = 5
    guidance: float = 3.0
    ways: int = 1536
    rank: int = 16

    def __post_init__(self) -> None:
        super().__post_init__()
        for name in ("jumps", "between", "rank"):
            if getattr(self, name) < 1:
                raise InvalidRequest(f"{name} = {getattr(self, name)} must be at least 1")


STAGES: dict[str, type[StageConfig]] = {
    "vae": VAEStage,
    "text": TextStage,
    "denoiser": DenoiserStage,
    "joint": JointStage,
    "student": StudentStage,
}


def load_config(
    stage: str, path: str | Path | None = None, overrides: Sequence[str] | Mapping[str, Any] = ()
) -> StageConfig:
    """Settings of `stage` from a TOML file and overrides ("batch_size=32", "data.chinese=0.5" or a mapping of these).

    Raises InvalidRequest for an unknown stage or key, a value of the wrong type, or a file that is not TOML.
    """
    if stage not in STAGES:
        raise unknown_choice("training stage", stage, STAGES)
    table = read_toml(path) if path is not None else {}
    pairs = overrides.items() if isinstance(overrides, Mapping) else map(parse_pair, overrides)
    for key, value in pairs:
        put(table, key.split("."), value)
    return build(STAGES[stage], table, stage)


def _choice(what: str, given: str, choices: Sequence[str]) -> None:
    if given not in choices:
        raise unknown_choice(what, given, choices)
