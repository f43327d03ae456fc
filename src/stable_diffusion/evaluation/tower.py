"""The eye that judges: an image tower and the text encoder that it was trained with, and their tokenizer.

Two sources: the folder of a text-stage training run (its checkpoint holds both networks; the tokenizer comes from the
data pack), and one file that `save_eye` writes from it, in the format of `data.tower_file`.

Legend: B pictures or sentences, P embedding width, D channels of the feature map.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

from ..data.tower_file import EMBEDDED, FORMAT, embedded_text, network, read_tower_file, text_hash, under
from ..errors import BrokenModel, InvalidRequest, ModelFileError, unknown_choice
from ..models.clip import CLIPText, CLIPTextConfig
from ..models.image_tower import ImageTower, ImageTowerConfig
from ..text.tokenizer import Tokenizer
from ..weights.containers.hashes import sha256
from ..weights.containers.packing import pack
from ..weights.containers.safetensors import read_safetensors, write_safetensors
from .pack import resized
from .words import table

RUN_FORMAT = "stable_diffusion.training.v1"
CHUNK = 64
ALIKE = 0.98
"""Cosine above which two text encoders read a word alike: what packing to 8 bits changes stays well above it."""


VIEWS = ((1.0, 0.0), (1.08, 0.0), (0.94, 0.0), (1.0, 0.06), (1.0, -0.06))
"""Share of the side that is seen, and how far its middle is off the picture's, in half sides, right and down. All lie
within the shifts and scales that the tower was trained with."""


class Seen(NamedTuple):
    """`embedding` [B,P]: unit vectors to compare with sentences, the direction of the mean over five views (as
    Krizhevsky et al. 2012, section 4.1, average a classifier's answers); `features` [B,D]: the feature map's means."""

    embedding: Tensor
    features: Tensor


@dataclass(frozen=True, eq=False, kw_only=True)
class Eye:
    """An image tower with its text encoder; `size` is the side of the pictures that it was trained on."""

    tower: ImageTower
    text: CLIPText
    tokenizer: Tokenizer
    tokenizer_json: str
    size: int
    name: str
    hash: str | None = None

    @torch.no_grad()
    def look(self, pictures: Tensor) -> Seen:
        """Straight pictures [B, 3 or 4, H, W] from 0 to 1 -> Seen; three channels count as opaque."""
        embeddings, features = [], []
        for rows in torch.split(pictures, CHUNK):
            prepared = self._prepared(rows)
            views = [self.tower(_view(prepared, *view)) for view in VIEWS]
            found = torch.stack([F.normalize(view.embedding.float(), dim=-1) for view in views]).mean(dim=0)
            embeddings.append(F.normalize(found, dim=-1))
            features.append(views[0].features.float().mean(dim=(2, 3)))
        return Seen(torch.cat(embeddings), torch.cat(features))

    def _prepared(self, pictures: Tensor) -> Tensor:
        """[B,4,size,size] premultiplied, from -1 to 1, as in training."""
        if pictures.shape[1] == 3:
            pictures = torch.cat([pictures, torch.ones_like(pictures[:, :1])], dim=1)
        pictures = resized(pictures, self.size)
        alpha = pictures[:, 3:]
        return torch.cat([pictures[:, :3] * alpha, alpha], dim=1) * 2 - 1

    @torch.no_grad()
    def read(self, sentences: Sequence[str]) -> Tensor:
        """Sentences -> unit vectors [B,P]; what does not fit in the window is cut."""
        ids = [self.tokenizer.window(self.tokenizer.encode(text)[: self.tokenizer.capacity]) for text in sentences]
        parts = [self.text(rows).pooled for rows in torch.split(torch.tensor(ids), CHUNK)]
        return F.normalize(torch.cat(parts).float(), dim=-1)


def _view(image: Tensor, scale: float, shift: float) -> Tensor:
    """[B,4,R,R] premultiplied from -1 to 1, seen nearer or from aside; what comes in from outside is transparent."""
    if (scale, shift) == (1.0, 0.0):
        return image
    rows = torch.tensor([[scale, 0.0, shift], [0.0, scale, shift]]).expand(len(image), 2, 3)
    grid = F.affine_grid(rows, list(image.shape), align_corners=False)
    return F.grid_sample(image + 1, grid, align_corners=False) - 1


def load_eye(path: str | Path, *, tokenizer: str | None = None) -> Eye:
    """The eye of a file of `save_eye`, or of a text-stage run folder or checkpoint with the pack's `tokenizer` text.

    InvalidRequest where there is no such file or a run comes without tokenizer, BrokenModel where its content does not
    fit together, or where it was made for a text encoder that the embedded model no longer has.
    """
    file = Path(path) / "checkpoint.safetensors" if Path(path).is_dir() else Path(path)
    if not file.is_file():
        raise InvalidRequest(
            f"there is no image tower {str(path)!r}: expected a tower file, or the folder of a text-stage training run"
        )
    stored = read_tower_file(file)
    if stored is None:
        config, own, clip, text = _of_run(file, tokenizer)
    else:
        config, own, (clip, text) = stored.config, stored.tower, stored.text()
    if not text:
        raise InvalidRequest(f"{file} holds no tokenizer: give the data pack that it was trained on as well")
    tower = network(ImageTower, ImageTowerConfig.from_dict(config["tower"]), own, f"the tower of {file}")
    return Eye(
        tower=tower,
        text=clip,
        tokenizer=_tokenizer(text, clip, file),
        tokenizer_json=text,
        size=int(config["size"]),
        name=Path(path).stem,
        hash=sha256(file)[:10],
    )


def save_eye(path: str | Path, eye: Eye, *, dtype: str = "float16", text: str = "own") -> Path:
    """Write an eye to one file; dtype as in `weights.packing`.

    `text` is "own", so that nothing is needed beside the file, or "embedded": then the embedded model's text encoder is
    used, and it must read alike. InvalidRequest where it does not.
    """
    if text not in ("own", EMBEDDED):
        raise unknown_choice("text of a tower file", text, ("own", EMBEDDED))
    state = {f"tower.{name}": tensor for name, tensor in eye.tower.state_dict().items()}
    config: dict[str, Any] = {"tower": eye.tower.config.to_dict(), "size": eye.size}
    if text == EMBEDDED:
        more = {"text": EMBEDDED, "text_hash": _check_alike(eye)}
    else:
        state |= {f"text.{name}": tensor for name, tensor in eye.text.state_dict().items()}
        config["text"] = eye.text.config.to_dict()
        more = {"tokenizer": eye.tokenizer_json}
    metadata = {"format": FORMAT, "config": json.dumps(config, sort_keys=True), **more}
    write_safetensors(Path(path), pack(state, dtype), metadata)
    return Path(path)


def _check_alike(eye: Eye) -> str:
    """The hash of the embedded text encoder, if it reads English and Chinese words as this eye's own does."""
    clip, text = embedded_text()
    words = [word for row in table("nouns") for word in (row[0], row[2])]
    other = replace(eye, text=clip, tokenizer=_tokenizer(text, clip, Path("the embedded model")))
    first, second = eye.read(words), other.read(words)
    cosine = float((first * second).sum(dim=1).min()) if first.shape == second.shape else -1.0
    if cosine < ALIKE:
        raise InvalidRequest(
            "the tower was trained with another text encoder than the embedded model's: they read a word with a cosine "
            f"of {cosine:.3f}, expected {ALIKE} or more; save it with a text encoder of its own"
        )
    return text_hash(clip, text)


def _tokenizer(text: str, clip: CLIPText, file: Path) -> Tokenizer:
    reader = Tokenizer.from_json(text, context_length=clip.config.context_length)
    if reader.vocab_size != clip.config.vocab_size or reader.eos != clip.config.eos_token_id:
        raise BrokenModel(
            f"the tokenizer has {reader.vocab_size} tokens, the text encoder of {file} was trained with "
            f"{clip.config.vocab_size}: they do not belong together"
        )
    return reader


def _of_run(file: Path, tokenizer: str | None) -> tuple[Mapping[str, Any], dict[str, Tensor], CLIPText, str]:
    """(config, the tower's tensors, text encoder, tokenizer) of a text stage's checkpoint, its averaged weights."""
    tensors, metadata = read_safetensors(file)
    kind = metadata.get("format")
    if kind != RUN_FORMAT:
        raise ModelFileError(f"{file} has the format {kind!r}; expected a tower file or the checkpoint of a text stage")
    config = _run_config(file, metadata)
    tower, text = (under(file, tensors, [f"ema.{part}.", f"model.{part}."]) for part in ("tower", "text"))
    clip = network(CLIPText, CLIPTextConfig.from_dict(config["text"]), text, f"the text encoder of {file}")
    return config, tower, clip, tokenizer or ""


def _run_config(file: Path, metadata: Mapping[str, str]) -> dict[str, Any]:
    try:
        state = json.loads(metadata["state"])
        stage, facts = state["stage"], state["facts"]
        if stage == "text":
            return {"tower": facts["tower"], "text": facts["text"], "size": int(state["config"]["size"])}
    except (KeyError, ValueError, TypeError, RecursionError) as error:
        raise BrokenModel(f"{file} is a training checkpoint, but its state is damaged ({error!r})") from None
    raise InvalidRequest(f"{file} is the checkpoint of the stage {stage!r}; expected one of the stage 'text'")
