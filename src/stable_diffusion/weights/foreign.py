"""Models of other kinds, by the names of their tensors: what a file is, what that is for, and that it is not run here.

One table for `info` and for loading. A kind is recognised by two marks, never by one: the same layers occur in many
networks. A mark is a piece of a name, or several of which one is enough; `^` stands for the beginning of a
name and `$` for its end. More
special kinds come before those whose marks they have too.

Sources: the names of tensors in the checkpoints that the makers of these models published.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

import torch

from ..errors import UnknownModel
from .containers.tensors import TensorFile

Mark = tuple[str, ...]


class Foreign(NamedTuple):
    """A kind of file: what it is called, what it does, and its two marks."""

    name: str
    use: str
    first: Mark
    second: Mark


LORA = (".lora_down.", ".lora_up.", ".lora_A.", ".lora_B.", "_lora.down.", "_lora.up.", ".lora.down.", ".lora.up.",
        ".hada_w1", ".lokr_w1", ".alpha")  # fmt: skip
WIDTHS = ("320", "640", "768", "1024", "1280", "2048")
VIDEO, PICTURES = "makes videos", "makes pictures by another network"

KINDS: tuple[Foreign, ...] = (
    # additions to a model
    Foreign("a motion LoRA of AnimateDiff", "moves the camera of its videos",
            ("motion_modules.", "motion_modules_"), LORA),
    Foreign("a SparseCtrl of AnimateDiff", "steers its videos", ("motion_modules.",),
            ("input_hint_block.", "controlnet_cond_embedding.")),
    Foreign("a motion module of AnimateDiff", "makes videos with a Stable Diffusion model", ("motion_modules.",),
            (".temporal_transformer.", "motion_modules.0.proj_in.", "motion_modules.0.transformer_blocks.",
            ".pos_encoder.")),
    Foreign("a hypernetwork", "changes the tokens that a U-Net reads", tuple(f"^{width}.0.linear" for width in WIDTHS),
            tuple(f"^{width}.1.linear" for width in WIDTHS)),
    Foreign("a style T2I-Adapter", "gives a picture the style of another", ("style_embedding",),
            ("transformer_layes.0.",)),
    Foreign("a ControlNet-LLLite", "steers a picture by small layers in a U-Net", ("lllite_",),
            (".conditioning1.", ".down.")),
    Foreign("a ControlNet for a transformer (Stable Diffusion 3, Flux)", "steers pictures", ("controlnet_blocks.0.",),
            ("transformer_blocks.0.", "controlnet_x_embedder.", "pos_embed_input.", "double_blocks.0.")),
    Foreign("a GLIGEN model", "puts things into boxes", ("position_net.",), (".fuser.",)),
    # diffusion models of the same layout
    Foreign("a Stable Video Diffusion model", "makes a video of a picture",
            (".time_stack.", ".temporal_transformer_blocks."),
            (".time_mixer.", ".temporal_res_block.")),
    Foreign("a ModelScope or VideoCrafter model", "makes videos of text", (".temopral_conv.", ".temp_convs.0."),
            (".temp_attentions.0.", "transformer_in.", "init_attn.0.", "input_blocks.1.2.")),
    Foreign("a Zero123 model", "shows a thing from another side", ("cc_projection.",),
            (".visual.", ".input_blocks.0.0.")),
    Foreign("an MVDream model", "shows a thing from several sides", ("camera_embed.",),
            ("input_blocks.0.0.", "down_blocks.0.")),
    Foreign("a Stable unCLIP model", "makes variations of a picture from its CLIP vector",
            ("label_emb.0.0.", "class_embedding."),
            ("^noise_augmentor.", "^embedder.", "^cond_stage_model.model.", "image_normalizer.")),
    Foreign("a Stable Diffusion 4x upscaler", "enlarges pictures", ("label_emb.weight", "class_embedding.weight"),
            ("^low_scale_model.", "^cond_stage_model.model.", "input_blocks.0.0.", "down_blocks.0.resnets.")),
    Foreign("a Paint by Example model", "paints a thing of one picture into another", ("cond_stage_model.mapper.",),
            ("learnable_vector", "proj_out.")),
    Foreign("a latent diffusion model with BERT", "makes pictures, as before Stable Diffusion",
            ("transformer.attn_layers.",),
            ("transformer.token_emb.",)),
    # U-Nets of other models
    Foreign("a DeepFloyd IF model", "makes pictures of pixels instead of latents",
            ("add_embedding.pool.", "encoder_pooling."),
            ("encoder_hid_proj.", "encoder_proj.")),
    Foreign("a Kandinsky 2 model", "makes pictures of CLIP vectors",
            ("encoder_hid_proj.image_embeds.", "encoder_hid_proj.text_proj.", "to_model_dim_n.",
            "encoder_hid_proj.weight"),
            ("add_embedding.image_", "add_embedding.text_proj.", "clip_to_seq.", "ln_model_n.", "proj_n.")),
    Foreign("a Kolors model", "makes pictures by a U-Net of XL with the text encoder ChatGLM",
            ("encoder_hid_proj.weight",),
            ("add_embedding.linear_1.", "label_emb.0.0.")),
    Foreign("a text encoder of Kolors (ChatGLM)", "reads prompts for Kolors", (".self_attention.query_key_value.",),
            ("word_embeddings.", "rotary_pos_emb.")),
    Foreign("the autoencoder of Kandinsky (MoVQ)", "decodes its latents", (".norm_layer.", ".conv_y."),
            ("quantize.embedding.",)),
    Foreign("a Stable Cascade or Wuerstchen model", PICTURES,
            ("clip_txt_mapper.", "clip_txt_pooled_mapper.", "effnet_mapper.", "clip_mapper.", "cond_mapper."),
            (".channelwise.0.", ".kv_mapper.", "clip_img_mapper.", "c_mapper.")),
    # transformers
    Foreign("a HunyuanVideo model", VIDEO, ("individual_token_refiner.", "token_refiner.refiner_blocks."),
            ("double_blocks.0.", "transformer_blocks.0.")),
    Foreign("a Chroma model", PICTURES, ("distilled_guidance_layer.",), ("double_blocks.0.", "transformer_blocks.0.")),
    Foreign("a Flux.2 model", PICTURES, ("double_stream_modulation_img.",),
            ("double_blocks.0.", "transformer_blocks.0.")),
    Foreign("a Flux model", PICTURES, ("double_blocks.0.img_attn.",),
            ("double_blocks.0.txt_attn.", "single_blocks.0.", "guidance_in.", "txt_in.")),
    Foreign("a Flux model", PICTURES, ("single_transformer_blocks.0.attn.",),
            ("x_embedder.weight", "time_text_embed.")),
    Foreign("a HiDream model", PICTURES, ("double_stream_blocks.0.",),
            ("caption_projection.0.", "single_stream_blocks.0.")),
    Foreign("an AuraFlow model", PICTURES, ("double_layers.0.", "joint_transformer_blocks.0."),
            ("cond_seq_linear.", "single_layers.0.", "register_tokens", ".w1q.")),
    Foreign("a Qwen-Image model", PICTURES, ("transformer_blocks.0.img_mod.",),
            ("transformer_blocks.0.txt_mod.", "txt_norm.")),
    Foreign("an LTX-Video model", VIDEO, ("patchify_proj.",), ("scale_shift_table", "adaln_single.")),
    Foreign("a Sana model", PICTURES, ("attention_y_norm.", "caption_norm."), (".inverted_conv.", ".conv_inverted.")),
    Foreign("a PixArt model", PICTURES, ("scale_shift_table",), ("caption_projection.", "y_embedder.y_proj.")),
    Foreign("a HunyuanDiT model", PICTURES, ("text_embedding_padding",),
            ("pooler.", "mlp_t5.", ".default_modulation.", "text_embedder.linear_1.")),
    Foreign("a Z-Image model", PICTURES, ("cap_pad_token", "x_pad_token"), ("noise_refiner.0.",)),
    Foreign("an OmniGen model", PICTURES, ("ref_image_refiner.", "input_x_embedder."),
            ("noise_refiner.0.", "layers.0.self_attn.")),
    Foreign("a Lumina model", PICTURES, ("cap_embedder.", "caption_embedder."),
            ("noise_refiner.0.", "context_refiner.0.", "layers.0.attention.", "layers.0.attn2.")),
    Foreign("a Wan model", VIDEO, ("time_projection.1.", "condition_embedder.time_proj."),
            ("text_embedding.0.", "condition_embedder.text_embedder.")),
    Foreign("a CogVideoX or CogView model", VIDEO, ("patch_embed.text_proj.", "mixins.adaln_layer."),
            ("transformer_blocks.0.norm1.linear.", "mixins.patch_embed.")),
    Foreign("a Mochi model", VIDEO, ("blocks.0.mod_x.", "t5_y_embedder."), ("blocks.0.mod_y.", "t5_yproj.")),
    Foreign("a Cosmos model", VIDEO, ("adaLN_modulation_self_attn", "adaln_modulation_self_attn", "blocks.block0."),
            ("extra_pos_embedder", "x_embedder.proj.1.")),
    Foreign("a Stable Audio model", "makes sound", ("conditioner.conditioners.",),
            ("to_timestep_embed.", "pretransform.")),
    # autoencoders
    Foreign("the autoencoder of Wan or Qwen-Image", "decodes their latents",
            ("encoder.middle.0.", "encoder.mid_block.resnets.0.norm1.gamma"),
            ("decoder.upsamples.0.", "decoder.upsamples.1.", "decoder.up_blocks.0.resnets.0.norm1.gamma")),
    Foreign("the autoencoder of LTX-Video", "decodes its latents", ("per_channel_statistics.",),
            ("decoder.up_blocks.0.", "encoder.down_blocks.0.")),
    Foreign("a deep compression autoencoder (Sana)", "decodes its latents", (".op_list.0.", "encoder.down_blocks.0.0."),
            ("encoder.project_in.", "decoder.up_blocks.0.0.")),
    Foreign("a video autoencoder", "decodes the latents of videos", ("decoder.time_conv_out.", "decoder.temporal_"),
            ("encoder.conv_in.", "encoder.down")),
    # what works on finished pictures
    Foreign("a face restorer (GFPGAN, CodeFormer)", "mends faces in pictures",
            ("stylegan_decoder.", "quantize.embedding."),
            ("toRGB.", "style_conv1.", "fuse_convs_dict.", "position_emb$")),
    Foreign("an ESRGAN upscaler", "enlarges finished pictures", ("conv_first.", "^model.0.", "params_ema.model.0."),
            ("body.0.rdb1.", "RRDB_trunk.0.", "model.1.sub.0.", "conv_up1.", "upconv1.", "body.0.RDB1.")),
    Foreign("a SwinIR, HAT or DAT upscaler", "enlarges finished pictures", ("conv_first.",),
            (".residual_group.", "layers.0.blocks.0.")),
    Foreign("a compact ESRGAN upscaler", "enlarges finished pictures", ("^body.0.weight", "^params.body.0.weight"),
            ("^body.1.weight", "^params.body.1.weight")),
)  # fmt: skip

ADAPTERS: tuple[Foreign, ...] = (
    Foreign("Wan", VIDEO, ("blocks.0.cross_attn.", "blocks_0_cross_attn_", "blocks.0.self_attn.",
            "blocks_0_self_attn_"), LORA),
    Foreign("HunyuanVideo", VIDEO,
            ("token_refiner.", "txt_in.individual", "double_blocks_0_img_attn_qkv", "double_blocks.0.img_attn_qkv"),
            LORA),
    Foreign("Qwen-Image", PICTURES,
            ("transformer_blocks.0.txt_mod.", "transformer_blocks_0_txt_mod_", ".img_mlp.net.", "_img_mlp_net_"), LORA),
    Foreign("LTX-Video", VIDEO, ("patchify_proj", "caption_projection.linear_1.lora"), LORA),
    Foreign("PixArt", PICTURES, ("adaln_single",), LORA),
    Foreign("HiDream", PICTURES, ("double_stream_blocks",), LORA),
    Foreign("HunyuanDiT", PICTURES, ("default_modulation",), LORA),
    Foreign("Z-Image or Lumina 2", PICTURES,
            ("noise_refiner", "context_refiner", "layers.0.adaLN_modulation", "layers_0_adaLN_modulation"), LORA),
    Foreign("Stable Cascade", PICTURES, ("channelwise", "kv_mapper"), LORA),
    Foreign("Kandinsky 2", PICTURES, ("add_k_proj",), (".mid_block.attentions", "unet.", "down_blocks.")),
    Foreign("AuraFlow", PICTURES, ("double_layers_0_", "double_layers.0."), LORA),
)  # fmt: skip
"""Models whose adapters have names that no adapter for a model run here has."""

PIPELINES: dict[str, tuple[str, str]] = {
    "KolorsPipeline": ("a Kolors model", "has the text encoder ChatGLM"),
    "KolorsImg2ImgPipeline": ("a Kolors model", "has the text encoder ChatGLM"),
    "KolorsInpaintPipeline": ("a Kolors model", "has the text encoder ChatGLM"),
    "StableVideoDiffusionPipeline": ("a Stable Video Diffusion model", "makes a video of a picture"),
    "StableUnCLIPPipeline": ("a Stable unCLIP model", "makes pictures of CLIP vectors"),
    "StableUnCLIPImg2ImgPipeline": ("a Stable unCLIP model", "makes variations of a picture"),
    "StableDiffusionImageVariationPipeline": ("an image variation model", "reads a picture instead of text"),
    "StableDiffusionUpscalePipeline": ("a Stable Diffusion 4x upscaler", "enlarges pictures"),
    "StableDiffusionLatentUpscalePipeline": ("a latent upscaler", "enlarges latents"),
    "StableDiffusionGLIGENPipeline": ("a GLIGEN model", "puts things into boxes"),
    "PaintByExamplePipeline": ("a Paint by Example model", "paints a thing of one picture into another"),
    "LDMTextToImagePipeline": ("a latent diffusion model with BERT", "makes pictures, as before Stable Diffusion"),
    "TextToVideoSDPipeline": ("a ModelScope model", "makes videos of text"),
    "I2VGenXLPipeline": ("an I2VGen-XL model", "makes a video of a picture"),
    "AnimateDiffPipeline": ("an AnimateDiff model", "makes videos"),
    "IFPipeline": ("a DeepFloyd IF model", "makes pictures of pixels instead of latents"),
    "AltDiffusionPipeline": ("an AltDiffusion model", "has the text encoder XLM-RoBERTa"),
}  # fmt: skip
"""Class of a diffusers folder whose networks alone could be taken for a model that is run -> what it is."""

PACKED: tuple[Foreign, ...] = (
    Foreign("4 bits of SVDQuant (Nunchaku)", "", (".qweight",), (".wscales", ".smooth", ".smooth_factor")),
    Foreign("NF4 or FP4 of bitsandbytes", "", (".absmax",), (".quant_map", ".quant_state", ".nested_absmax")),
    Foreign("8-bit integers of bitsandbytes", "", (".SCB",), (".weight", ".weight_format")),
    Foreign("4 bits of GPTQ", "", (".qweight",), (".g_idx",)),
    Foreign("4 bits of AWQ", "", (".qweight",), (".qzeros", ".scales")),
    Foreign("4 bits of EXL2", "", (".q_weight",), (".q_scale", ".q_groups")),
    Foreign("packed integers of compressed-tensors", "", (".weight_packed",), (".weight_scale", ".weight_shape")),
    Foreign("NVFP4", "", (".weight_scale_2",), (".weight_scale", ".input_scale")),
    Foreign("MXFP4", "", ("_blocks$", ".blocks$"), ("_scales$", ".scales$")),
    Foreign("integers of optimum-quanto", "", (".weight._data",), (".weight._scale",)),
    Foreign("bits of HQQ", "", (".W_q",), (".scale", ".zero", ".meta")),
)
"""Ways to pack weights that are not read."""
BYTES = {torch.uint8: "4 bits (NVFP4, MXFP4)", torch.int8: "8-bit integers", torch.int32: "packed integers"}
SCALES = ("_scale", "_scales", "_scale_inv", "_scale_2")
"""Ends of the names of scales, after that of a weight."""


def foreign_kind(names: Iterable[str]) -> str | None:
    """What a file of these names is, and what for, where it is a model of another kind: "a Kolors model, which ..."."""
    found = _first(KINDS, names)
    return None if found is None else f"{found.name}, which {found.use}"


def foreign_adapter(names: Iterable[str]) -> str | None:
    """The model that an adapter of these names is for, where that is none of those that run here."""
    found = _first(ADAPTERS, names)
    return None if found is None else found.name


def packing_of(tensors: TensorFile) -> str | None:
    """How the weights of a file are packed, where that is a way that is not read."""
    found = _first(PACKED, tensors)
    if found is not None:
        return found.name
    for name in tensors:
        if name.endswith(".weight") and tensors.info(name).dtype in BYTES:
            if any(name + end in tensors for end in SCALES) or f"{name.removesuffix('weight')}comfy_quant" in tensors:
                return BYTES[tensors.info(name).dtype]
    return None


def refuse_foreign(tensors: TensorFile, path: Path | None = None) -> None:
    """UnknownModel where a file is a model of another kind, or its weights are packed in a way that is not read."""
    place = tensors.path if path is None else path
    kind = foreign_kind(tensors)
    if kind is not None:
        raise UnknownModel(f"{place} is {kind}; this version runs Stable Diffusion 1, 2, XL and 3 alone")
    packing = packing_of(tensors)
    if packing is not None:
        raise UnknownModel(
            f"{place} has its weights in {packing}, which this version does not read; "
            "the same model in float32, float16, bfloat16, float8 or as GGUF is expected"
        )


def _first(kinds: Iterable[Foreign], names: Iterable[str]) -> Foreign | None:
    text = "\n" + "\n".join(names) + "\n"
    return next((kind for kind in kinds if _in(text, kind.first) and _in(text, kind.second)), None)


def _in(text: str, mark: Mark) -> bool:
    return any(piece.replace("^", "\n").replace("$", "\n") in text for piece in mark)
