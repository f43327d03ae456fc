"""A file with an image tower and the text encoder that it was trained with: it judges models, and training can go on.

safetensors with metadata `format` = `FORMAT`, `config` (JSON: tower, text, size) and `tokenizer` (the text of a
tokenizer.json); tensors under `tower.` and `text.`, packed as `weights.packing` packs them. Where the tower was trained
with the text encoder of the embedded model, the file may leave that and the tokenizer out: metadata `text` is then
"embedded" and `text_hash` says which text encoder that was.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor

from ..embedded import model_path
from ..errors import BrokenModel, ModelFileError
from ..models.clip import CLIPText, CLIPTextConfig
from ..weights.build import build
from ..weights.containers.packing import unpack
from ..weights.containers.safetensors import read_safetensors
from ..weights.load import load_parts

FORMAT = "stable_diffusion.tower.v1"
EMBEDDED = "embedded"
"""The value of `text` where the text encoder is the embedded model's."""


@dataclass(frozen=True, eq=False, kw_only=True)
class TowerFile:
    """What a file holds. `config`: tower, text (empty where the text encoder is the embedded model's), size."""

    path: Path
    config: Mapping[str, Any]
    metadata: Mapping[str, str]
    tensors: Mapping[str, Tensor]

    @property
    def tower(self) -> dict[str, Tensor]:
        """The image tower's tensors."""
        return under(self.path, self.tensors, ["tower."])

    def text(self) -> tuple[CLIPText, str]:
        """The text encoder and the text of its tokenizer.json, from the file or from the embedded model.

        BrokenModel where the embedded model now has another text encoder than the tower was made for.
        """
        if self.metadata.get("text") != EMBEDDED:
            config = CLIPTextConfig.from_dict(self.config["text"])
            own = under(self.path, self.tensors, ["text."])
            clip = network(CLIPText, config, own, f"the text encoder of {self.path}")
            return clip, self.metadata.get("tokenizer", "")
        clip, text = embedded_text()
        if self.metadata.get("text_hash") != text_hash(clip, text):
            raise BrokenModel(f"{self.path} was made for the text encoder of another embedded model than this one")
        return clip, text


def read_tower_file(path: Path) -> TowerFile | None:
    """The tower file at `path`, None where the file is of another kind; BrokenModel where its config is damaged."""
    tensors, metadata = read_safetensors(path)
    if metadata.get("format") != FORMAT:
        return None
    try:
        config = json.loads(metadata["config"])
        text = {} if metadata.get("text") == EMBEDDED else dict(config["text"])
        checked = {"tower": dict(config["tower"]), "text": text, "size": int(config["size"])}
    except (KeyError, ValueError, TypeError, RecursionError) as error:
        raise BrokenModel(f"{path} is a tower file, but its config is missing or damaged ({error!r})") from None
    return TowerFile(path=path, config=checked, metadata=metadata, tensors=tensors)


def embedded_text() -> tuple[CLIPText, str]:
    """The embedded model's text encoder in float32, and the text of its tokenizer.json."""
    path = model_path()
    parts = None if path is None else load_parts(path)
    if parts is None or parts.tokenizer.json is None:
        raise ModelFileError(
            "there is no embedded model with a tokenizer of its own, so no tower can share its text encoder"
        )
    return parts.clip, parts.tokenizer.json


def text_hash(clip: CLIPText, tokenizer: str) -> str:
    """sha256 of a text encoder's numbers in float32 and of its tokenizer."""
    digest = hashlib.sha256(tokenizer.encode())
    for name, tensor in sorted(clip.state_dict().items()):
        digest.update(name.encode())
        digest.update(tensor.float().cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()


def under(file: Path, tensors: Mapping[str, Tensor], prefixes: Sequence[str]) -> dict[str, Tensor]:
    """The tensors under the first prefix that has any, without it, unpacked; BrokenModel where none has."""
    for prefix in prefixes:
        found = {name[len(prefix) :]: tensors[name] for name in tensors if name.startswith(prefix)}
        if found:
            return unpack(found)
    raise BrokenModel(f"{file} holds no tensors under {' or '.join(prefixes)}")


def network(make: Any, config: Any, tensors: Mapping[str, Tensor], what: str) -> Any:
    """`make(config)` with these tensors, which have the module's own names."""
    return build(lambda: make(config), tensors, None, what=what)
