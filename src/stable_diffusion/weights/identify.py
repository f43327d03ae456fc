"""What a file is that is no whole model of a family we run, by the tensors that mark it: so that an error says so."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping

from .foreign import foreign_kind

Shape = tuple[int, ...]
Shapes = Mapping[str, Shape]
Test = Callable[[Shapes, Mapping[str, str]], bool]


def identify(shapes: Shapes, metadata: Mapping[str, str]) -> str | None:
    """What a file is ("a LoRA", "a ControlNet", "a Kolors model, which ..."), or None where nothing is known."""
    foreign = foreign_kind(shapes)
    if foreign is not None:
        return foreign
    for name, test in KINDS:
        if test(shapes, metadata):
            return name
    return None


def _has(*names: str) -> Test:
    return lambda shapes, metadata: any(name in shapes for name in names)


def _contains(*pieces: str) -> Test:
    return lambda shapes, metadata: any(piece in name for name in shapes for piece in pieces)


def _starts(*prefixes: str) -> Test:
    return lambda shapes, metadata: any(name.startswith(prefixes) for name in shapes)


def _lora(shapes: Shapes, metadata: Mapping[str, str]) -> bool:
    pieces = (
        "lora_down.",
        "lora_up.",
        "lora_A.",
        "lora_B.",
        ".lora.down",
        "_lora.down",
        "hada_w1",
        "lokr_w1",
        "oft_blocks",
    )
    return _contains(*pieces)(shapes, metadata)


def _embedding(shapes: Shapes, metadata: Mapping[str, str]) -> bool:
    if {"clip_l", "clip_g"} <= set(shapes) or "emb_params" in shapes:
        return True
    if any(name.startswith(("string_to_param", "string_to_token")) for name in shapes):
        return True
    # The diffusers layout: nothing but one or a few token vectors, under the token's name.
    widths = (768, 1024, 1280)
    named_by_token = not any(name.endswith((".weight", ".bias")) for name in shapes)
    vectors = all(0 < len(shape) <= 2 and shape[-1] in widths for shape in shapes.values())
    return 0 < len(shapes) <= 2 and named_by_token and vectors


def _vae_alone(shapes: Shapes, metadata: Mapping[str, str]) -> bool:
    names: Collection[str] = shapes.keys()
    both = any(all(start + end in names for end in VAE_ENDS) for start in ("", "first_stage_model.", "vae."))
    return both and not any("diffusion_model" in name for name in names)


VAE_ENDS = ("encoder.conv_in.weight", "decoder.conv_in.weight")

CONTROL = ("zero_convs.0.0.weight", "control_model.zero_convs.0.0.weight", "controlnet_cond_embedding.conv_in.weight")

FACE_ID = ("image_proj.perceiver_resampler.", ".to_k_ip_lora", "ip_adapter.0.to_q_lora.", "ip_adapter.1.to_q_lora.")
T2I_ADAPTER = (
    *("body.0.block1.weight", "body.0.resnets.0.block1.weight", "adapter.body.0.resnets.0.block1.weight"),
    *("body.0.out_conv.weight", "adapter.body.0.out_conv.weight"),
)

KINDS: tuple[tuple[str, Test], ...] = (
    ("a control-LoRA", _has("lora_controlnet")),
    ("an IP-Adapter FaceID", _contains(*FACE_ID)),
    ("an IP-Adapter", _starts("ip_adapter.", "image_proj.")),
    ("a LoRA", _lora),
    ("a ControlNet", _has(*CONTROL, "controlnet_blocks.0.weight")),
    ("a T2I-Adapter", _has(*T2I_ADAPTER)),
    ("a CLIP image tower", _has("vision_model.embeddings.patch_embedding.weight")),
    ("a textual inversion embedding", _embedding),
    ("a part of a Stable Diffusion 3 model", _contains("joint_blocks.0.context_block.")),
    ("a part of a Stable Diffusion XL refiner", _starts("conditioner.embedders.0.model.")),
    ("a part of a Stable Diffusion XL model", _starts("conditioner.embedders.1.")),
    ("a VAE alone", _vae_alone),
    ("a small preview decoder (TAESD)", _has("taesd_decoder.1.weight", "decoder.layers.0.weight")),
    (
        "a text encoder alone",
        _has("text_model.embeddings.token_embedding.weight", "encoder.block.0.layer.0.SelfAttention.q.weight"),
    ),
    (
        "a diffusers transformer alone; give the folder that holds model_index.json",
        _has("transformer_blocks.0.norm1_context.linear.weight"),
    ),
    (
        "a diffusers U-Net alone; give the folder that holds model_index.json",
        _has("down_blocks.0.resnets.0.conv1.weight"),
    ),
)
