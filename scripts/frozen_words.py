"""Cases of `frozen`: the grammar of prompts, styles, wildcards and textual inversion; and the embedded models."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from frozen_paint import Case
from frozen_shop import Shop, noise, picture

LONG = "a red cat on a green mat, " * 14
PROMPTS = {
    "plain": "a cat",
    "weights": "a ((cat)) on [a mat], (red:1.4) and (blue:0.3)",
    "nested": "(a (cat:1.5) on a (mat:0.5):1.2)",
    "escaped": r"a \(cat\) \[here\] (blue:1.2)",
    "unclosed": "a (cat on [a mat",
    "negative-weight": "a (cat:-1.0) and (zero:0)",
    "from-to": "a [cat:dog:0.5]",
    "from-to-step": "a [cat:dog:2]",
    "appears": "a [cat:0.4] and [:dog:2]",
    "disappears": "a [cat::0.4]",
    "alternating": "a [cat|dog|bird] here",
    "nested-schedule": "a [[cat|dog]:(bird:1.3):0.6]",
    "and": "a cat AND a dog",
    "and-weights": "a cat :1.2 AND a dog :-0.3 AND a bird",
    "and-schedule": "a [cat:dog:0.5] AND a tree:0.5",
    "break": "a cat BREAK a dog BREAK a bird",
    "long": LONG,
    "long-break": f"a cat BREAK {LONG}",
    "comma": "a cat, " * 26,
    "chinese": "一只红色的猫, a (red:1.2) 苹果",
    "unicode": "a café 🌅 naïve ﬁsh",
    "newlines": "a cat\non a mat\r\nin a hat",
    "choice": "a {cat|dog|bird|fish} and {2::red|green}",
    "choice-count": "a {2$$cat|dog|bird}",
    "choice-range": "a {1-2$$ and $$cat|dog|bird}",
    "looks-like-text": "a cat\nNegative prompt: x\nSteps: 20, Seed: 1, Size: 3x4",
    "unknown-tag": "a cat <hypernet:x:1> <other>",
}


def prompts(shop: Shop) -> Iterator[Case]:
    for model in ("sd1", "native", "sd3"):
        for name, prompt in PROMPTS.items():
            yield Case(name, model, {"steps": 4}, prompt)
    for name in ("weights", "and", "break", "long", "from-to", "choice"):
        yield Case(name, "sdxl", {"steps": 4}, PROMPTS[name])
        yield Case(f"negative-{name}", "sd1", {"steps": 4, "negative_prompt": PROMPTS[name]})
        yield Case(f"three-{name}", "native", {"count": 3}, PROMPTS[name], batch=3)
    for emphasis in ("Original", "ComfyUI", "No norm", "Ignore", "None"):
        for model in ("sd1", "sd3"):
            yield Case(f"emphasis-{emphasis}", model, {"prompting": {"emphasis": emphasis}}, PROMPTS["weights"])
    yield Case("no-variants", "native", {"prompting": {"variants": False}}, PROMPTS["choice"])
    yield Case("guidance-1-and", "sd1", {"guidance": 1.0}, PROMPTS["and-weights"])
    yield Case("no-negative", "sd1", {"negative_prompt": ""})
    yield Case("no-negative", "sdxl", {"negative_prompt": ""})
    yield from _files(shop)


def _files(shop: Shop) -> Iterator[Case]:
    """Wildcards and styles."""
    shop.text("cards/nature/tree.txt", "# trees\noak\n\nelm\n{tall|small} fir\n")
    shop.text("cards/colour.txt", "red\nblue\n__nature/tree__ green\n")
    cards = {"wildcards_dir": shop.place / "cards"}
    styles = 'name,prompt,negative_prompt\nink,{red|blue} ink of {prompt},photo\nsoft,"soft, calm",\n'
    file = shop.text("styles.csv", styles)
    for model in ("sd1", "native"):
        yield Case("wildcards", model, {"prompting": cards, "count": 3}, "a __nature/tree__, __colour__")
        yield Case("styles", model, {"prompting": {"styles": ("ink", "soft"), "styles_file": file}}, "a cat")
    yield Case("no-wildcards", "native", {}, "a __tree__")
    yield Case("styles-and-wildcards", "native", {"prompting": {**cards, "styles": "ink", "styles_file": file}})


def embeddings(shop: Shop) -> Iterator[Case]:
    """Textual inversion in every layout, for one text encoder and for two."""
    folder = shop.folder("embeddings")
    vectors = noise(8, 3, 64, size=1.0)
    data = {"string_to_token": {"*": 265}, "string_to_param": {"*": vectors}, "name": "fluffy", "step": 500}
    torch.save(data, folder / "fuzzy.pt")
    torch.save({"<furry>": vectors[0]}, folder / "furry.bin")
    shop.save("embeddings/hairy", {"emb_params": vectors * 2})
    shop.save("embeddings/both", {"clip_l": vectors, "clip_g": noise(9, 3, 128, size=1.0)})
    settings: dict[str, Any] = {"embeddings_dir": folder}
    for model in ("sd1", "sdxl", "sd3"):
        for name in ("fuzzy", "fluffy", "<furry>", "(hairy:1.3)", "both", "embedding:fuzzy"):
            yield Case(name, model, settings, f"a {name} cat")
    yield Case("negative", "sd1", {**settings, "negative_prompt": "fuzzy, hairy"})
    yield Case("unused", "sd1", settings)
    yield Case("three", "sd1", {**settings, "count": 3}, "a fuzzy {hairy|big} cat")
    refiner = {"model": shop.single("sdxl-refiner"), "switch": 0.4}
    yield Case("refiner", "sdxl", {**settings, "refiner": refiner}, "a both cat")


def embedded(shop: Shop) -> Iterator[Case]:
    """The models that come with the package, at their own size."""
    base: dict[str, Any] = {"steps": 4}
    for seed in (1, 2, 3):
        yield Case(f"seed-{seed}", "embedded", {"seed": seed}, "a red apple", base=base)
        yield Case(f"seed-{seed}", "embedded-fast", {"seed": seed}, "a red apple", base={})
    for model in ("embedded", "embedded-fast"):
        yield Case("scene", model, {"seed": 4}, "a beautiful sunset over the ocean", base={"steps": 3})
        yield Case("chinese", model, {"seed": 5, "negative_prompt": "蓝色"}, "一个红苹果", base={"steps": 3})
        yield Case("three-at-once", model, {"seed": 6, "count": 3}, "a cat", batch=3, base={"steps": 2})
        image = picture(64, 64, mode="RGBA")
        yield Case("picture", model, {"seed": 7, "image": image, "strength": 0.6}, "a dog", base={"steps": 4})
    for ground in ("transparent", "white", "scene"):
        yield Case(f"background-{ground}", "embedded", {"seed": 8, "background": ground}, "a tree", base=base)
    yield Case("sampler", "embedded", {"seed": 9, "sampler": "dpmpp_2m_sde"}, "a green fish", base=base)
    yield Case("hires", "embedded", {"seed": 10, "hires": {"scale": 1.5}}, "a green fish", base={"steps": 2})


def written(folder: Path) -> list[str]:
    """Files below a folder, by name."""
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file())
