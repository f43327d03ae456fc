"""Choose a model's default guidance, sampler, schedule and steps by measurement, and not by habit.

    python scripts/choose_defaults.py --quick              a few minutes: 24 pictures a setting, the likeliest values
    python scripts/choose_defaults.py                      100 pictures a setting, on two cores some hours
    python scripts/choose_defaults.py --model FILE --samplers dpmpp_2m euler --guidances 2 3 4

One setting after the other is varied from the best so far: guidance, sampler, schedule, steps, then guidance again.
Every candidate paints the same captions of held-out pictures with the same seeds, and the report's judges look at them
(`evaluation`): the share of captions that are found again among all, of colours and counts that are told right, and the
Fréchet distance to held-out pictures. The best is the one with the least distance among those whose share lies within
one standard error of the highest; of those as near as that (5 %), the one with the fewest calls of the network.
Results stay in --out, so a run that was stopped goes on. The built-in judges are used where no others are named.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import math
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

import stable_diffusion
from stable_diffusion.diffusion.samplers import solver
from stable_diffusion.embedded import PICTURES, TOWER
from stable_diffusion.evaluation.bench import Bench, Plan
from stable_diffusion.evaluation.metrics.frechet import frechet_distance
from stable_diffusion.evaluation.pack import PicturePack
from stable_diffusion.evaluation.painter import Painter
from stable_diffusion.evaluation.sections.alignment import choice_score, choices, retrieval_score
from stable_diffusion.evaluation.sections.questions import PAINTED
from stable_diffusion.evaluation.tower import load_eye
from stable_diffusion.request.names import resolve_sampler
from stable_diffusion.training.report import write_atomic

ASKED = ("colour", "counting")
NEAR = 1.05
"""Fréchet distances within this factor of the least count as equal."""
FULL = {
    "guidance": (1.0, 1.5, 2.0, 2.5, 3.0, 4.0, 5.0, 7.0),
    "sampler": ("euler", "heun", "dpmpp_2m", "uni_pc", "deis", "res_multistep", "euler_ancestral", "dpmpp_2m_sde"),
    "schedule": ("normal", "karras", "simple", "sgm_uniform", "beta", "exponential", "linear_quadratic"),
    "steps": (6, 8, 10, 12, 15, 20, 30),
}
QUICK = {"guidance": (2.0, 3.0, 4.5), "sampler": ("euler", "uni_pc"), "schedule": ("karras",), "steps": (8, 12)}
ORDER = ("guidance", "sampler", "schedule", "steps", "guidance")


@dataclass(frozen=True, kw_only=True)
class Setting:
    """What a picture is painted with."""

    guidance: float
    sampler: str
    schedule: str
    steps: int

    @property
    def calls(self) -> int:
        """Calls of the network that a picture takes, with guidance two rows each."""
        return self.steps * solver(resolve_sampler(self.sampler).id).calls * (1 if self.guidance == 1 else 2)

    @property
    def name(self) -> str:
        return f"guidance {self.guidance:g}, {self.sampler}, {self.schedule}, {self.steps} steps"


@dataclass(frozen=True, kw_only=True)
class Found:
    """What the judges say: `share` of right answers of `count`, its parts, the Fréchet distance, seconds a picture."""

    share: float
    count: int
    parts: dict[str, float]
    frechet: float
    seconds: float

    @property
    def error(self) -> float:
        return math.sqrt(max(self.share * (1 - self.share), 0.0) / self.count)


Measure = Callable[[Setting], Found]


def judge(bench: Bench, setting: Setting) -> Found:
    """Paint the captions and the questions with this setting, and let the eye answer."""
    assert bench.eye is not None and bench.pack is not None
    start, plan, painted = time.perf_counter(), bench.plan, 0
    given = dataclasses.asdict(setting)

    def seen(prompts: Sequence[str]) -> Any:
        assert bench.eye is not None
        nonlocal painted
        painted += len(prompts)
        return bench.eye.look(bench.painter.paint_all(setting.name, prompts, [*range(len(prompts))], **given))

    prompts = [english for english, _ in bench.prompts()]
    looked = seen(prompts)
    scores = {"retrieval": retrieval_score(looked.embedding, bench.eye.read(prompts))}
    for kind in ASKED:
        questions = PAINTED[kind](getattr(plan, kind))
        answers = choices(bench.eye, seen([question.prompt for question in questions]).embedding, questions)
        scores[kind] = choice_score(questions, answers)
    count = sum(score.count for score in scores.values())
    return Found(
        share=sum(score.value * score.count for score in scores.values()) / count,
        count=count,
        parts={name: score.value for name, score in scores.items()},
        frechet=frechet_distance(looked.features, bench.seen("heldout", plan.held_out).features),
        seconds=(time.perf_counter() - start) / painted,
    )


def best(found: dict[Setting, Found]) -> Setting:
    """The rule of the docstring above."""
    top = max(found.values(), key=lambda each: each.share)
    good = {setting: each for setting, each in found.items() if each.share >= top.share - top.error}
    least = min(each.frechet for each in good.values())
    near = [setting for setting, each in good.items() if each.frechet <= least * NEAR]
    return min(near, key=lambda setting: (setting.calls, good[setting].frechet))


def search(start: Setting, values: dict[str, Sequence[Any]], measure: Measure) -> dict[Setting, Found]:
    """Everything that was measured on the way; each setting is measured once."""
    found = {start: measure(start)}
    for field in ORDER:
        base = best(found)
        for value in values[field]:
            setting = dataclasses.replace(base, **{field: value})
            if setting not in found:
                found[setting] = measure(setting)
    return found


class Kept:
    """Results in a JSON file, which only a run with the same model, judges and prompts may go on with."""

    def __init__(self, path: Path, facts: dict[str, Any], measure: Measure) -> None:
        self.path, self.facts, self.measure = path, facts, measure
        kept = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {"facts": facts, "results": []}
        if kept["facts"] != facts:
            raise SystemExit(f"{path} holds the results of another model, judge or plan: choose another --out")
        self.found = {Setting(**each["setting"]): Found(**each["found"]) for each in kept["results"]}

    def __call__(self, setting: Setting) -> Found:
        if setting not in self.found:
            self.found[setting] = self.measure(setting)
            results = [
                {"setting": dataclasses.asdict(s), "found": dataclasses.asdict(f)} for s, f in self.found.items()
            ]
            write_atomic(self.path, json.dumps({"facts": self.facts, "results": results}, indent=1).encode())
            sys.stderr.write(f"{row(setting, self.found[setting])}\n")
        return self.found[setting]


def row(setting: Setting, each: Found) -> str:
    parts = "  ".join(f"{name} {value:5.1%}" for name, value in each.parts.items())
    right = f"{each.share:6.1%} ± {each.error:4.1%}  Fréchet {each.frechet:6.3f}"
    return f"{setting.name:52}{right}  {each.seconds:5.2f} s  {setting.calls:3} calls  {parts}"


def start_of(model: stable_diffusion.StableDiffusion) -> Setting:
    """The model's own settings."""
    own = stable_diffusion.Request("a", sampler=model.defaults.sampler)
    assert own.sampler is not None
    schedule = own.schedule if own.schedule is not None else model.defaults.schedule
    named = stable_diffusion.Request("a", schedule=schedule).schedule
    known = model.automatic_schedule(own.sampler) if named in (None, "automatic") else named
    return Setting(
        guidance=model.defaults.guidance, sampler=own.sampler, schedule=str(known), steps=model.defaults.steps
    )


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", help="model file or folder; without one the built-in model")
    parser.add_argument("--data", type=Path, default=PICTURES, help="pack or file with held-out pictures")
    parser.add_argument("--tower", type=Path, default=TOWER)
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--pictures", type=int, help="captions painted for each setting (100, quick 24)")
    parser.add_argument("--guidances", type=float, nargs="+")
    parser.add_argument("--samplers", nargs="+")
    parser.add_argument("--schedules", nargs="+")
    parser.add_argument("--steps", type=int, nargs="+")
    parser.add_argument("--threads", type=int, help="CPU threads (torch's own choice)")
    parser.add_argument("--out", type=Path, default=Path("outputs/defaults.json"))
    given = parser.parse_args(arguments)
    if given.threads is not None:
        torch.set_num_threads(given.threads)
    named = {"guidance": given.guidances, "sampler": given.samplers, "schedule": given.schedules, "steps": given.steps}
    values = {**(QUICK if given.quick else FULL), **{name: tuple(value) for name, value in named.items() if value}}
    plan = Plan(painted=24, colour=6, counting=6) if given.quick else Plan(colour=30, counting=30)
    plan = plan if given.pictures is None else dataclasses.replace(plan, painted=given.pictures)
    model, pack = stable_diffusion.load(given.model), PicturePack(given.data)
    eye = load_eye(given.tower, tokenizer=pack.tokenizer)
    facts = {"model": model.hash, "tower": eye.hash, "pack": pack.name, "plan": dataclasses.asdict(plan)}
    facts = json.loads(json.dumps(facts))

    bench = Bench(painter=Painter(model=model), plan=plan, pack=pack, eye=eye)

    def measure(setting: Setting) -> Found:  # another painter each time: pictures of the last setting are not kept
        return judge(dataclasses.replace(bench, painter=Painter(model=model)), setting)

    start = start_of(model)
    found = search(start, values, Kept(given.out, facts, measure))
    chosen = best(found)
    for setting, each in sorted(found.items(), key=lambda pair: (-pair[1].share, pair[1].frechet)):
        mark = "*" if setting == chosen else "o" if setting == start else " "
        print(f"{mark} {row(setting, each)}")
    print(f"\n* best: {chosen.name}\no the model's own: {start.name}\n{given.out}")


if __name__ == "__main__":
    main()
