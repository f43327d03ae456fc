"""The training loop: straight, resumable, within a time budget. `train` is the entry point of every stage."""

from __future__ import annotations

import math
import signal
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ..errors import InvalidRequest, TrainingDiverged, unknown_choice
from . import checkpoint as ckpt
from .config import STAGES, StageConfig, load_config
from .data import TrainingPack
from .distributed import World, join_world
from .ema import EMA, named_tensors
from .optim import Optimiser, learning_rate_factor
from .report import Log, Progress, loss_curve, save_png
from .stage import Context, Stage, uses_bfloat16
from .tables import to_table
from .warm_start import warm_start

Clock = Callable[[], float]


@dataclass
class Plan:
    """Where the run stands. seconds: training time over all invocations; total: planned last step, None while unknown.

    With a time budget the total is estimated again at every log line from the seconds per step, and is part of the
    checkpoint; with `steps` it is exact, and then a resumed run takes the same steps as an unbroken one, bit for bit.
    """

    step: int = 0
    seconds: float = 0.0
    total: int | None = None

    @property
    def progress(self) -> float:
        return 0.0 if not self.total else min(1.0, self.step / self.total)


@dataclass
class Window:
    """The numbers since the last log line; not every step gives every number."""

    count: int = 0
    values: dict[str, list[float]] = field(default_factory=dict)

    def add(self, numbers: Mapping[str, float]) -> None:
        self.count += 1
        for name, value in numbers.items():
            self.values.setdefault(name, []).append(value)

    def means(self) -> dict[str, float]:
        return {name: sum(values) / len(values) for name, values in self.values.items()}


def build_stage(name: str, config: StageConfig, context: Context) -> Stage:
    """The stage object; imports only what it needs."""
    if name == "vae":
        from .stages.vae import VAETraining

        return VAETraining(config, context)  # type: ignore[arg-type]
    if name == "text":
        from .stages.text import TextTraining

        return TextTraining(config, context)  # type: ignore[arg-type]
    if name == "denoiser":
        from .stages.denoiser import DenoiserTraining

        return DenoiserTraining(config, context)  # type: ignore[arg-type]
    if name == "joint":
        from .stages.joint import JointTraining

        return JointTraining(config, context)  # type: ignore[arg-type]
    if name == "student":
        from .stages.student import StudentTraining

        return StudentTraining(config, context)  # type: ignore[arg-type]
    raise unknown_choice("training stage", name, STAGES)


def train(
    stage: str,
    *,
    data: str | Path,
    out: str | Path,
    minutes: float | None = None,
    config: str | Path | None = None,
    resume: str = "auto",
    overrides: Sequence[str] | Mapping[str, Any] = (),
    device: str = "auto",
    on_progress: Callable[[Progress], None] | None = None,
    clock: Clock = time.monotonic,
) -> dict[str, Any]:
    """Train one stage ("vae", "text", "denoiser", "joint" or "student") on the pack `data`, into the run folder `out`.

    minutes: wall-clock budget of this call, loading and the last samples included; the learning-rate plan ends with it
    unless the config gives `steps` or `total_minutes`. resume: "auto" goes on where `out` has a checkpoint, "must"
    insists on one, "never" starts over. Returns the last numbers. Errors: InvalidRequest for bad settings,
    TrainingDiverged where the loss is no longer finite (the checkpoint is then the last good one). Ctrl-C saves a
    checkpoint, then raises KeyboardInterrupt.
    """
    begin = clock()
    settings = load_config(stage, config, overrides)
    if minutes is None and settings.steps is None:
        raise InvalidRequest("training needs an end: give minutes (a time budget) or steps (in the config)")
    if minutes is not None and not minutes > 0:
        raise InvalidRequest(f"minutes = {minutes} must be greater than 0")
    if resume not in ("auto", "must", "never"):
        raise unknown_choice("resume mode", resume, ("auto", "must", "never"))
    if settings.threads > 0:
        torch.set_num_threads(settings.threads)
    torch.manual_seed(settings.seed)
    world = join_world(device)
    if settings.batch_size % world.size:
        raise InvalidRequest(f"batch_size = {settings.batch_size} must be a multiple of the {world.size} processes")
    context = Context(TrainingPack(data), world, Path(out))
    loop = Loop(stage, settings, context, build_stage(stage, settings, context), on_progress, clock)
    loop.resume(resume)
    return loop.run(None if minutes is None else begin + minutes * 60)


class Loop:
    """One invocation of a stage."""

    def __init__(
        self,
        name: str,
        config: StageConfig,
        context: Context,
        stage: Stage,
        on_progress: Callable[[Progress], None] | None,
        clock: Clock,
    ) -> None:
        self.name, self.config, self.context, self.stage = name, config, context, stage
        self.world: World = context.world
        self.clock, self.on_progress = clock, on_progress
        self.optimiser = Optimiser(stage.groups, config.optimiser, half=uses_bfloat16(context.device, config))
        self.ema = EMA(stage.averaged, config.ema)
        self.plan = Plan(total=config.steps)
        self.window = Window()
        self.stopping = False  # this rank was sent a signal
        self.interrupted = False  # any rank was, as all of them know
        self.log: Log | None = None
        self.last: dict[str, Any] = {}

    def resume(self, mode: str) -> None:
        """Take up the run folder's checkpoint according to `mode` (see `train`)."""
        path = ckpt.find_checkpoint(self.context.out) if mode != "never" else None
        if path is None and mode == "must":
            raise InvalidRequest(f"nothing to resume: {str(self.context.out)!r} holds no checkpoint")
        if path is not None:
            self._restore(path)
        elif self.config.start_from:
            warm_start(self.stage.modules, self.config.start_from, self.config.start_parts)
            self.ema = EMA(self.stage.averaged, self.config.ema)
        if self.world.main:
            self.context.out.mkdir(parents=True, exist_ok=True)
            self.log = Log(self.context.out / "log.jsonl", self.plan.step if path is not None else -1)

    def _restore(self, path: Path) -> None:
        state = ckpt.read_state(path)
        if state["stage"] != self.name:
            raise InvalidRequest(f"{path} is a checkpoint of the stage {state['stage']!r}, not {self.name!r}")
        weights = ckpt.read_tensors(path, "model.")
        for prefix, module in self.stage.modules.items():
            start = f"{prefix}."
            part = {key[len(start) :]: value for key, value in weights.items() if key.startswith(start)}
            ckpt.assign(module, part, f"{prefix} of {path}")
        self.ema.load(ckpt.read_tensors(path, "ema."), state["ema_updates"])
        self.optimiser.load(ckpt.read_tensors(path, "optim."))
        self.stage.restore(state["facts"])
        total = self.config.steps if self.config.steps is not None else state["total"]
        self.plan = Plan(state["step"], state["seconds"], total)
        ckpt.restore_rng(ckpt.read_tensors(path, "rng."))

    def run(self, deadline: float | None) -> dict[str, Any]:
        """Steps until the plan or the time ends; then validation, samples and a last checkpoint."""
        start, first_step, first_seconds = self.clock(), self.plan.step, self.plan.seconds
        reserve = 0.0 if deadline is None else min(60.0, 0.06 * (deadline - start))
        saved = sampled = logged = start
        with _stop_on_signal(self):
            while not self._finished(None if deadline is None else deadline - reserve):
                numbers = self._step()
                self.window.add(numbers)
                now = self.clock()
                self.plan.seconds = first_seconds + (now - start)
                if self.plan.step % self.config.log_every == 0 or self.plan.step == first_step + 1:
                    self._replan(now, (now - start) / (self.plan.step - first_step), deadline, reserve)
                    self._write_log(now - logged, deadline)
                    logged = now
                if self._due(now - saved, self.config.checkpoint_minutes):
                    self.save()
                    saved = now
                if self._due(now - sampled, self.config.sample_minutes):
                    self.examine()
                    sampled = logged = self.clock()
            if self.interrupted:
                self.save()
                raise KeyboardInterrupt
        self.examine()
        self.save()
        return {"step": self.plan.step, "seconds": self.plan.seconds, **self.last}

    def _finished(self, deadline: float | None) -> bool:
        end = self.config.steps is not None and self.plan.step >= self.config.steps
        end = end or (deadline is not None and self.clock() >= deadline)
        # What follows is collective, so that every rank must take the same way out, also where one alone was stopped.
        end, self.interrupted = self.world.agree(end, self.stopping)
        return end or self.interrupted

    def _due(self, seconds: float, minutes: float) -> bool:
        return self.world.first(float(seconds >= minutes * 60)) > 0

    def _step(self) -> dict[str, float]:
        """Gradients, averaging over ranks, clipping, update, moving average."""
        factor = learning_rate_factor(self.plan.step, self.plan.total, self.config.optimiser)
        numbers = self.stage.backward(self.plan.step, self.plan.progress)
        self.world.average_gradients(self.optimiser.named.values())
        norm = self.optimiser.clip(self.config.optimiser.clip)
        values = {name: float(value) for name, value in numbers.items()}
        if not (math.isfinite(norm) and all(math.isfinite(v) for v in values.values())):
            raise TrainingDiverged(self._diverged(values, norm))
        self.optimiser.step(factor)
        self.ema.update()
        self.plan.step += 1
        return {**values, "norm": norm, "rate": factor * self.config.optimiser.learning_rate}

    def _diverged(self, values: Mapping[str, float], norm: float) -> str:
        kept = ckpt.find_checkpoint(self.context.out)
        where = f"the last good checkpoint is {kept}" if kept else "no checkpoint had been written yet"
        return (
            f"training diverged at step {self.plan.step}: loss {values.get('loss')}, gradient norm {norm}; {where}; "
            f"try a lower optimiser.learning_rate than {self.config.optimiser.learning_rate}"
        )

    def _replan(self, now: float, per_step: float, deadline: float | None, reserve: float) -> None:
        """Estimate the plan's last step from the time left (rank 0's clock rules)."""
        if self.config.steps is not None:
            return
        if self.config.total_minutes is not None:
            left = self.config.total_minutes * 60 - self.plan.seconds
        else:
            assert deadline is not None
            left = deadline - reserve - now
        self.plan.total = self.plan.step + round(self.world.first(max(0.0, left) / max(per_step, 1e-9)))

    def _write_log(self, seconds: float, deadline: float | None) -> None:
        means = self.world.mean(self.window.means())
        count, self.window = self.window.count, Window()
        speed = count * self.config.batch_size / max(seconds, 1e-9)
        self.last.update(means, samples_per_second=speed)
        if self.log is not None:
            self.log.add(step=self.plan.step, seconds=self.plan.seconds, samples_per_second=speed, **means)
        if self.on_progress is not None and self.world.main:
            left = None if deadline is None else deadline - self.clock()
            shown = {**means, "samples/s": speed}
            self.on_progress(Progress(self.name, self.plan.step, self.plan.total, self.plan.seconds, left, shown))

    def examine(self) -> None:
        """Validation numbers, samples and loss curve with the averaged weights; the training state is untouched."""
        if self.world.main and self.log is not None:
            self.ema.swap()
            try:
                numbers = self.stage.validate()
                picture = self.stage.sheet()
            finally:
                self.ema.swap()
            self.last.update(numbers)
            if numbers:
                self.log.add(step=self.plan.step, seconds=self.plan.seconds, **numbers)
            if picture is not None:
                save_png(picture, self.context.out / "samples.png")
            loss_curve(self.log.lines, self.context.out / "loss.png")
        self.world.barrier()

    def save(self) -> None:
        """Write the checkpoint (rank 0)."""
        if not self.world.main:
            return
        tensors: dict[str, Tensor] = {f"model.{k}": v for k, v in named_tensors(self.stage.modules).items()}
        tensors |= {f"ema.{k}": v for k, v in self.ema.state().items()}
        tensors |= {f"optim.{k}": v for k, v in self.optimiser.state().items()}
        tensors |= {f"rng.{k}": v for k, v in ckpt.rng_tensors().items()}
        state = {
            "stage": self.name,
            "step": self.plan.step,
            "seconds": self.plan.seconds,
            "total": self.plan.total,
            "ema_updates": self.ema.updates,
            "modules": list(self.stage.modules),
            "facts": self.stage.facts,
            "config": to_table(self.config),
        }
        ckpt.save_checkpoint(self.context.out, tensors, state)


@contextmanager
def _stop_on_signal(loop: Loop) -> Iterator[None]:
    """The first Ctrl-C (or SIGTERM) asks the loop to stop after the step in hand; the second interrupts at once."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def handle(number: int, frame: Any) -> None:
        if loop.stopping:
            raise KeyboardInterrupt
        loop.stopping = True

    former = {number: signal.signal(number, handle) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for number, handler in former.items():
            signal.signal(number, handler)
