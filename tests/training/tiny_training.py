"""A tiny pack of coloured discs with captions in two languages, and tiny settings for every stage."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np

COLOURS = {
    "red": ("红色", (220, 40, 40)),
    "green": ("绿色", (40, 200, 60)),
    "blue": ("蓝色", (50, 80, 230)),
    "yellow": ("黄色", (240, 220, 40)),
}
VAE = {
    "latent_channels": 3,
    "channels": [8, 16],
    "blocks_per_stage": 1,
    "decoder_blocks": 1,
    "mid_attention": False,
    "quant_conv": False,
    "patch_size": 2,
    "groups": 4,
}
TEXT = {"width": 16, "layers": 1, "heads": 2, "mlp_width": 24, "context_length": 12, "activation": "gelu"}
UNET = {"channels": [16, 24], "blocks_per_stage": 1, "transformer_depth": [0, 1], "heads": 2, "groups": 4}
COMMON: dict[str, Any] = {
    "size": 16,
    "batch_size": 4,
    "precision": "float32",
    "log_every": 1,
    "optimiser.warmup_steps": 2,
    "optimiser.name": "muon",
}
STAGE_SETTINGS: dict[str, dict[str, Any]] = {
    "vae": {"vae": VAE, "validation_count": 4, "statistics_count": 8, "adversarial_after": 0.4, "equivariance": 0.3},
    "text": {
        "teacher": "none",
        "text": TEXT,
        "tower": {"channels": [8, 12], "groups": 4},
        "lexicon_weight": 0.5,
        "lexicon": 6,
        "negatives": 0.6,
        "jitter": 0.1,
    },
    "denoiser": {"unet": UNET, "sample_steps": 2, "prompts": ["a red disc", "蓝色圆"], "data.caption_dropout": 0.2},
    "joint": {"sample_steps": 2, "prompts": ["a red disc"]},
    "student": {},
}


def disc(size: int, colour: tuple[int, int, int], radius: float) -> np.ndarray:
    y, x = np.mgrid[:size, :size] - (size - 1) / 2
    picture = np.zeros((size, size, 4), dtype=np.uint8)
    picture[..., :3] = colour
    picture[..., 3] = np.where(np.hypot(x, y) < radius, 255, 0)
    return picture


def write_pack(folder: Path, size: int = 16) -> Path:
    """Two shards: filled discs (kind object, style flat or bold), smaller ones (kind glyph); every fifth held out."""
    number = 0
    for shard, (kind, radii) in {"a": ("object", (5.0, 7.0)), "b": ("glyph", (2.0, 3.0, 4.0))}.items():
        pictures, lines = [], []
        for english, (chinese, colour) in COLOURS.items():
            for radius in radii:
                number += 1
                style = "flat" if number % 2 else "bold"
                pictures.append(disc(size, colour, radius))
                fields = {
                    "id": f"{english}-{radius}",
                    "source": "drawn",
                    "licence": "CC0",
                    "kind": kind,
                    "concept": f"{english} disc",
                    "style": style,
                    "colour": english,
                    "split": "heldout" if number % 5 == 0 else "train",
                    "captions": {"en": [f"a {english} disc", f"{english}, {style}"], "zh": [f"{chinese}圆"]},
                }
                lines.append(json.dumps(fields, ensure_ascii=False))
        (folder / shard).mkdir(parents=True)
        np.save(folder / shard / "images.npy", np.stack(pictures))
        (folder / shard / "records.jsonl").write_text("\n".join(lines) + "\n", encoding="utf-8")
    shards = [{"path": "a", "count": 8}, {"path": "b", "count": 12}]
    (folder / "pack.json").write_text(json.dumps({"size": size, "shards": shards, "sources": []}))
    write_tokenizer(folder / "tokenizer.json")
    rows = [("crimson", "red disc"), ("scarlet", "red disc"), ("azure", "blue disc"), ("emerald", "green disc")]
    (folder / "lexicon.tsv").write_text("".join(f"{word}\t{name}\n" for word, name in rows) + "abacus\t\n")
    return folder


def write_tokenizer(path: Path) -> None:
    """Byte-level, one token a byte, and the two marks."""
    from tokenizers import Tokenizer, models, pre_tokenizers

    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    vocabulary = {piece: number for number, piece in enumerate([*alphabet, "<|startoftext|>", "<|endoftext|>"])}
    tokenizer = Tokenizer(models.BPE(vocab=vocabulary, merges=[]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.save(str(path))


def settings(stage: str, runs: dict[str, Path], **more: Any) -> dict[str, Any]:
    """Overrides for a tiny run of `stage`."""
    chosen = {**COMMON, **STAGE_SETTINGS[stage], **more}
    if stage == "denoiser":
        chosen |= {"vae_run": str(runs["vae"]), "text_run": str(runs["text"])}
    if stage == "joint":
        chosen |= {"denoiser_run": str(runs["denoiser"])}
    return chosen
