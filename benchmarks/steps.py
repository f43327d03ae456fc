"""One guided step (two rows: with the prompt and without) of the denoising network, all sides on the same weights."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import torch

from .measure import Call
from .networks import dtype_of, engine, raw_openvino, unets
from .rows import Absent, Goal, Row, Side, installed

LATENT = {("sd15", False): 64, ("sdxl", False): 128, ("sd15", True): 8, ("sdxl", True): 8}
OURS = "ours, default engine, bfloat16"
INT8 = "ours, default engine, int8"
RAW = "OpenVINO on diffusers' network, bfloat16"


def arguments(family: str, quick: bool) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor | None]:
    """(x, timestep, tokens, vector) of a guided call, float32: one latent, with the prompt and without."""
    torch.manual_seed(1)
    side, width = LATENT[family, quick], 64 if quick else {"sd15": 768, "sdxl": 2048}[family]
    vector = None if family == "sd15" else torch.randn(2, 64 if quick else 2816)
    return torch.randn(1, 4, side, side).repeat(2, 1, 1, 1), torch.full((2,), 500.0), torch.randn(2, 77, width), vector


def ours(family: str, quick: bool, name: str, dtype: str, precision: str = "stored") -> Call:
    """Our network on one of our engines."""
    runs = engine(name, precision)
    x, timestep, tokens, vector = arguments(family, quick)
    kind = dtype_of(dtype)
    network = runs.network(unets(family, dtype, quick)[1], "denoiser")
    named = {} if vector is None else {"vector": vector.to(kind)}
    return inferring(lambda: network(x.to(kind), timestep, tokens.to(kind), **named))


def inferring(call: Call) -> Call:
    def without_gradients() -> object:
        with torch.inference_mode():
            return call()

    return without_gradients


def example(family: str, quick: bool, dtype: str) -> dict[str, Any]:
    """The same arguments as diffusers takes them."""
    x, timestep, tokens, vector = arguments(family, quick)
    kind = dtype_of(dtype)
    given: dict[str, Any] = {"sample": x.to(kind), "timestep": timestep, "encoder_hidden_states": tokens.to(kind)}
    if vector is not None:  # six numbers on size, embedded by diffusers itself
        numbers = 6 if not quick else 1
        pooled = vector.shape[1] - numbers * (256 if not quick else 8)
        given["added_cond_kwargs"] = {"text_embeds": vector[:, :pooled].to(kind), "time_ids": torch.ones(2, numbers)}
    return given


def diffusers(family: str, quick: bool, dtype: str, *, compiled: bool = False) -> Call:
    if compiled and quick:
        raise Absent("compiling takes a minute, whatever the size")
    network = unets(family, dtype, quick)[0]
    given = example(family, quick, dtype)
    if compiled:
        network = torch.compile(network)
    call = inferring(lambda: network(**given, return_dict=False))
    if compiled:
        try:
            call()
        except Exception as error:
            raise Absent(f"diffusers does not compile here: {str(error).splitlines()[0][:80]}") from error
    return call


class _Plain(torch.nn.Module):
    """diffusers' U-Net with plain arguments and a plain answer, as converters want it."""

    def __init__(self, network: Any) -> None:
        super().__init__()
        self.network = network

    def forward(self, sample: Any, timestep: Any, encoder_hidden_states: Any, *more: Any) -> Any:
        added = {"added_cond_kwargs": {"text_embeds": more[0], "time_ids": more[1]}} if more else {}
        return self.network(sample, timestep, encoder_hidden_states, return_dict=False, **added)[0]


def openvino(family: str, quick: bool, dtype: str) -> Call:
    given = example(family, quick, "float32")
    added = given.pop("added_cond_kwargs", None)
    if added is not None:
        raise Absent("raw OpenVINO is measured with Stable Diffusion 1.5 alone: SDXL in float32 takes 10 GB to convert")
    network = unets(family, dtype, quick)[0]
    if dtype != "float32":  # traced in float32, as its guide has it
        network = copy.deepcopy(network).float()
    small = {**given, "sample": given["sample"][..., :8, :8]}
    call: Call = raw_openvino(_Plain(network), given, small)
    return call


def onnx(family: str, quick: bool) -> Call:
    """ONNX Runtime in float32, the only precision that its CPU provider computes U-Nets in."""
    import io

    installed("onnxruntime", "ONNX Runtime")
    installed("onnx")
    import onnxruntime

    if not quick:
        raise Absent("ONNX Runtime takes models above 2 GB from files alone; measured with a tiny network (--quick)")
    given, file = example(family, quick, "float32"), io.BytesIO()
    network = _Plain(unets(family, "float32", quick)[0])
    torch.onnx.export(network, tuple(given.values()), file, dynamo=False, input_names=list(given))
    session = onnxruntime.InferenceSession(file.getvalue(), providers=["CPUExecutionProvider"])
    feed = {name: value.numpy() for name, value in given.items()}
    return lambda: session.run(None, feed)


def flops(family: str, quick: bool) -> float:
    """Operations of a guided call, counted on no device."""
    from torch.utils.flop_counter import FlopCounterMode

    from .networks import _ours

    with torch.device("meta"):
        network = _ours(family, quick).eval()
    x, timestep, tokens, vector = arguments(family, quick)
    named = {} if vector is None else {"vector": vector.to("meta")}
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        network(x.to("meta"), timestep.to("meta"), tokens.to("meta"), **named)
    return float(counter.get_total_flops())


def rows(quick: bool) -> Iterator[Row]:
    """sd15-step, sd15-step-compiled, sdxl-step."""

    def side(name: str, make: Callable[..., Call], *given: Any, **named: Any) -> Side:
        return Side(name, partial(make, *given, **named))

    sd15 = ("sd15", quick)
    yield Row(
        "sd15-step",
        "Stable Diffusion 1.5, 512x512, one guided step",
        (
            side(OURS, ours, *sd15, "auto", "bfloat16"),
            side(INT8, ours, *sd15, "auto", "bfloat16", "int8"),
            side("diffusers, float32 (its default)", diffusers, *sd15, "float32"),
            side("diffusers, bfloat16", diffusers, *sd15, "bfloat16"),
            side("ONNX Runtime, float32", onnx, *sd15),
        ),
        flops=partial(flops, *sd15),
        repeats=2,
        goals=(
            Goal(OURS, "diffusers, float32 (its default)", 2.8),
            Goal(OURS, "diffusers, bfloat16", 1.6),
            Goal(INT8, "diffusers, float32 (its default)", 4.0),
        ),
    )
    yield Row(
        "sd15-step-openvino",
        "The same beside OpenVINO, as our engine and on diffusers' network",
        (
            side(OURS, ours, *sd15, "auto", "bfloat16"),
            side("ours, OpenVINO, bfloat16", ours, *sd15, "openvino", "bfloat16"),
            side(RAW, openvino, *sd15, "bfloat16"),
        ),
        flops=partial(flops, *sd15),
        goals=(Goal(OURS, RAW, 1.0), Goal("ours, OpenVINO, bfloat16", RAW, 1.0)),
    )
    yield Row(
        "sd15-step-compiled",
        "The same beside diffusers compiled by torch.compile",
        (
            side(OURS, ours, *sd15, "auto", "bfloat16"),
            side("diffusers, bfloat16, compiled", diffusers, *sd15, "bfloat16", compiled=True),
        ),
        flops=partial(flops, *sd15),
    )
    sdxl = ("sdxl", quick)
    yield Row(
        "sdxl-step",
        "Stable Diffusion XL, 1024x1024, one guided step",
        (side(OURS, ours, *sdxl, "auto", "bfloat16"), side("diffusers, bfloat16", diffusers, *sdxl, "bfloat16")),
        flops=partial(flops, *sdxl),
        repeats=2,
        goals=(Goal(OURS, "diffusers, bfloat16", 1.6),),
    )
    yield Row(
        "sdxl-step-float32",
        "The same beside diffusers' default, which needs 10 GB for its weights",
        (
            side(OURS, ours, *sdxl, "auto", "bfloat16"),
            side("diffusers, float32 (its default)", diffusers, *sdxl, "float32"),
        ),
        flops=partial(flops, *sdxl),
        repeats=1,
        warm=False,
        goals=(Goal(OURS, "diffusers, float32 (its default)", 2.5),),
    )
