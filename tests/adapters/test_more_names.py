"""Spellings of trainers: adapter names of PEFT, wrappers, OneTrainer's prefixes, folders of parts, AdaLoRA, IA3 and
token embeddings of PEFT; kinds that are not run are called by their name; one layer in two spellings is one layer."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from adapter_files import ALL, FC, QUERY, TEXT, factors, kohya, lora_state, shapes
from safetensors.torch import save_file
from torch import Tensor, nn

from stable_diffusion.adapters.file import read_adapter
from stable_diffusion.adapters.formulas import delta
from stable_diffusion.adapters.keys import group_names, plain_name
from stable_diffusion.errors import BrokenModel, UnknownModel
from stable_diffusion.pipeline.models import StableDiffusion

Spell = Callable[[str], tuple[str, str, str]]


def changed(model: StableDiffusion, path: Path) -> list[Tensor]:
    """All weights of a model under an adapter of which every part fits."""
    with model.attach(path) as attachment:
        assert attachment.unmatched == ()
        return [p.detach().clone() for net in model.networks for p in net.module.parameters()]


def dotted(unet: str, text: str, kind: str = "lora_{}.weight", up: str = "B", down: str = "A") -> Spell:
    def spell(path: str) -> tuple[str, str, str]:
        stem = (text if path.startswith("text_model.") else unet) + path
        return f"{stem}.{kind.format(up)}", f"{stem}.{kind.format(down)}", ""

    return spell


def flat(unet: str, text: str) -> Spell:
    def spell(path: str) -> tuple[str, str, str]:
        stem = (text if path.startswith("text_model.") else unet) + path.replace(".", "_")
        return f"{stem}.lora_up.weight", f"{stem}.lora_down.weight", f"{stem}.alpha"

    return spell


SPELLINGS: dict[str, Spell] = {
    "PEFT, adapter default": dotted("base_model.model.", "base_model.model.", "lora_{}.default.weight"),
    "PEFT, adapter of a name": dotted("base_model.model.", "base_model.model.", "lora_{}.my-style_2.weight"),
    "PEFT, a name that is a suffix": dotted("unet.", "text_encoder.", "lora_{}.alpha.weight"),
    "PEFT, no weight": dotted("unet.", "text_encoder.", "lora_{}"),
    "PEFT, name and no weight": dotted("unet.", "text_encoder.", "lora_{}.mine"),
    "PEFT inside a part": dotted("unet.base_model.model.", "text_encoder.base_model.model.", "lora_{}.default.weight"),
    "compiled": dotted("unet._orig_mod.", "text_encoder._orig_mod."),
    "compiled, the whole": dotted("_orig_mod.unet.", "_orig_mod.text_encoder."),
    "compiled by PEFT": dotted("base_model.model._orig_mod.", "base_model.model._orig_mod."),
    "DeepSpeed": dotted("unet._forward_module.", "text_encoder._forward_module."),
    "FSDP": dotted("_fsdp_wrapped_module.unet.", "_fsdp_wrapped_module.text_encoder."),
    "parallel": dotted("module.unet.", "module.text_encoder."),
    "parallel inside": dotted("unet.module.", "text_encoder.module."),
    "two wrappers": dotted("module._orig_mod.unet.", "_orig_mod.module.text_encoder."),
    "kohya, compiled": flat("lora_unet__orig_mod_", "lora_te__orig_mod_"),
    "kohya, parallel": flat("lora_unet_module_", "lora_te_module_"),
    "kohya, two encoders": flat("lora_unet_", "lora_te1_"),
    "LyCORIS": flat("lycoris_", "lycoris_text_encoder_"),
    "OneTrainer": dotted("unet.", "clip_l.", "lora_{}.weight", "up", "down"),
    "OneTrainer, the encoder whole": dotted("unet.", "clip_l.transformer.", "lora_{}.weight", "up", "down"),
    "ComfyUI": dotted("diffusion_model.", "text_encoders.clip_l.transformer.", "lora_{}.weight", "up", "down"),
    "whole file": dotted("model.diffusion_model.", "cond_stage_model.transformer.", "lora_{}.weight", "up", "down"),
    "bare": dotted("", "", "lora_{}.weight"),
}


@pytest.mark.parametrize("spell", SPELLINGS.values(), ids=SPELLINGS)
def test_every_spelling_is_the_same_adapter(spell: Spell, tiny_model: StableDiffusion, tmp_path: Path) -> None:
    save_file(lora_state(tiny_model, ALL, kohya), tmp_path / "plain.safetensors")
    save_file(lora_state(tiny_model, ALL, spell), tmp_path / "other.safetensors")
    want = changed(tiny_model, tmp_path / "plain.safetensors")
    got = changed(tiny_model, tmp_path / "other.safetensors")
    for ours, theirs in zip(got, want, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-6, atol=1e-7)


@pytest.mark.parametrize(
    ("name", "plain"),
    [
        ("a.lora_A.default.weight", "a.lora_A.weight"),
        ("a.lora_A.weight", "a.lora_A.weight"),
        ("a.lora_B.x.bias", "a.lora_B.bias"),
        ("a.lora_magnitude_vector.x", "a.lora_magnitude_vector"),
        ("a.lora_magnitude_vector.x.weight", "a.lora_magnitude_vector.weight"),
        ("a.lora_embedding_A.x", "a.lora_embedding_A"),
        ("a.lora_E.x", "a.lora_E"),
        ("a.hada_w1_a.x", "a.hada_w1_a"),
        ("a.lokr_w2.x", "a.lokr_w2"),
        ("a.oft_R.x.weight", "a.oft_R.weight"),
        ("a._orig_mod.b.alpha", "a.b.alpha"),
        ("lora_unet__orig_mod_a.alpha", "lora_unet_a.alpha"),
        ("a.hada_w1_a", "a.hada_w1_a"),
        ("a.modules_to_save.x.weight", "a.modules_to_save.weight"),
    ],
)
def test_names_without_wrappers(name: str, plain: str) -> None:
    assert plain_name(name) == plain


def test_two_adapters_in_one_file_are_asked_for(tiny_model: StableDiffusion, tmp_path: Path) -> None:
    up, down = factors(shapes(tiny_model)[QUERY], 0)
    state = {f"unet.{QUERY}.lora_{w}.{n}.weight": t + 0 for w, t in (("A", down), ("B", up)) for n in ("one", "two")}
    save_file(state, tmp_path / "two.safetensors")
    with pytest.raises(UnknownModel, match=r"holds 2 adapters, one, two; a file of one is expected"):
        read_adapter(tmp_path / "two.safetensors")


def test_a_folder_of_parts_is_one_adapter(tiny_model: StableDiffusion, tmp_path: Path) -> None:
    """As scripts of PEFT write one: unet/ and text_encoder/, whose files do not say what they are for."""
    save_file(lora_state(tiny_model, ALL, kohya), tmp_path / "plain.safetensors")
    folder = tmp_path / "parts"
    for part, text in (("unet", False), ("text_encoder", True)):
        paths = tuple(path for path in ALL if path.startswith("text_model.") is text)
        (folder / part).mkdir(parents=True)
        state = lora_state(tiny_model, ALL, dotted("base_model.model.", "base_model.model."))
        state = {n: t * (2.0 if "lora_B" in n else 1) for n, t in state.items() if any(path in n for path in paths)}
        save_file(state, folder / part / "adapter_model.safetensors")
        (folder / part / "adapter_config.json").write_text(json.dumps({"r": 2, "lora_alpha": 1}))
    want, got = changed(tiny_model, tmp_path / "plain.safetensors"), changed(tiny_model, folder)
    for ours, theirs in zip(got, want, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-6, atol=1e-7)


def test_a_folder_for_the_second_encoder(tiny_xl_model: StableDiffusion, tmp_path: Path) -> None:
    """By its name where both encoders could be meant, and by the shapes under any other name."""
    assert tiny_xl_model.parts.clip2 is not None
    weight = tiny_xl_model.parts.clip2.get_parameter("layers.0.mlp.up.weight")
    before = weight.detach().clone()
    up, down = factors(tuple(weight.shape), 1)
    stem = "base_model.model.text_model.encoder.layers.0.mlp.fc1"
    for name in ("text_encoder_2", "mine"):
        (tmp_path / name).mkdir()
        save_file({f"{stem}.lora_A.weight": down, f"{stem}.lora_B.weight": up},
                  tmp_path / name / "adapter_model.safetensors")  # fmt: skip
        with tiny_xl_model.attach(tmp_path / name) as attachment:
            assert attachment.unmatched == ()
            torch.testing.assert_close(weight.detach(), before + up @ down, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("prefix", ["clip_g.", "clip_g.transformer.", "text_encoder_2.", "lora_te2_"])
def test_prefixes_of_the_second_encoder(prefix: str, tiny_xl_model: StableDiffusion, tmp_path: Path) -> None:
    assert tiny_xl_model.parts.clip2 is not None
    weight = tiny_xl_model.parts.clip2.get_parameter("layers.0.mlp.up.weight")
    up, down = factors(tuple(weight.shape), 1)
    path = "text_model.encoder.layers.0.mlp.fc1"
    stem = prefix + (path.replace(".", "_") if prefix.endswith("_") else path)
    before = weight.detach().clone()
    save_file({f"{stem}.lora_down.weight": down, f"{stem}.lora_up.weight": up}, tmp_path / "a.safetensors")
    with tiny_xl_model.attach(tmp_path / "a.safetensors") as attachment:
        assert attachment.unmatched == ()
        torch.testing.assert_close(weight.detach(), before + up @ down, rtol=1e-5, atol=1e-5)


# --- other forms of PEFT ----------------------------------------------------------------------------------------------


def merged_by_peft(config: object, base: nn.Module, folder: Path) -> dict[str, Tensor]:
    """The differences that PEFT itself adds, with random numbers, after saving the adapter."""
    import peft

    original = {name: tensor.clone() for name, tensor in base.state_dict().items()}
    model = peft.get_peft_model(base, config)  # type: ignore[arg-type]
    for name, parameter in model.named_parameters():
        if parameter.requires_grad and "ranknum" not in name:
            parameter.data = torch.randn_like(parameter) * 0.3
    model.save_pretrained(folder)
    merged = model.merge_and_unload().state_dict()
    return {name: merged[name] - original[name] for name in original}


class Embedded(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.words = nn.Embedding(40, 12)
        self.to_q = nn.Linear(12, 20)
        self.ff = nn.Linear(20, 12)
        self.conv = nn.Conv2d(4, 6, 3)


@pytest.mark.parametrize("kind", ["AdaLoRA", "AdaLoRA without alpha", "IA3", "embedding"])
def test_what_peft_merges(kind: str, tmp_path: Path) -> None:
    peft = pytest.importorskip("peft")
    torch.manual_seed(3)
    config = {
        "AdaLoRA": lambda: peft.AdaLoraConfig(init_r=6, lora_alpha=10, total_step=9, target_modules=["to_q", "ff"]),
        "AdaLoRA without alpha": lambda: peft.AdaLoraConfig(init_r=4, lora_alpha=0, total_step=9,
                                                            target_modules=["to_q", "ff"]),
        "IA3": lambda: peft.IA3Config(target_modules=["to_q", "ff", "conv"], feedforward_modules=["ff"]),
        "embedding": lambda: peft.LoraConfig(r=4, lora_alpha=6, target_modules=["words", "to_q"]),
    }[kind]()  # fmt: skip
    base = Embedded()
    weights = {name: tensor.clone() for name, tensor in base.state_dict().items()}
    want = merged_by_peft(config, base, tmp_path)
    file = read_adapter(tmp_path)
    assert not file.unknown and len(file.groups) == (3 if kind == "IA3" else 2)
    for stem, group in file.groups.items():
        name = stem.removeprefix("base_model.model.") + ".weight"
        ours = delta(group.tensors, weights[name], alpha=group.alpha, on_input=group.on_input)
        torch.testing.assert_close(ours, want[name], rtol=1e-4, atol=1e-6)


def test_a_token_embedding_of_the_model_is_changed(tiny_model: StableDiffusion, tmp_path: Path) -> None:
    weight = tiny_model.parts.clip.token_embedding.weight
    before = weight.detach().clone()
    a, b = torch.randn(2, weight.shape[0]) * 0.1, torch.randn(weight.shape[1], 2) * 0.1
    stem = "text_encoder.text_model.embeddings.token_embedding"
    save_file({f"{stem}.lora_embedding_A": a, f"{stem}.lora_embedding_B": b}, tmp_path / "e.safetensors")
    with tiny_model.attach(tmp_path / "e.safetensors") as attachment:
        assert attachment.unmatched == ()
        torch.testing.assert_close(weight.detach(), before + (b @ a).T, rtol=1e-5, atol=1e-6)


FOREIGN = {
    "VeRA": ("base_model.model.a.vera_lambda_b", "a VeRA adapter"),
    "FourierFT": ("base_model.model.a.fourierft_spectrum", "a FourierFT adapter"),
    "lora_diffusion": ("unet:0:up", "a LoRA of lora_diffusion"),
    "HRA": ("base_model.model.a.hra_u", "of another kind"),
    "prompt": ("prompt_embeddings", "a learned prompt of PEFT"),
    "nothing": ("a.b.c", "holds no adapter that is known here"),
}


@pytest.mark.parametrize(("name", "said"), FOREIGN.values(), ids=FOREIGN)
def test_kinds_that_are_not_run_have_a_name(name: str, said: str, tmp_path: Path) -> None:
    save_file({name: torch.ones(3, 5)}, tmp_path / "foreign.safetensors")
    with pytest.raises(UnknownModel, match=f"{said}.*expected a LoRA or one of its relatives"):
        read_adapter(tmp_path / "foreign.safetensors")


# --- one layer twice, and other families ------------------------------------------------------------------------------


@pytest.mark.parametrize("other", ["diffusers", "compiled", "two encoders", "single file"])
def test_a_layer_in_two_spellings_is_changed_once(other: str, tiny_model: StableDiffusion, tmp_path: Path) -> None:
    spell = {"diffusers": dotted("unet.", "text_encoder."), "compiled": flat("lora_unet__orig_mod_", "lora_te_"),
             "two encoders": flat("lora_unet_", "lora_te1_"),
             "single file": dotted("diffusion_model.", "clip_l.", "lora_{}.weight", "up", "down")}[other]  # fmt: skip
    state = lora_state(tiny_model, (QUERY, TEXT), kohya)
    save_file(state, tmp_path / "once.safetensors")
    save_file(state | lora_state(tiny_model, (QUERY, TEXT), spell), tmp_path / "twice.safetensors")
    want = changed(tiny_model, tmp_path / "once.safetensors")
    with tiny_model.attach(tmp_path / "twice.safetensors") as attachment:
        got = [p.detach().clone() for net in tiny_model.networks for p in net.module.parameters()]
        assert sum(attachment.kinds.values()) == 2
    assert all(torch.equal(ours, theirs) for ours, theirs in zip(got, want, strict=True))


def test_a_second_change_of_a_layer_is_listed(tiny_model: StableDiffusion, tmp_path: Path) -> None:
    state = lora_state(tiny_model, (QUERY,), kohya)
    up, down = factors(shapes(tiny_model)[QUERY], 77)
    state |= {f"unet.{QUERY}.lora_B.weight": up, f"unet.{QUERY}.lora_A.weight": down}
    save_file(state, tmp_path / "both.safetensors")
    with tiny_model.attach(tmp_path / "both.safetensors") as attachment:
        assert attachment.kinds == {"LoRA": 1}
        assert any("the same layer as" in each for each in attachment.unmatched)


def test_an_adapter_whose_text_encoder_alone_fits_is_refused(tiny_model: StableDiffusion, tmp_path: Path) -> None:
    """Families share a text encoder, so that half of another family's LoRA would be put on."""
    state = lora_state(tiny_model, (TEXT, FC), kohya)
    state |= {f"lora_unet_double_blocks_0_img_attn_qkv.lora_{w}.weight": torch.ones(2, 2) for w in ("up", "down")}
    save_file(state, tmp_path / "flux.safetensors")
    with pytest.raises(BrokenModel, match=r"is made for \w+.*: its text encoder fits, and nothing of its denoising"):
        tiny_model.attach(tmp_path / "flux.safetensors")
    assert tiny_model.attachments == ()


def test_an_adapter_for_tokens_of_another_width_is_refused(tiny_model: StableDiffusion, tmp_path: Path) -> None:
    """Self-attentions have the same shapes in all families of the same width."""
    state = lora_state(tiny_model, (QUERY, "down_blocks.0.attentions.0.transformer_blocks.0.attn1.to_k"), kohya)
    stem = "lora_unet_down_blocks_0_attentions_0_transformer_blocks_0_attn2_to_k"
    state |= {f"{stem}.lora_up.weight": torch.ones(16, 2), f"{stem}.lora_down.weight": torch.ones(2, 1024)}
    save_file(state, tmp_path / "sd2.safetensors")
    with pytest.raises(BrokenModel, match=r"is made for Stable Diffusion 2\.x: the layers that read tokens"):
        tiny_model.attach(tmp_path / "sd2.safetensors")


def test_the_word_of_a_file_decides_where_shapes_cannot(
    tiny_model: StableDiffusion, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """CLIP-L is the same in Stable Diffusion 1 and XL: of a LoRA for it alone only the header says which it is for."""
    save_file(lora_state(tiny_model, (TEXT, FC), kohya), tmp_path / "plain.safetensors")
    save_file(lora_state(tiny_model, (TEXT, FC), kohya), tmp_path / "said.safetensors",
              metadata={"ss_base_model_version": "sd_v1"})  # fmt: skip
    for ours in ("Stable Diffusion XL", "Stable Diffusion 1.x"):
        monkeypatch.setattr("stable_diffusion.adapters.attach._family", lambda module, ours=ours: ours)
        with tiny_model.attach(tmp_path / "plain.safetensors") as attachment:
            assert attachment.kinds == {"LoRA": 2}
        if ours == "Stable Diffusion 1.x":
            tiny_model.attach(tmp_path / "said.safetensors").detach()
            continue
        with pytest.raises(
            BrokenModel, match=r"made for Stable Diffusion 1\.x, and this is Stable Diffusion XL: the file"
        ):
            tiny_model.attach(tmp_path / "said.safetensors")


def test_only_tensors_of_adapters_are_grouped() -> None:
    grouped = group_names(["a.lora_A.x.weight", "a.lora_B.x.weight", "a.base_layer.weight", "b._orig_mod.alpha"])
    assert grouped.groups == {"a": {"down": "a.lora_A.x.weight", "up": "a.lora_B.x.weight"},
                              "b": {"alpha": "b._orig_mod.alpha"}}  # fmt: skip
    assert grouped.leftovers == ("a.base_layer.weight",) and grouped.adapters == ("x",)
