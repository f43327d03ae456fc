"""Cases of `frozen`: LoRA and its relatives in every kind and spelling, and networks that read a second picture."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from frozen_paint import Case
from frozen_shop import Shop, mask, noise, picture
from torch import Tensor

State = dict[str, Tensor]
QUERY = "down_blocks.0.attentions.0.transformer_blocks.0.attn2.to_q"
OUT = "down_blocks.0.attentions.0.transformer_blocks.0.attn1.to_out.0"
PROJ = "down_blocks.0.attentions.0.proj_in"
CONV = "down_blocks.0.resnets.0.conv1"
NORM = "down_blocks.0.attentions.0.transformer_blocks.0.norm1"
TEXT = "text_model.encoder.layers.1.self_attn.v_proj"
FC = "text_model.encoder.layers.0.mlp.fc1"
LAYERS = (QUERY, OUT, PROJ, CONV, TEXT, FC)
SQUARE = (QUERY, OUT, TEXT)


def kohya(path: str) -> str:
    return ("lora_te_" if path.startswith("text_model.") else "lora_unet_") + path.replace(".", "_")


def low_rank(shape: tuple[int, ...], seed: int, rank: int = 2) -> State:
    kernel = shape[2:]
    up = noise(seed, shape[0], rank, *[1] * len(kernel))
    return {"lora_up.weight": up, "lora_down.weight": noise(seed + 99, rank, *shape[1:])}


def hadamard(shape: tuple[int, ...], seed: int) -> State:
    columns = 1
    for side in shape[1:]:
        columns *= side
    sides = {"hada_w1_a": (shape[0], 2), "hada_w1_b": (2, columns)}
    sides |= {"hada_w2_a": (shape[0], 2), "hada_w2_b": (2, columns)}
    return {name: noise(seed + index, *size) for index, (name, size) in enumerate(sides.items())}


def kronecker(shape: tuple[int, ...], seed: int) -> State:
    rest = (shape[0] // 4, shape[1] // 4)
    return {
        "lokr_w1": noise(seed, 4, 4),
        "lokr_w2_a": noise(seed + 1, rest[0], 2),
        "lokr_w2_b": noise(seed + 2, 2, rest[1], *shape[2:]) if len(shape) == 2 else noise(seed + 2, 2, rest[1] * 9),
    }


Make = Callable[[tuple[int, ...], int], State]
ALPHA = {"alpha": torch.tensor(1.5)}
KINDS: dict[str, tuple[tuple[str, ...], Make]] = {
    "lora": (LAYERS, lambda s, n: {**low_rank(s, n), **ALPHA}),
    "lora-no-alpha": (LAYERS, low_rank),
    "lora-bias": ((QUERY, TEXT), lambda s, n: {**low_rank(s, n), "lora_B.bias": noise(n, s[0])}),
    "locon-core": (
        (CONV,),
        lambda s, n: {
            "lora_up.weight": noise(n, s[0], 2, 1, 1),
            "lora_mid.weight": noise(n + 1, 2, 2, 3, 3),
            "lora_down.weight": noise(n + 2, 2, s[1], 1, 1),
            **ALPHA,
        },
    ),
    "dora": (LAYERS, lambda s, n: {**low_rank(s, n), "dora_scale": noise(n, s[0], *[1] * (len(s) - 1)).abs() + 1}),
    "dora-columns": ((QUERY, FC), lambda s, n: {**low_rank(s, n), "dora_scale": noise(n, 1, s[1]).abs() + 1}),
    "dora-peft": ((QUERY, TEXT), lambda s, n: {**low_rank(s, n), "lora_magnitude_vector": noise(n, s[0]).abs() + 1}),
    "loha": (LAYERS, lambda s, n: {**hadamard(s, n), **ALPHA}),
    "loha-cores": (
        (CONV,),
        lambda s, n: {
            **{f"hada_w{k}_a": noise(n + k, 2, s[0]) for k in (1, 2)},
            **{f"hada_w{k}_b": noise(n + 3 + k, 2, s[1]) for k in (1, 2)},
            **{f"hada_t{k}": noise(n + 6 + k, 2, 2, 3, 3) for k in (1, 2)},
        },
    ),
    "lokr": (SQUARE, lambda s, n: {**kronecker(s, n), **ALPHA}),
    "lokr-whole": (SQUARE, lambda s, n: {"lokr_w1": noise(n, 4, 4), "lokr_w2": noise(n + 1, s[0] // 4, s[1] // 4)}),
    "lokr-products": (
        SQUARE,
        lambda s, n: {
            "lokr_w1_a": noise(n, 4, 2),
            "lokr_w1_b": noise(n + 1, 2, 4),
            "lokr_w2_a": noise(n + 2, s[0] // 4, 2),
            "lokr_w2_b": noise(n + 3, 2, s[1] // 4),
            **ALPHA,
        },
    ),
    "lokr-core": (
        (CONV,),
        lambda s, n: {
            "lokr_w1": noise(n, 4, 4),
            "lokr_t2": noise(n + 1, 2, 2, 3, 3),
            "lokr_w2_a": noise(n + 2, 2, s[0] // 4),
            "lokr_w2_b": noise(n + 3, 2, s[1] // 4),
            **ALPHA,
        },
    ),
    "ia3-out": (LAYERS, lambda s, n: {"weight": noise(n, s[0], size=0.1), "on_input": torch.tensor(0.0)}),
    "ia3-in": (SQUARE, lambda s, n: {"weight": noise(n, s[1], size=0.1), "on_input": torch.tensor(1.0)}),
    "oft": (LAYERS, lambda s, n: {"oft_blocks": noise(n, s[0] // 8, 8, 8), "alpha": torch.tensor(0.01)}),
    "oft-rescale": (
        SQUARE,
        lambda s, n: {"oft_diag": noise(n, s[0] // 8, 8, 8), "rescale": 1 + noise(n + 1, s[0], 1, size=0.1)},
    ),
    "boft": (SQUARE, lambda s, n: {"oft_blocks": noise(n, 2, s[0] // 8, 8, 8), "alpha": torch.tensor(0.02)}),
    "oft-columns": (SQUARE, lambda s, n: {"oft_R.weight": noise(n, s[1] // 8, 28)}),
    "glora": (
        SQUARE,
        lambda s, n: {
            "a1.weight": noise(n, 2, s[1]),
            "a2.weight": noise(n + 1, s[1], 2),
            "b1.weight": noise(n + 2, 2, s[1]),
            "b2.weight": noise(n + 3, s[0], 2),
            **ALPHA,
        },
    ),
    "full": (LAYERS, lambda s, n: {"diff": noise(n, *s, size=0.1), "diff_b": noise(n + 1, s[0], size=0.1)}),
    "replaced": ((QUERY, CONV), lambda s, n: {"set_weight": noise(n, *s, size=0.2)}),
    "replaced-bias": ((CONV, FC), lambda s, n: {"set_bias": noise(n, s[0], size=0.2)}),
    "norm": ((NORM,), lambda s, n: {"w_norm": noise(n, s[0]), "b_norm": noise(n + 1, s[0])}),
}
"""Kind -> layers that have it, and what makes the tensors of one from the shape of its weight and a seed."""


def lora_file(shop: Shop, kind: str, model: str = "sd1") -> Path:
    """A file of this kind in kohya's spelling."""
    layers, make = KINDS[kind]
    shapes = shop.shapes(model)
    state = {
        f"{kohya(path)}.{name}": tensor
        for seed, path in enumerate(layers)
        for name, tensor in make(shapes[path], 10 * seed).items()
    }
    return shop.save(f"loras/{kind}", state)


def spelt(shop: Shop) -> dict[str, Path]:
    """One LoRA under the names of several tools."""
    shapes, found = shop.shapes("sd1"), {}
    sgm = {QUERY: "input_blocks.1.1.transformer_blocks.0.attn2.to_q", CONV: "input_blocks.1.0.in_layers.2"}
    spellings: dict[str, tuple[Callable[[str], str], str, str]] = {
        "diffusers": (_dotted, "lora_B.weight", "lora_A.weight"),
        "diffusers-0.17": (_processor, "up.weight", "down.weight"),
        "peft": (lambda path: f"base_model.model.{path}", "lora_B.weight", "lora_A.weight"),
        "linear-layer": (_dotted, "lora_linear_layer.up.weight", "lora_linear_layer.down.weight"),
        "sgm": (lambda path: f"lora_unet_{sgm[path].replace('.', '_')}", "lora_up.weight", "lora_down.weight"),
        "generic": (lambda path: f"diffusion_model.{sgm[path]}", "lora_B.weight", "lora_A.weight"),
        "lycoris": (lambda path: f"lycoris_{path.replace('.', '_')}", "lora_up.weight", "lora_down.weight"),
    }
    for name, (spell, up, down) in spellings.items():
        layers = (QUERY, CONV) if name in ("sgm", "generic", "peft", "lycoris") else (QUERY, TEXT)
        layers = (QUERY,) if name == "diffusers-0.17" else layers
        state: State = {}
        for seed, path in enumerate(layers):
            made = low_rank(shapes[path], seed)
            state |= {f"{spell(path)}.{up}": made["lora_up.weight"], f"{spell(path)}.{down}": made["lora_down.weight"]}
        found[name] = shop.save(f"spelt/{name}", state)
    return found


def _dotted(path: str) -> str:
    return f"text_encoder.{path}" if path.startswith("text_model.") else f"unet.{path}"


def _processor(path: str) -> str:
    return f"unet.{path.replace('attn2.to_q', 'attn2.processor.to_q_lora')}"


def peft_folder(shop: Shop, name: str, state: Mapping[str, Tensor], settings: Mapping[str, Any]) -> Path:
    folder = shop.save(f"peft/{name}/adapter_model", state).parent
    shop.json(f"peft/{name}/adapter_config.json", settings)
    return folder


def other_models(shop: Shop) -> Iterator[tuple[str, str, Path]]:
    """(name, model, file) of LoRAs for the text encoders and denoisers of XL and 3."""
    shapes = shop.shapes("sdxl")
    query = "down_blocks.1.attentions.0.transformer_blocks.1.attn1.to_q"
    stems = {query: f"lora_unet_{query.replace('.', '_')}", TEXT: f"lora_te1_{TEXT.replace('.', '_')}"}
    stems[f"te2.{TEXT}"] = f"lora_te2_{TEXT.replace('.', '_')}"
    state = {f"{stem}.{k}": t for path, stem in stems.items() for k, t in low_rank(shapes[path], len(stem)).items()}
    yield "kohya", "sdxl", shop.save("loras/xl", state)
    shapes = shop.shapes("sd3")
    layers = ("transformer_blocks.0.attn.to_q", "transformer_blocks.1.attn.add_v_proj", "norm_out.linear")
    for spelling in ("diffusers", "kohya"):
        state = {}
        for seed, path in enumerate(layers):
            made = low_rank(shapes[path], seed, 4)
            stem = f"transformer.{path}" if spelling == "diffusers" else f"lora_transformer_{path.replace('.', '_')}"
            up, down = ("lora_B", "lora_A") if spelling == "diffusers" else ("lora_up", "lora_down")
            state[f"{stem}.{up}.weight"] = made["lora_up.weight"]
            state[f"{stem}.{down}.weight"] = made["lora_down.weight"]
        yield spelling, "sd3", shop.save(f"loras/sd3-{spelling}", state)


def loras(shop: Shop) -> Iterator[Case]:
    files = {kind: lora_file(shop, kind) for kind in KINDS}
    for kind, path in files.items():
        yield Case(kind, "sd1", {"loras": [(path, 0.8)]})
    for name, path in spelt(shop).items():
        yield Case(f"spelt-{name}", "sd1", {"loras": [(path, 0.8)]})
    shape = shop.shapes("sd1")[QUERY]
    made = low_rank(shape, 3)
    state = {f"base_model.model.{QUERY}.lora_A.weight": made["lora_down.weight"]}
    state[f"base_model.model.{QUERY}.lora_B.weight"] = made["lora_up.weight"]
    for name, settings in {
        "plain": {"r": 2, "lora_alpha": 6},
        "rs": {"r": 2, "lora_alpha": 3, "use_rslora": True},
    }.items():
        yield Case(f"peft-{name}", "sd1", {"loras": [peft_folder(shop, name, state, settings)]})
    turned = {f"base_model.model.{QUERY}.oft_R.weight": noise(1, shape[1] // 8, 28)}
    for name, told in {"exact": {"use_cayley_neumann": False}, "coft": {"coft": True, "eps": 0.1}}.items():
        yield Case(f"peft-oft-{name}", "sd1", {"loras": [peft_folder(shop, f"oft-{name}", turned, told)]})
    folder = shop.place / "loras"
    several = [(files["lora"], 0.5), (files["loha"], 0.7, 0.2), files["norm"], (files["full"], -0.4)]
    yield Case("several", "sd1", {"loras": several})
    yield Case("several-three", "sd1", {"loras": several, "count": 3})
    yield Case("several-three-at-once", "sd1", {"loras": several, "count": 3}, batch=3)
    yield Case("tag", "sd1", {"lora_dir": folder}, "a red cat <lora:lora:0.8>")
    yield Case("tags", "sd1", {"lora_dir": folder}, "a <lora:lora:0.8:0.3> red <lora:glora:1> cat <lora:boft>")
    yield Case("tag-and-file", "sd1", {"lora_dir": folder, "loras": f"{files['dora']}:0.6"}, "a cat <lora:lora:1>")
    yield Case("tag-in-choice", "sd1", {"lora_dir": folder, "count": 2}, "a cat {<lora:lora:1>|<lora:dora:1>}")
    yield Case("text-alone", "sd1", {"loras": [(files["lora"], 0.0, 1.0)]})
    yield Case("picture", "sd1", {"loras": [files["lora"]], "image": picture(), "mask": mask()})
    yield Case("hires", "sd1", {"loras": [files["lora"]], "hires": {"scale": 1.5}})
    yield Case("windows", "sd1", {"loras": [files["lora"]], "canvas": {"window": 32}, "width": 64})
    yield Case("inpaint-model", "sd1-inpaint", {"loras": [files["lora"]], "image": picture(), "mask": mask()})
    for name, model, path in other_models(shop):
        yield Case(name, model, {"loras": [(path, 0.7, 0.4)]})


def tiny_decoder(shop: Shop, latents: int = 4) -> Path:
    """A tiny autoencoder (TAESD) for these latents, as diffusers writes it."""
    from diffusers import AutoencoderTiny

    torch.manual_seed(12)
    vae = AutoencoderTiny(
        latent_channels=latents, encoder_block_out_channels=(16,) * 4, decoder_block_out_channels=(16,) * 4
    )
    return shop.save(f"tiny/taesd{latents}", vae.state_dict())


class Networks:
    """Files of networks that read a second picture, for sd1 and sdxl."""

    def __init__(self, shop: Shop) -> None:
        import tiny_checkpoints
        import tiny_controls
        import tiny_xl

        self.shop, self.tools = shop, tiny_controls
        self.configs = {"sd1": tiny_checkpoints.SD1.ours, "sdxl": tiny_xl.BASE.config}

    def _built(self, make: Callable[..., Any], *arguments: Any, **settings: Any) -> Any:
        """What `make` builds, whose first weights come from torch's own generator, whatever was built before it."""
        torch.manual_seed(11)
        return make(*arguments, **settings)

    def plain(self, model: str, seed: int = 1, **settings: Any) -> Path:
        state = self._built(self.tools.controlnet, self.configs[model], seed, **settings).state_dict()
        return self.shop.save(f"controls/{model}-plain{seed}", state)

    def shuffled(self) -> Path:
        """One whose features are means, as its name says."""
        state = self._built(self.tools.controlnet, self.configs["sd1"], 1, global_pool_conditions=True).state_dict()
        return self.shop.save("controls/control_v11e_sd15_shuffle", self.tools.ldm_state(self.configs["sd1"], state))

    def ldm(self) -> Path:
        state = self._built(self.tools.controlnet, self.configs["sd1"], 3).state_dict()
        return self.shop.save("controls/control_ldm", self.tools.ldm_state(self.configs["sd1"], state))

    def low_rank(self) -> Path:
        """A control-LoRA: what is a copy of the U-Net as two factors of its difference."""
        state = self._built(self.tools.controlnet, self.configs["sd1"], 4).state_dict()
        state = self.tools.ldm_state(self.configs["sd1"], state, prefix="")
        made: State = {"lora_controlnet": torch.zeros(0)}
        for seed, (name, tensor) in enumerate(state.items()):
            own = name.startswith(("zero_convs.", "input_hint_block.", "middle_block_out."))
            if own or not name.endswith(".weight") or tensor.ndim < 2:
                made[name] = tensor
                continue
            stem, ones = name.removesuffix(".weight"), (1,) * (tensor.ndim - 2)
            made[f"{stem}.up"] = noise(seed, tensor.shape[0], 4, *ones, size=0.1)
            made[f"{stem}.down"] = noise(seed + 1000, 4, *tensor.shape[1:], size=0.1)
        return self.shop.save("controls/control-lora", made)

    def union(self) -> Path:
        return self.shop.save("controls/union", self._built(self.tools.union, self.configs["sdxl"]).state_dict())

    def t2i(self, model: str) -> Path:
        kind = "full_adapter_xl" if model == "sdxl" else "full_adapter"
        return self.shop.save(f"controls/t2i-{model}", self._built(self.tools.t2i_adapter, kind, [32, 64]).state_dict())

    def ip(self, model: str, plus: bool) -> Path:
        """With its image tower beside it."""
        import transformers
        from diffusers import UNet2DConditionModel

        folder = self.shop.folder("controls")
        if not (folder / "image_encoder").exists():
            config = transformers.CLIPVisionConfig(
                hidden_size=48, intermediate_size=80, num_hidden_layers=3, num_attention_heads=4, image_size=28,
                patch_size=7, projection_dim=20, hidden_act="gelu",
            )  # fmt: skip
            torch.manual_seed(6)
            tower = self.tools.filled(transformers.CLIPVisionModelWithProjection(config), 4)
            tower.save_pretrained(folder / "image_encoder")
        unet = UNet2DConditionModel.from_pretrained(self.shop.case(model).folder / "unet", local_files_only=True)
        width = 48 if plus else 20
        state = self._built(self.tools.ip_adapter_state, unet, self.configs[model].context_dim, width, plus=plus)
        return self.shop.save(f"controls/ip-{model}{'-plus' * plus}", state)


def controls(shop: Shop) -> Iterator[Case]:
    made, shown = Networks(shop), picture(60, 44, seed=5)

    def one(path: Path, **settings: Any) -> dict[str, Any]:
        return {"controls": [{"path": path, "image": shown, **settings}]}

    first, second = made.plain("sd1", 1), made.plain("sd1", 2)
    t2i, ip = made.t2i("sd1"), made.ip("sd1", False)
    yield Case("plain", "sd1", one(first))
    yield Case("ldm", "sd1", one(made.ldm()))
    yield Case("means", "sd1", one(made.shuffled()))
    yield Case("control-lora", "sd1", one(made.low_rank()))
    yield Case("t2i", "sd1", one(t2i, weight=0.9))
    yield Case("ip", "sd1", one(ip, weight=0.7))
    yield Case("ip-plus", "sd1", one(made.ip("sd1", True), weight=0.7))
    yield Case("ip-tower", "sd1", one(ip, image_encoder=shop.place / "controls" / "image_encoder"))
    yield Case("ip-three", "sd1", {**one(ip), "count": 3})
    for model in ("sdxl",):
        yield Case("plain", model, one(made.plain(model)))
        yield Case("t2i", model, one(made.t2i(model)))
        yield Case("ip", model, one(made.ip(model, False)))
        union = made.union()
        for task in ("canny", "depth", 5):
            yield Case(f"union-{task}", model, one(union, task=task))
        yield Case("union-canny-edges", model, one(union, preprocessor="canny"))
    for mode in ("balanced", "prompt", "control"):
        yield Case(f"mode-{mode}", "sd1", one(first, mode=mode))
        yield Case(f"mode-{mode}-t2i", "sd1", one(t2i, mode=mode))
    for resize in ("stretch", "crop", "fill"):
        yield Case(f"resize-{resize}", "sd1", one(first, resize=resize))
    for name, settings in {
        "canny": {"preprocessor": "canny", "threshold_a": 50.0, "threshold_b": 120.0},
        "canny-own": {"preprocessor": "canny"},
        "invert": {"preprocessor": "invert"},
        "threshold": {"preprocessor": "threshold", "threshold_a": 90.0},
        "weight": {"weight": -0.5},
        "start": {"start": 0.4, "end": 0.8},
        "task-no-effect": {"task": "depth"},
    }.items():
        yield Case(name, "sd1", {**one(first, **settings), "steps": 5})
    every = [one(path, weight=0.6)["controls"][0] for path in (first, second, t2i, ip)]
    yield Case("several", "sd1", {"controls": every})
    yield Case("several-three", "sd1", {"controls": every, "count": 3})
    yield Case("several-three-at-once", "sd1", {"controls": every, "count": 3}, batch=3)
    lora = lora_file(shop, "lora")
    yield Case("with-lora", "sd1", {"controls": every, "loras": [lora]})
    yield Case("guidance-1", "sd1", {**one(first), "guidance": 1.0})
    yield Case("own-picture", "sd1", {"controls": [{"path": first}], "image": picture(), "strength": 0.75})
    yield Case("hires", "sd1", {**one(first), "hires": {"scale": 1.5}})
    yield Case("windows", "sd1", {**one(first), "canvas": {"window": 32}, "width": 64})
    yield Case("tiling", "sd1", {**one(first), "canvas": {"tiling": "x"}})
    small = {"image": picture(120, 90), "mask": mask(120, 90)}
    yield Case("only-masked", "sd1", {**one(first), **small, "inpaint": {"only_masked": True}})
    yield Case("outpaint", "sd1", {**one(first), "image": picture(32, 24), "width": None, "height": None,
                                   "canvas": {"outpaint": (8, 0, 8, 8)}})  # fmt: skip
    yield Case("prompt", "sd1", one(first), "a [cat:dog:0.5] AND a tree")
    yield Case("inpaint-model", "sd1-inpaint", {**one(first), "image": picture(), "mask": mask()})
    yield Case("refiner", "sdxl", {**one(made.t2i("sdxl")), "refiner": shop.single("sdxl-refiner"), "steps": 5})
