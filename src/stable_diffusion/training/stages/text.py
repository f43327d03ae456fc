"""Stage 2: the text encoder, learnt from pictures (contrastively, with an image tower) and from a sentence model.

Legend: B batch, T tokens, P embedding width, S teacher width.
Loss = contrastive (Radford et al. 2021, figure 3; or the sigmoid loss of Zhai et al. 2023) + cosine distance of a
linear head on the pooled text to the teacher's sentence vector + contrastive between the words of a lexicon and their
names. A Chinese caption's target is the mean of its record's English ones, which is how meaning crosses the languages.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor, nn

from ...errors import InvalidRequest
from ...models.clip import CLIPText, CLIPTextConfig
from ...models.image_tower import ImageTower, ImageTowerConfig
from ..config import DataConfig, TextStage
from ..data import Captions, Order, TrainingPack, encode_texts, load_tokenizer, special_ids, to_network
from ..optim import Group
from ..report import sheet
from ..stage import Context, autocast, evaluating, generator, maybe_compile, prepare, spread
from ..tables import build, to_table
from .lexicon import Lexicon, build_lexicon
from .negatives import wrong
from .teacher import WIDTH, sentence_vectors

CHUNK = 64
VALIDATION = 512


class Heads(nn.Module):
    """What contrastive and distillation losses need beside the towers; dropped after training."""

    def __init__(self, width: int, siglip: bool) -> None:
        super().__init__()
        self.teacher_head = nn.Linear(width, WIDTH)
        self.logit_scale = nn.Parameter(torch.tensor(math.log(10.0 if siglip else 1 / 0.07)))
        self.logit_bias = nn.Parameter(torch.tensor(-10.0 if siglip else 0.0))


class Wrong(NamedTuple):
    """Wrong captions: their pooled vectors [k, P], and the rows of the batch whose captions they falsify."""

    pooled: Tensor
    rows: list[int]


class TextTraining:
    """Modules "text" (CLIPText), "tower" (ImageTower) and "heads"."""

    def __init__(self, config: TextStage, context: Context) -> None:
        self.config, self.context = config, context
        self.tokenizer = load_tokenizer(context.pack.folder)
        self.text_config = text_config(self.tokenizer, config.text)
        self.text = prepare(CLIPText(self.text_config), context.device, config)
        self.text.requires_grad_(config.text_learning_rate > 0)
        width = self.text_config.width if self.text_config.projection_dim is None else self.text_config.projection_dim
        self.tower_config = build(ImageTowerConfig, {**config.tower, "projection_dim": width}, "tower")
        self.tower = prepare(ImageTower(self.tower_config), context.device, config)
        self.heads = Heads(width, config.contrastive == "siglip").to(context.device)
        self.run_text, self.run_tower = maybe_compile(self.text, config), maybe_compile(self.tower, config)
        self.rows = context.pack.select(config.data)
        self.order = Order(context.pack.weights(self.rows, config.data), config.seed)
        self.captions = Captions(context.pack, self.rows, self.tokenizer, self.text_config.context_length)
        self.identity = identities(context.pack, self.rows)
        self.targets = self._targets() if config.teacher == "minilm" else None
        self.lexicon = self._lexicon() if config.lexicon_weight > 0 else None

    @property
    def modules(self) -> dict[str, nn.Module]:
        return {"text": self.text, "tower": self.tower, "heads": self.heads}

    @property
    def averaged(self) -> dict[str, nn.Module]:
        return {"text": self.text, "tower": self.tower}

    @property
    def groups(self) -> list[Group]:
        rest = {name: module for name, module in self.modules.items() if name != "text"}
        return [Group("text", {"text": self.text}, self.config.text_learning_rate), Group("rest", rest)]

    @property
    def facts(self) -> dict[str, Any]:
        return {"text": to_table(self.text_config), "tower": to_table(self.tower_config)}

    def restore(self, facts: Mapping[str, Any]) -> None:
        """Nothing beyond the modules."""

    def _targets(self) -> NDArray[np.float16]:
        """Teacher vector of every caption [captions, S]."""
        texts, spans = self.captions.texts, self.captions.spans
        english = sorted({text for a, b, _, _ in spans for text in texts[a:b]})
        place = {text: row for row, text in enumerate(english)}
        cache, device = self.context.out / "teacher", self.context.device
        vectors = self.context.world.main_first(lambda: sentence_vectors(english, cache, device))
        targets = np.zeros((len(texts), WIDTH), dtype=np.float16)
        for first, middle, chinese, last in spans:
            own = vectors[[place[text] for text in texts[first:middle]]]
            if len(own):
                targets[first:middle] = own
                targets[chinese:last] = own.astype(np.float32).mean(axis=0)
        return targets

    def _lexicon(self) -> Lexicon:
        cache = self.context.out / "teacher" if self.config.teacher == "minilm" else None
        folder, device = self.context.pack.folder, self.context.device
        return self.context.world.main_first(lambda: build_lexicon(folder, cache, device))

    def pictures(self, pack_rows: NDArray[np.int64]) -> Tensor:
        raw = torch.from_numpy(self.context.pack.pictures(pack_rows)).to(self.context.device)
        return to_network(raw, self.config.size)

    def backward(self, step: int, progress: float) -> dict[str, Tensor]:
        world, config, device = self.context.world, self.config, self.context.device
        rows = self.order.batch(step, config.batch_size, world.rank, world.size)
        ids, numbers = self.captions.choose(
            rows,
            seed=config.seed,
            step=step,
            first=world.rank * len(rows),
            chinese=config.data.chinese,
            dropout=0.0,
        )
        ids, owner = self._with_negatives(ids, numbers, step)
        with autocast(device, config):
            read = self.run_text(self._cropped(ids).to(device)).pooled.float()
            seen = self.run_tower(self._jittered(self.pictures(self.rows[rows]), step)).embedding.float()
        pooled, wrongs = read[: len(rows)], Wrong(read[len(rows) :], owner)
        losses = {"contrastive": self._contrast(pooled, seen, self._names(rows, numbers), wrongs)}
        total = config.contrastive_weight * losses["contrastive"]
        if self.targets is not None:
            losses["teacher"] = self._distil(pooled, numbers)
            total = total + config.teacher_weight * losses["teacher"]
        if self.lexicon is not None:
            losses["lexicon"] = self._words(self.lexicon, step)
            total = total + config.lexicon_weight * losses["lexicon"]
        total.backward()  # type: ignore[no-untyped-call]
        return {key: value.detach() for key, value in {"loss": total, **losses}.items()}

    def _with_negatives(self, ids: Tensor, numbers: NDArray[np.int64], step: int) -> tuple[Tensor, list[int]]:
        """(ids [B + k, T] with k wrong captions at the end, the rows they belong to), for a `negatives` share of rows.

        What happens to a row depends on (seed, step, its place in the global batch) only.
        """
        texts: list[str] = []
        owner: list[int] = []
        first = self.context.world.rank * len(numbers)
        for row, number in enumerate(numbers):
            random = np.random.default_rng([self.config.seed, 7, step, first + row])
            chosen = number >= 0 and random.random() < self.config.negatives
            text = wrong(self.captions.texts[number], random) if chosen else None
            if text is not None:
                texts.append(text)
                owner.append(row)
        if not texts:
            return ids, owner
        extra = encode_texts(self.tokenizer, texts, self.text_config.context_length)
        return torch.cat([ids, torch.from_numpy(extra).to(ids.dtype)]), owner

    def _jittered(self, image: Tensor, step: int) -> Tensor:
        """Each picture shifted and scaled by up to `jitter` of its side; what comes in from outside is transparent."""
        amount = self.config.jitter
        if amount == 0:
            return image
        world, count = self.context.world, len(image)
        source = generator(image.device, self.config.seed, 8, step)
        drawn = torch.rand(count * world.size, 3, generator=source, device=image.device) * 2 - 1
        drawn = drawn[world.rank * count : (world.rank + 1) * count]
        scale = 1 + amount * drawn[:, 0]
        zero = torch.zeros_like(scale)
        move = 2 * amount * drawn[:, 1:]
        rows = torch.stack([scale, zero, move[:, 0], zero, scale, move[:, 1]], dim=1).view(-1, 2, 3)
        grid = F.affine_grid(rows, list(image.shape), align_corners=False)
        return F.grid_sample(image + 1, grid, align_corners=False) - 1  # zeros outside: -1 is transparent

    def _words(self, lexicon: Lexicon, step: int) -> Tensor:
        """Contrastive loss between words and their names, in sentences, over all ranks; each reads its share."""
        world, config = self.context.world, self.config
        share = max(1, config.lexicon // world.size)
        words, names, owner = lexicon.choose(share * world.size, seed=config.seed, step=step)
        mine = slice(world.rank * share, (world.rank + 1) * share)
        texts = [*words[mine], *names[mine]]
        ids = torch.from_numpy(encode_texts(self.tokenizer, texts, self.text_config.context_length)).long()
        with autocast(self.context.device, config):
            pooled = self.run_text(self._cropped(ids).to(self.context.device)).pooled.float()
        word, name = (world.gather(part) for part in F.normalize(pooled, dim=-1).chunk(2))
        twins = torch.from_numpy(owner[:, None] == owner[None, :]).to(word.device)
        scale = self.heads.logit_scale.exp().clamp(max=100.0)
        return softmax_loss(scale * word @ name.T, twins)

    def _cropped(self, ids: Tensor) -> Tensor:
        """ids [B,T] without the columns in which no row is before or at its end: causal attention never misses them."""
        longest = int((ids != self.text_config.eos_token_id).sum(dim=1).max())
        return ids[:, : longest + 1]

    def _names(self, rows: NDArray[np.int64], numbers: NDArray[np.int64]) -> Tensor:
        """[B,2]: what the picture is, and its caption; pairs that share either are no negatives."""
        texts = [hash_text(self.captions.texts[number]) if number >= 0 else 0 for number in numbers]
        return torch.from_numpy(np.stack([self.identity[rows], np.array(texts, dtype=np.int64)], axis=1))

    def _contrast(self, pooled: Tensor, seen: Tensor, names: Tensor, wrongs: Wrong) -> Tensor:
        """Over the global batch; every rank's rows are pulled together with their gradients."""
        world = self.context.world
        text, own = world.gather(F.normalize(pooled, dim=-1)), F.normalize(seen, dim=-1)
        image, names = world.gather(own), world.gather(names.to(self.context.device))
        scale = self.heads.logit_scale.exp().clamp(max=100.0)
        if self.config.contrastive == "siglip":
            loss = sigmoid_loss(scale * text @ image.T + self.heads.logit_bias, same(names))
        else:
            loss = softmax_loss(scale * text @ image.T, same(names))
        if wrongs.rows:
            right, other = (F.normalize(part, dim=-1) for part in (pooled[wrongs.rows], wrongs.pooled))
            margin = scale * (own[wrongs.rows] * (right - other)).sum(dim=-1)
            expected = self.config.negatives * len(own)  # not the number found: ranks would weigh theirs differently
            loss = loss + F.softplus(-margin).sum() / expected
        return loss

    def _distil(self, pooled: Tensor, numbers: NDArray[np.int64]) -> Tensor:
        """Mean of 1 - cosine."""
        assert self.targets is not None
        target = torch.from_numpy(self.targets[numbers]).to(self.context.device).float()
        return (1 - F.cosine_similarity(self.heads.teacher_head(pooled), target, dim=-1)).mean()

    def _embed(self, pack_rows: NDArray[np.int64], captions: Captions) -> tuple[Tensor, Tensor, Tensor]:
        """Unit vectors [N,P] of the pictures, of their first English and of their first Chinese captions."""
        device, parts = self.context.device, []
        empty = captions.empty
        for start in range(0, len(pack_rows), CHUNK):
            spans = captions.spans[start : start + CHUNK]
            english = torch.stack([captions.ids[a] if b > a else empty for a, b, _, _ in spans])
            chinese = torch.stack([captions.ids[c] if d > c else empty for _, _, c, d in spans])
            with autocast(device, self.config):
                image = self.tower(self.pictures(pack_rows[start : start + CHUNK])).embedding
                text = [self.text(ids.long().to(device)).pooled for ids in (english, chinese)]
            parts.append(torch.stack([F.normalize(part.float(), dim=-1) for part in (image, *text)]))
        image, first, second = torch.cat(parts, dim=1)
        return image, first, second

    def validate(self) -> dict[str, float]:
        """Share of held-out records whose picture is the nearest of all to its caption (of up to 512)."""
        pack_rows = held_out(self.context.pack, self.config.data, VALIDATION)
        captions = Captions(self.context.pack, pack_rows, self.tokenizer, self.text_config.context_length)
        with evaluating(self.text, self.tower):
            image, english, chinese = self._embed(pack_rows, captions)
        return {
            "recall_en": _recall(english, image),
            "recall_zh": _recall(chinese, image),
            "en_zh_cosine": float((english * chinese).sum(dim=-1).mean()),
        }

    def sheet(self) -> Image.Image:
        """For 16 held-out captions, the six nearest held-out pictures; the caption is the label of the first."""
        pack = self.context.pack
        pack_rows = held_out(pack, self.config.data, VALIDATION)
        captions = Captions(pack, pack_rows, self.tokenizer, self.text_config.context_length)
        with evaluating(self.text, self.tower):
            image, english, _ = self._embed(pack_rows, captions)
        queries = spread(np.arange(len(pack_rows)), 16)
        count = min(6, len(pack_rows))
        nearest = (english[torch.from_numpy(queries)] @ image.T).topk(count, dim=1).indices.cpu().numpy()
        labels = [_label(captions, int(query)) if column == 0 else "" for query in queries for column in range(count)]
        return sheet(pack.pictures(pack_rows[nearest.reshape(-1)]), columns=count * 2, labels=labels)


def _label(captions: Captions, row: int) -> str:
    return captions.texts[int(captions.spans[row][0])] if captions.texts else ""


def text_config(tokenizer: Any, table: Mapping[str, Any]) -> CLIPTextConfig:
    """The config table completed with what the tokenizer says: vocabulary size and end token."""
    _, end = special_ids(tokenizer)
    known = {"vocab_size": tokenizer.get_vocab_size(), "eos_token_id": end, "context_length": 32}
    return build(CLIPTextConfig, {**known, **table}, "text")


def identities(pack: TrainingPack, rows: NDArray[np.int64]) -> NDArray[np.int64]:
    """One number per (concept, style)."""
    return np.array([hash_text(f"{pack.records[r].concept}\n{pack.records[r].style}") for r in rows], dtype=np.int64)


def hash_text(text: str) -> int:
    """A number that is the same in every process."""
    import hashlib

    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=7).digest(), "big")


def same(names: Tensor) -> Tensor:
    """Bool [B,B]: pairs that share the picture's identity or the caption (the diagonal always)."""
    return (names[:, None, :] == names[None, :, :]).any(dim=-1)


def softmax_loss(logits: Tensor, same_pairs: Tensor) -> Tensor:
    """Symmetric cross-entropy [B,B] -> scalar; pairs that mean the same are taken out of the denominators."""
    hide = same_pairs & ~torch.eye(len(logits), dtype=torch.bool, device=logits.device)
    logits = logits.masked_fill(hide, float("-inf"))
    wanted = torch.arange(len(logits), device=logits.device)
    return 0.5 * (F.cross_entropy(logits, wanted) + F.cross_entropy(logits.T, wanted))


def sigmoid_loss(logits: Tensor, same_pairs: Tensor) -> Tensor:
    """Zhai et al. 2023, algorithm 1: every pair is a yes-or-no question; summed over pairs, per row."""
    signs = torch.where(same_pairs, 1.0, -1.0)
    return -F.logsigmoid(signs * logits).sum() / len(logits)


def held_out(pack: TrainingPack, data: DataConfig, count: int) -> NDArray[np.int64]:
    """At most `count` held-out records, evenly spaced; training records where the pack holds none out."""
    try:
        rows = pack.select(data, "heldout")
    except InvalidRequest:
        rows = pack.select(data)
    return spread(rows, count)


def _recall(queries: Tensor, keys: Tensor) -> float:
    best = (queries @ keys.T).argmax(dim=1)
    return float((best == torch.arange(len(keys), device=keys.device)).float().mean())
