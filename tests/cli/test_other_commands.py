"""sample-grid, encode, decode, noise, info, list, doctor and train, on the tiny model."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from cli_helpers import Run, assert_one_sentence
from PIL import Image

from stable_diffusion.embedded import model_path


@pytest.fixture
def picture(here: Path) -> Path:
    Image.radial_gradient("L").resize((40, 27)).convert("RGB").save(here / "in.png")
    return here / "in.png"


def test_sample_grid_has_a_cell_for_every_combination(run: Run, here: Path, model_file: Path) -> None:
    arguments = ("--seeds", "1-3", "--cfg", "1,2", "--samplers", "euler", "--steps", "1", "--json")
    result = run("sample-grid", "a cat", "-m", model_file, *arguments)
    assert result.exit_code == 0, result.stderr
    facts = json.loads(result.stdout)
    assert facts["columns"] == [{"seed": 1}, {"seed": 2}, {"seed": 3}]
    assert facts["rows"] == [{"sampler": "euler", "steps": 1, "guidance": g} for g in (1.0, 2.0)]
    sheet = Image.open(here / facts["path"])
    assert sheet.width >= 3 * 16 and sheet.height >= 2 * 24


def test_sample_grid_shows_the_picture_of_that_seed(run: Run, here: Path, model_file: Path) -> None:
    assert run("sample-grid", "a cat", "-m", model_file, "--seeds", "5,6", "-o", "grid.png").exit_code == 0
    assert run("a cat", "-m", model_file, "-s", "6", "-o", "six.png").exit_code == 0
    six = Image.open(here / "six.png").convert("RGBA")
    paper = Image.new("RGBA", six.size, "white")
    expected = Image.alpha_composite(paper, six).convert("RGB")
    grid = Image.open(here / "grid.png").convert("RGB")
    left, top = 8 + (grid.width - 8) // 2, 22 + 4  # the second of two columns, which are as wide as their labels
    cell = grid.crop((left, top, left + 16, top + 24))
    pairs = zip(cell.tobytes(), expected.tobytes(), strict=True)
    assert max(abs(a - b) for a, b in pairs) <= 1  # two ways to round where alpha is partial


@pytest.mark.parametrize(
    ("option", "value", "words"),
    [
        ("--seeds", "5-1", ["'5-1'"]),
        ("--seeds", "1-9999", ["'1-9999'"]),
        ("--seeds", ",", ["empty"]),
        ("--cfg", "1,nan", ["'nan'", "finite"]),
        ("--steps", "1.5", ["'1.5'", "whole number"]),
    ],
)
def test_sample_grid_refuses_bad_lists(run: Run, option: str, value: str, words: list[str]) -> None:
    result = run("sample-grid", "a cat", option, value)
    assert_one_sentence(result.exit_code, result.stderr, *words, expected_code=2)


def test_encode_then_decode(run: Run, here: Path, picture: Path, model_file: Path) -> None:
    encoded = run("encode", "in.png", "-m", model_file, "--json")
    assert encoded.exit_code == 0, encoded.stderr
    facts = json.loads(encoded.stdout)
    assert facts == {"path": "in.safetensors", "shape": [1, 6, 3, 5], "width": 40, "height": 24}
    decoded = run("decode", "in.safetensors", "-m", model_file)
    assert decoded.exit_code == 0, decoded.stderr
    assert decoded.stdout == "outputs/in.png\n"
    assert Image.open(here / "outputs/in.png").size == (40, 24)
    about = json.loads(run("info", "in.safetensors", "--json").stdout)
    assert about["kind"] == "latent" and about["shape"] == [1, 6, 3, 5] and about["model"] == "tiny"


def test_decode_refuses_what_is_no_latent(run: Run, here: Path, model_file: Path) -> None:
    result = run("decode", model_file, "-m", model_file)
    assert_one_sentence(result.exit_code, result.stderr, "is not a latent", "encode")


@pytest.mark.parametrize("extra", [[], ["--pixels"]])
def test_noise_strip(run: Run, here: Path, picture: Path, model_file: Path, extra: list[str]) -> None:
    result = run("noise", "in.png", "-m", model_file, "--timesteps", "0,500,1000", "--json", *extra)
    assert result.exit_code == 0, result.stderr
    facts = json.loads(result.stdout)
    assert [level["timestep"] for level in facts["levels"]] == [0, 500, 1000]
    assert [level["signal"] for level in facts["levels"]] == pytest.approx([1, 0.5, 0])
    assert Image.open(here / facts["path"]).width >= 3 * 40


def test_noise_refuses_a_timestep_outside(run: Run, picture: Path, model_file: Path) -> None:
    result = run("noise", "in.png", "-m", model_file, "--timesteps", "0,2000")
    assert_one_sentence(result.exit_code, result.stderr, "2000", "1000")


def test_info_of_a_model(run: Run, model_file: Path) -> None:
    facts = json.loads(run("info", model_file, "--json").stdout)
    assert facts["kind"] == "model" and facts["layout"] == "native" and facts["prediction"] == "flow"
    assert (facts["width"], facts["height"]) == (16, 24) and len(facts["sha256"]) == 64
    text = run("info", model_file).stdout
    assert "tiny" in text and "together" in text


def test_info_of_a_model_by_its_name(run: Run, here: Path, model_file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("STABLE_DIFFUSION_MODELS", str(model_file.parent))
    facts = json.loads(run("info", model_file.stem, "--json", "--no-hash").stdout)
    assert facts["path"] == str(model_file)
    assert json.loads(run("info", "embedded", "--json", "--no-hash").stdout)["path"] == str(model_path())
    result = run("info", "embeded")
    assert_one_sentence(result.exit_code, result.stderr, "no file or folder embeded")


def test_info_with_what_the_caller_says(run: Run, model_file: Path) -> None:
    told = json.loads(run("info", model_file, "--json", "--no-hash", "--set", "prediction=v").stdout)
    assert told["prediction"] == "v" and told["sha256"] is None
    for setting, says in (
        ("family=sd1", "says it itself"),
        ("variant=fp16", "only diffusers folders have variants"),
        ("predicton=v", "did you mean 'prediction'?"),
        ("prediction=w", "'w'"),
    ):
        result = run("info", model_file, "--set", setting)
        assert_one_sentence(result.exit_code, result.stderr, says)


def test_info_of_a_picture_shows_its_settings(run: Run, here: Path, model_file: Path) -> None:
    assert run("a cat", "-m", model_file, "-s", "3", "-o", "a.png").exit_code == 0
    facts = json.loads(run("info", "a.png", "--json").stdout)
    assert facts["kind"] == "picture" and "Seed: 3" in facts["settings"]


def test_info_shows_settings_that_no_request_can_have(run: Run, here: Path) -> None:
    from PIL import Image
    from PIL.PngImagePlugin import PngInfo

    for name, text in (
        ("empty", "Negative prompt: bad\nSteps: 20, Sampler: Euler a, CFG scale: 7, Seed: 1, Size: 512x512"),
        ("high", "a cat\nSteps: 20, Sampler: Euler a, CFG scale: 120, Seed: 18446744073709551615, Size: 512x512"),
    ):
        chunk = PngInfo()
        chunk.add_text("parameters", text)
        Image.new("RGB", (8, 8)).save(here / f"{name}.png", pnginfo=chunk)
        assert json.loads(run("info", f"{name}.png", "--json").stdout)["settings"] == text
    Image.new("RGB", (8, 8)).save(here / "plain.png")
    assert json.loads(run("info", "plain.png", "--json").stdout)["settings"] == "none"


def test_info_says_why_no_family_matches(run: Run, here: Path) -> None:
    import torch
    from safetensors.torch import save_file

    save_file({"some.other.weight": torch.zeros(3, 5)}, here / "other.safetensors")
    result = run("info", "other.safetensors")
    assert_one_sentence(result.exit_code, result.stderr, "other.safetensors")
    assert "note: not sd1:" in result.stderr


def test_info_of_an_autoencoder_alone(run: Run, here: Path) -> None:
    from safetensors.torch import save_file

    from stable_diffusion.models.vae import VAE, VAEConfig
    from stable_diffusion.weights.networks.vae import vae_ldm

    config = VAEConfig(channels=(32, 32), blocks_per_stage=1)
    state = vae_ldm(config).invert(VAE(config).state_dict())
    save_file({name: tensor.contiguous() for name, tensor in state.items()}, here / "vae.safetensors")
    result = run("info", "vae.safetensors")
    assert result.exit_code == 0 and "autoencoder" in result.stdout and "--vae" in result.stdout
    assert json.loads(run("info", "vae.safetensors", "--json").stdout)["kind"] == "autoencoder"


def test_info_looks_for_numbers_that_are_not_finite(run: Run, here: Path, model_file: Path) -> None:
    import torch
    from safetensors import safe_open
    from safetensors.torch import load_file, save_file

    with safe_open(model_file, "pt") as opened:
        metadata = opened.metadata()
    state = load_file(model_file)
    names = [name for name in state if name.startswith("unet.") and state[name].is_floating_point()][:7]
    for name in names:
        state[name].view(-1)[0] = float("nan")
    save_file(state, here / "nan.safetensors", metadata=metadata)
    assert json.loads(run("info", model_file, "--check", "--json").stdout)["damaged"] == []
    assert run("info", "nan.safetensors", "--no-hash").exit_code == 0
    result = run("info", "nan.safetensors", "--check")
    assert_one_sentence(result.exit_code, result.stderr, "nan.safetensors has numbers that are not finite", names[0])
    assert f"not finite: {names[0]}; " in result.stdout and "and 2 more" in result.stdout
    told = json.loads(run("info", "nan.safetensors", "--check", "--json").stdout)
    assert sorted(told["damaged"]) == sorted(names)
    result = run("a cat", "-m", "nan.safetensors", "-o", "nan.png")
    assert_one_sentence(result.exit_code, result.stderr, "nan.safetensors has numbers that are not finite")
    assert not (here / "nan.png").exists()
    save_file({"emb_params": torch.tensor([[0.0, float("inf")]])}, here / "word.safetensors")
    assert "not finite: emb_params" in run("info", "word.safetensors").stdout  # small files are always looked at
    assert run("info", "word.safetensors", "--check").exit_code == 1


def test_list_names_every_sampler_and_schedule(run: Run) -> None:
    from stable_diffusion.request.names import SAMPLERS, SCHEDULES

    facts = json.loads(run("list", "--json").stdout)
    assert [s["name"] for s in facts["samplers"]] == list(SAMPLERS)
    assert [s["name"] for s in facts["schedules"]] == list(SCHEDULES)
    table = run("list", "samplers").stdout
    assert "dpmpp_2m" in table and "DPM++ 2M" in table and "karras" not in table


def test_doctor_measures_and_judges(run: Run) -> None:
    import torch

    result = run("doctor", "--json")
    facts = json.loads(result.stdout)
    assert facts["torch"] == torch.__version__ and facts["gflops_float32"] > 0 and facts["cores"] >= 1
    assert facts["ready"] == (result.exit_code == 0)
    assert facts["verdict"] and all(sentence.endswith(".") or ")" in sentence for sentence in facts["verdict"])


def test_doctor_reports_a_missing_or_changed_model(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, run: Run) -> None:
    from stable_diffusion import embedded

    monkeypatch.setattr(embedded, "MODEL", tmp_path / "model.safetensors")
    monkeypatch.setattr(embedded, "HASH", tmp_path / "model.sha256")
    missing = run("doctor")
    assert missing.exit_code == 1 and "built-in model is missing" in missing.stdout
    (tmp_path / "model.safetensors").write_bytes(b"x")
    (tmp_path / "model.sha256").write_text("0" * 64 + "\n")
    changed = run("doctor")
    assert changed.exit_code == 1 and "not the one that was shipped" in changed.stdout


def test_train_refuses_bad_settings_in_one_sentence(run: Run, here: Path) -> None:
    base = ("train", "vae", "--data", "nowhere", "--out", "run")
    result = run(*base, "--minutes", "1", "--set", "batchsize=3")
    assert_one_sentence(result.exit_code, result.stderr, "'batchsize'", "'batch_size'")
    result = run(*base)
    assert_one_sentence(result.exit_code, result.stderr, "minutes")
    result = run(*base, "--minutes", "0")
    assert_one_sentence(result.exit_code, result.stderr, "--minutes", expected_code=2)
    assert not (here / "run").exists()


def test_export_refuses_a_missing_run(run: Run, here: Path) -> None:
    given = ("--denoiser", "d", "--vae", "v", "--tokenizer", "t.json")
    result = run("train", "export", *given, "-o", "model.bin")
    assert_one_sentence(result.exit_code, result.stderr, "model.bin", ".safetensors")
    result = run("train", "export", *given, "-o", "model.safetensors")
    assert_one_sentence(result.exit_code, result.stderr, "d")
