"""Mutated model files, many and seeded: each must be read, or refused with the package's own error, quickly.

    python scripts/fuzz_headers.py --count 100000 --seed 1

Kinds: safetensors headers, torch checkpoints (zip, its pickle alone, and the older stream), GGUF headers, configs of
folders, adapters put on a network, and models whose tensors have other names and shapes than they should, detected
("model") and built ("load"). Prints one line for each kind: how
many were read and how many refused, the slowest, and every other exception with the seed that makes it again. Exit
code 1 where there was one.
"""

from __future__ import annotations

import argparse
import io
import json
import random
import resource
import struct
import sys
import tempfile
import time
import traceback
import zipfile
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor

from stable_diffusion.adapters.attach import match
from stable_diffusion.adapters.file import read_adapter
from stable_diffusion.adapters.patch import stack_of
from stable_diffusion.adapters.targets import Network, unet_targets
from stable_diffusion.errors import ModelFileError
from stable_diffusion.models.clip import CLIPTextConfig
from stable_diffusion.models.unet import UNet, UNetConfig
from stable_diffusion.models.vae import VAE, VAEConfig
from stable_diffusion.weights.checkpoints.folder import read_config
from stable_diffusion.weights.checkpoints.places import rename_to_ldm
from stable_diffusion.weights.checkpoints.scheduler import schedule_from_words
from stable_diffusion.weights.checkpoints.single import read_single
from stable_diffusion.weights.containers.limits import using_config
from stable_diffusion.weights.containers.open import read_tensors
from stable_diffusion.weights.containers.safetensors import write_safetensors
from stable_diffusion.weights.containers.tensors import TensorFile, TensorInfo
from stable_diffusion.weights.load import build_parts
from stable_diffusion.weights.networks.clip import clip_from_words, clip_transformers
from stable_diffusion.weights.networks.unet import unet_ldm
from stable_diffusion.weights.networks.unet_words import unet_from_words
from stable_diffusion.weights.networks.vae import latents_from_words, vae_from_words, vae_ldm

EDGES = (0, 1, 2, 7, 8, 255, 2**15, 2**16, 2**31 - 1, 2**31, 2**32 - 1, 2**48, 2**62, 2**63 - 1, 2**63, 2**64 - 1)
"""Numbers at which readers break."""
SLOW = 5.0
"""Seconds after which a case counts as one that hangs."""
STATE = {"a.weight": torch.arange(12.0).reshape(3, 4), "b": torch.ones(5, dtype=torch.float16), "c": torch.zeros(2, 2)}


def safetensors_file() -> bytes:
    entries, position, data = {}, 0, b""
    kinds = {torch.float32: "F32", torch.float16: "F16"}
    for name, tensor in STATE.items():
        raw = tensor.numpy().tobytes()
        offsets = [position, position + len(raw)]
        entries[name] = {"dtype": kinds[tensor.dtype], "shape": list(tensor.shape), "data_offsets": offsets}
        position, data = position + len(raw), data + raw
    header = json.dumps({"__metadata__": {"format": "pt"}, **entries}).encode()
    return struct.pack("<Q", len(header)) + header + data


def torch_file(*, archive: bool) -> bytes:
    buffer = io.BytesIO()
    torch.save({"state_dict": STATE, "global_step": 3}, buffer, _use_new_zipfile_serialization=archive)
    return buffer.getvalue()


def gguf_file() -> bytes:
    def text(value: str) -> bytes:
        return struct.pack("<Q", len(value)) + value.encode()

    entries = text("general.name") + struct.pack("<I", 8) + text("a model")
    entries += text("general.numbers") + struct.pack("<IIQ", 9, 4, 2) + struct.pack("<II", 3, 4)
    entries += text("general.words") + struct.pack("<IIQ", 9, 8, 2) + text("one") + text("two")
    tensors = text("a") + struct.pack("<IQQIQ", 2, 32, 3, 8, 0) + text("b") + struct.pack("<IQIQ", 1, 5, 0, 128)
    head = b"GGUF" + struct.pack("<IQQ", 3, 2, 3) + entries + tensors
    return head + bytes(-len(head) % 32) + bytes(range(256))


def mutated(data: bytes, dice: random.Random, span: int) -> bytes:
    """One to six changes within the first or last `span` bytes: bits, runs, numbers, pieces moved, cut or doubled."""
    made = bytearray(data)
    for _ in range(dice.randint(1, 6)):
        if not made:
            break
        low = 0 if dice.random() < 0.7 else max(0, len(made) - span)
        at = min(len(made) - 1, low + dice.randrange(min(span, len(made))))
        what = dice.randrange(8)
        if what == 0:
            made[at] ^= 1 << dice.randrange(8)
        elif what == 1:
            made[at : at + dice.randint(1, 8)] = dice.randbytes(dice.randint(0, 9))
        elif what == 2:
            made[at : at + 8] = struct.pack("<Q", dice.choice(EDGES))
        elif what == 3:
            made[at : at + 4] = struct.pack("<I", dice.choice(EDGES) & 0xFFFFFFFF)
        elif what == 4:
            del made[at : at + dice.randint(1, 40)]
        elif what == 5:
            piece = made[at : at + dice.randint(1, 40)]
            made[at:at] = piece
        elif what == 6:
            del made[at:]
        else:
            made[at] = dice.choice(b'{}[]",:-0.9eE()tR\x80\x00\xff')
    return bytes(made)


def mutated_json(data: bytes, dice: random.Random, span: int) -> bytes:
    """A safetensors file whose header is still JSON, with values that are wrong; sometimes changed bytes as well."""
    if dice.random() < 0.4:
        return mutated(data, dice, span)
    length = struct.unpack("<Q", data[:8])[0]
    header = json.loads(data[8 : 8 + length])
    for _ in range(dice.randint(1, 3)):
        name = dice.choice(list(header))
        wrong = dice.choice([None, True, -1, 1.5, 2**70, "F32", [], {}, [0, 1], [[1]], {"a": "b"}, "../../x", *EDGES])
        if isinstance(header[name], dict) and header[name] and dice.random() < 0.8:
            field = dice.choice(list(header[name]))
            if isinstance(header[name][field], list) and header[name][field] and dice.random() < 0.7:
                header[name][field][dice.randrange(len(header[name][field]))] = wrong
            else:
                header[name][field] = wrong
        elif dice.random() < 0.5:
            header[name] = wrong
        else:
            header[dice.choice(["", "../a", "\0", "x" * 300, "__metadata__"])] = header.pop(name)
    raw = json.dumps(header).encode()
    return struct.pack("<Q", len(raw) + dice.choice([0, 0, 0, 1, -1])) + raw + data[8 + length :]


def model_shapes() -> dict[str, tuple[int, ...]]:
    """Names and shapes of a small model in the layout of the first releases."""
    unet = UNetConfig(channels=(32, 64), transformer_depth=(1, 0), mid_depth=1, heads=8, context_dim=64)
    vae, clip = VAEConfig(channels=(32, 64), blocks_per_stage=1), CLIPTextConfig(width=64, layers=2, heads=1)
    from stable_diffusion.models.clip import CLIPText

    with torch.device("meta"):
        parts = {
            "model.diffusion_model.": unet_ldm(unet).invert(UNet(unet).state_dict()),
            "first_stage_model.": vae_ldm(vae).invert(VAE(vae).state_dict()),
            "cond_stage_model.transformer.": clip_transformers(clip).invert(CLIPText(clip).state_dict()),
        }
    return {prefix + name: tuple(t.shape) for prefix, state in parts.items() for name, t in state.items()}


def mutated_shapes(shapes: dict[str, tuple[int, ...]], dice: random.Random) -> dict[str, tuple[int, ...]]:
    """Some tensors with other shapes, other names, or gone."""
    made, names = dict(shapes), list(shapes)
    for _ in range(dice.randint(1, 8)):
        name = dice.choice(names)
        shape = list(made.get(name, (1,)))
        what = dice.randrange(6)
        if what == 0:
            made.pop(name, None)
        elif what == 1 and shape:
            shape[dice.randrange(len(shape))] = dice.choice(EDGES[:10])
            made[name] = tuple(shape)
        elif what == 2:
            made[name] = tuple(shape[: dice.randrange(len(shape) + 1)])
        elif what == 3:
            made[name] = (*shape, dice.choice((0, 1, 3)))
        elif what == 4:
            made[name.replace(".0.", f".{dice.choice((1, 2, 9, 77, 999, 10**9))}.", 1)] = made.pop(name, (1,))
        else:
            made[name[dice.randrange(len(name)) :]] = made.pop(name, (1,))
    return made


def repacked(archive: bytes, dice: random.Random) -> bytes:
    """A zip checkpoint whose pickle is changed and whose checksums are right, so that the pickle is what is read."""
    made = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(archive)) as source, zipfile.ZipFile(made, "w") as target:
        for name in source.namelist():
            data = source.read(name)
            target.writestr(name, mutated(data, dice, len(data)) if name.endswith("data.pkl") else data)
    return made.getvalue()


SMALL_UNET = {"block_out_channels": [32, 64], "down_block_types": ["CrossAttnDownBlock2D", "DownBlock2D"],
              "up_block_types": ["UpBlock2D", "CrossAttnUpBlock2D"], "in_channels": 4, "out_channels": 4,
              "cross_attention_dim": 32, "attention_head_dim": 8}  # fmt: skip
CONFIGS: dict[str, tuple[dict[str, object], Callable[[dict[str, object], Path], object]]] = {
    "unet": (SMALL_UNET, unet_from_words),
    "vae": (
        {"block_out_channels": [32, 64], "scaling_factor": 0.18, "shift_factor": 0.1, "latent_channels": 4},
        lambda config, path: latents_from_words(config, vae_from_words(config, path)),
    ),
    "clip": (
        {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 1, "intermediate_size": 64,
         "hidden_act": "gelu", "vocab_size": 99, "eos_token_id": 98},
        lambda config, path: clip_from_words(config, path, projection=True),
    ),
    "scheduler": (
        {"beta_start": 0.1, "beta_end": 0.2, "num_train_timesteps": 10, "trained_betas": [0.1, 0.2], "shift": 3.0,
         "prediction_type": "epsilon", "beta_schedule": "linear", "rescale_betas_zero_snr": True, "_class_name": "X"},
        schedule_from_words,
    ),
}  # fmt: skip
"""Component of a folder -> a good config, and what reads it."""


def try_config(path: Path, dice: random.Random) -> None:
    """Read the config of a component in which some values are others."""
    good, read = CONFIGS[dice.choice(list(CONFIGS))]
    config = dict(good)
    odd = [None, True, -1, 0, 1.5, 1e300, 2**70, "", "F32", "Flow", [], [0], [[1]], [None] * 3, {}, {"a": "b"}, *EDGES]
    for _ in range(dice.randint(1, 3)):
        name, value = dice.choice(list(config)), dice.choice(odd)
        if dice.random() < 0.2:
            config.pop(name, None)
        elif isinstance(config[name], list) and config[name] and dice.random() < 0.5:
            config[name] = [dice.choice([value, *config[name]]) for _ in range(dice.randint(0, 20))]
        else:
            config[name] = value
    raw = json.dumps(config).encode()
    path.write_bytes(mutated(raw, dice, len(raw)) if dice.random() < 0.3 else raw)
    with using_config(path):
        read(read_config(path), path)


PARTS = (
    "lora_up.weight lora_down.weight lora_mid.weight alpha dora_scale lora_A.weight lora_B.weight lora_B.bias diff "
    "diff_b w_norm b_norm hada_w1_a hada_w1_b hada_w2_a hada_w2_b hada_t1 lokr_w1 lokr_w2 lokr_w1_a lokr_w1_b lokr_t2 "
    "oft_blocks oft_diag oft_R.weight rescale on_input weight a1.weight a2.weight b1.weight b2.weight bm.weight "
    "set_weight set_bias lora_magnitude_vector"
).split()


def adapter_network() -> Network:
    """A small U-Net, as adapters see it."""
    config = UNetConfig(channels=(32, 64), transformer_depth=(1, 0), mid_depth=1, heads=8, context_dim=32)
    return Network("unet", UNet(config).requires_grad_(False), unet_targets(config))


def try_adapter(path: Path, network: Network, dice: random.Random) -> None:
    """Put an adapter of random parts on a network for a moment."""
    stems = [stem for stem in network.targets if stem.startswith("lora_unet_down_blocks_0")]
    state: dict[str, Tensor] = {}
    for _ in range(dice.randint(1, 3)):
        stem, first = dice.choice(stems), dice.randrange(len(PARTS))
        for part in PARTS[first : first + dice.randint(1, 5)]:
            dims = 0 if part == "alpha" else dice.choice((0, 1, 2, 2, 2, 2, 2, 3, 4))
            sides = [dice.choice((0, 1, 2, 4, 8, 32, 32, 32, 32)) for _ in range(dims)]
            value = torch.full(sides, dice.choices((1.0, 0.0, -3e38, float("nan")), (30, 5, 1, 1))[0])
            state[f"{stem}.{part}"] = value.to(dice.choices((torch.float32, torch.float16, torch.int64), (30, 5, 1))[0])
    path.unlink(missing_ok=True)
    write_safetensors(path, state, {"lora_adapter_metadata": '{"unet.lora_alpha": 1e400}'})
    layers = match(read_adapter(path), [network]).layers(1.0, None)
    stack_of(network.module).with_layers(list(layers.values()))


def try_file(path: Path, data: bytes) -> None:
    """Read a file and every tensor in it."""
    path.write_bytes(data)
    tensors, _ = read_tensors(path)
    for name in tensors:
        tensors[name]


def try_shapes(path: Path, shapes: dict[str, tuple[int, ...]]) -> None:
    """Read a model by names and shapes alone."""
    infos = {name: TensorInfo(torch.float16, shape) for name, shape in shapes.items()}
    read_single(rename_to_ldm(TensorFile(path, infos, lambda name: torch.empty(0), "safetensors")), {})


def try_model(path: Path, shapes: dict[str, tuple[int, ...]]) -> None:
    """Load a model by names and shapes alone: its networks are built, compared and filled without memory."""
    infos = {name: TensorInfo(torch.float16, shape) for name, shape in shapes.items()}
    empty = TensorFile(path, infos, lambda name: torch.empty(shapes[name], dtype=torch.float16, device="meta"), "meta")
    tensors = rename_to_ldm(empty)
    build_parts(read_single(tensors, {}), dtype=None, device="meta")


def cases() -> dict[str, Callable[[random.Random, Path], None]]:
    """Kind -> a function that makes one case of these dice and reads it."""
    tensors, archive, stream = safetensors_file(), torch_file(archive=True), torch_file(archive=False)
    gguf, shapes, network = gguf_file(), model_shapes(), adapter_network()
    pickled = len(stream) - sum(t.numel() * t.element_size() for t in STATE.values())
    return {
        "safetensors": lambda dice, path: try_file(path, mutated_json(tensors, dice, len(tensors))),
        "zip": lambda dice, path: try_file(path, mutated(archive, dice, 900)),
        "pickle": lambda dice, path: try_file(path, repacked(archive, dice)),
        "stream": lambda dice, path: try_file(path, mutated(stream, dice, pickled)),
        "gguf": lambda dice, path: try_file(path, mutated(gguf, dice, len(gguf) - 256)),
        "config": lambda dice, path: try_config(path, dice),
        "adapter": lambda dice, path: try_adapter(path, network, dice),
        "model": lambda dice, path: try_shapes(path, mutated_shapes(shapes, dice)),
        "load": lambda dice, path: try_model(path, mutated_shapes(shapes, dice)),
    }


def fuzz(kind: str, count: int, seed: int, folder: Path) -> tuple[Counter[str], float, list[str]]:
    """(how the cases ended, seconds of the slowest, what went wrong with the seeds) of `count` cases of a kind."""
    run, ends, slowest, wrong = cases()[kind], Counter[str](), 0.0, []
    for number in range(seed, seed + count):
        path = folder / f"{kind}-{number % 64}.safetensors"
        start = time.perf_counter()
        try:
            run(random.Random(f"{kind} {number}"), path)
            ends["read"] += 1
        except ModelFileError as error:
            ends[type(error).__name__] += 1
            if "\n" in str(error) or len(str(error)) > 2000:
                wrong.append(f"{kind} {number}: a message of {len(str(error))} characters, not one sentence")
        except Exception as error:
            where = traceback.extract_tb(error.__traceback__)[-1]
            wrong.append(f"{kind} {number}: {type(error).__name__}: {error} ({where.filename}:{where.lineno})")
        took = time.perf_counter() - start
        slowest = max(slowest, took)
        if took > SLOW:
            wrong.append(f"{kind} {number}: took {took:.1f} seconds")
    return ends, slowest, wrong


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--count", type=int, default=1000, help="cases of all kinds together")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--kinds", nargs="*", default=list(cases()))
    given = parser.parse_args()
    failed = 0
    with tempfile.TemporaryDirectory() as folder:
        for kind in given.kinds:
            count = given.count // len(given.kinds) // (20 if kind == "load" else 1)  # each builds whole networks
            ends, slowest, wrong = fuzz(kind, count, given.seed, Path(folder))
            told = ", ".join(f"{end} {number}" for end, number in sorted(ends.items()))
            print(f"{kind}: {count} cases, {told}; slowest {slowest * 1000:.0f} ms; {len(wrong)} wrong", flush=True)
            for line in wrong[:20]:
                print(f"  {line}", flush=True)
            failed += len(wrong)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    print(f"peak memory {peak:.0f} MiB")
    sys.exit(1 if failed else 0)


if __name__ == "__main__":
    main()
