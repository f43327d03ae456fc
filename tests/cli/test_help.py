"""The command answers without torch, and its help is the page in the documentation."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from cli_helpers import Run, RunProcess, assert_one_sentence, environment

ROOT = Path(__file__).parent.parent.parent


@pytest.mark.parametrize(
    "arguments", [["--help"], ["generate", "--help"], ["train", "denoiser", "--help"], ["--version"]]
)
def test_help_imports_neither_torch_nor_pillow(arguments: list[str]) -> None:
    program = (
        "import sys, stable_diffusion.cli.main as m\n"
        f"try: m.cli({arguments!r}, prog_name='stable-diffusion')\n"
        "except SystemExit as end: assert end.code == 0, end.code\n"
        "heavy = {'torch', 'numpy', 'PIL', 'tokenizers', 'rich', 'safetensors'} & set(sys.modules)\n"
        "assert not heavy, heavy\n"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, env=environment())
    assert done.returncode == 0, done.stderr
    assert done.stdout


def test_shell_completion_imports_no_torch() -> None:
    program = (
        "import sys, stable_diffusion.cli.main as m\n"
        "try: m.cli(prog_name='stable-diffusion')\n"
        "except SystemExit as end: assert end.code == 0, end.code\n"
        "assert not {'torch', 'numpy', 'PIL'} & set(sys.modules)\n"
    )
    words = "stable-diffusion generate --mask-"
    given = {"_STABLE_DIFFUSION_COMPLETE": "bash_complete", "COMP_WORDS": words, "COMP_CWORD": "2"}
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, env={**environment(), **given}
    )
    assert done.returncode == 0, done.stderr
    assert "--mask-blur" in done.stdout


def test_the_page_in_the_documentation_is_the_help_of_today() -> None:
    """White space is not compared, since versions of click break lines differently."""
    from stable_diffusion.cli.help_page import page

    written = (ROOT / "docs" / "cli.md").read_text(encoding="utf-8")
    assert page().split() == written.split(), "run: python -m stable_diffusion.cli.help_page > docs/cli.md"


def test_every_command_has_help_and_examples() -> None:
    from stable_diffusion.cli.help_page import page
    from stable_diffusion.cli.main import COMMANDS

    sections = page().split("\n## ")[1:]
    assert len(sections) > len(COMMANDS) + 1, "those of `train` have help of their own"
    for section in sections:
        assert "Examples:" in section, section.splitlines()[0]


def test_a_prompt_like_a_command_is_painted_with_a_hint(run: Run) -> None:
    result = run("docter", "--model", "nowhere.safetensors")
    assert "the command is called 'doctor'" in result.stderr
    assert_one_sentence(result.exit_code, result.stderr, "nowhere.safetensors")


def test_stages_are_those_of_training() -> None:
    from stable_diffusion.cli.commands import train
    from stable_diffusion.training.config import STAGES

    assert set(train.STAGES) == set(STAGES)


def test_unexpected_errors_show_a_traceback_only_with_debug(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    from stable_diffusion.cli.commands import doctor

    def fail() -> None:
        raise TypeError("a mistake of ours")

    monkeypatch.setattr(doctor, "examine", fail)
    plain = run("doctor")
    assert_one_sentence(plain.exit_code, plain.stderr, "TypeError", "a mistake of ours", "--debug")
    for arguments in (["doctor", "--debug"], ["--debug", "doctor"]):
        assert isinstance(run(*arguments).exception, TypeError)


def test_module_and_version(process: RunProcess) -> None:
    import stable_diffusion

    done = process("--version")
    assert done.returncode == 0
    assert done.stdout.split()[0] == "stable-diffusion" and stable_diffusion.__version__ in done.stdout
