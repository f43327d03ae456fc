"""Runs the curriculum in one process that may be stopped or killed at any moment and taken up again.

What is done is told by the files alone: a piece whose run folder holds done.json is done, one with a checkpoint goes on
from it, and one without starts from the averaged weights of the piece done before it, or from the model file.
"""

from __future__ import annotations

import fcntl
import json
import os
import signal
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from stable_diffusion.errors import InvalidRequest
from stable_diffusion.training.checkpoint import PREVIOUS, find_checkpoint, read_state
from stable_diffusion.training.data import TrainingPack
from stable_diffusion.training.report import Progress, save_png, write_atomic
from stable_diffusion.training.run import train
from stable_diffusion.training.stage import spread

from ..candidate import write_candidate
from ..judge import COUNT, Judge, drawn, model_of, rounded
from .curriculum import Curriculum, Piece

DONE, MODEL, LOG, LOCK = "done.json", "model.safetensors", "background.jsonl", ".lock"
LOOK = 1.0
"""Seconds between two looks for the pause file."""


@dataclass(frozen=True, kw_only=True)
class Place:
    """Where things lie. data: the pack; out: the run folders and the log; model: what training starts from on a bare
    machine; pause: nothing runs while this file exists."""

    data: Path
    out: Path
    model: Path
    pause: Path

    def run(self, piece: Piece) -> Path:
        """The piece's run folder."""
        return self.out / piece.name

    def done(self, piece: Piece) -> bool:
        return (self.run(piece) / DONE).is_file()


def free_threads(own: int) -> int:
    """The cores that nobody else keeps busy (at least one, and at most OMP_NUM_THREADS), where `own` are ours.

    Two threads that wait for each other get nothing done while others use both cores; one does.
    """
    most = int(os.environ.get("OMP_NUM_THREADS") or os.cpu_count() or 1)
    others = os.getloadavg()[0] - own
    return max(1, min(most, (os.cpu_count() or 1) - round(others)))


class Background:
    """The loop over pieces. report: takes every line of progress and of the log."""

    def __init__(self, curriculum: Curriculum, place: Place, report: Callable[[str], None] = print) -> None:
        self.curriculum, self.place, self.report = curriculum, place, report
        self.training = self.pausing = False

    def run(self, pieces: int | None = None) -> None:
        """Train piece after piece until a signal (KeyboardInterrupt), or until `pieces` of them were finished here."""
        self.place.out.mkdir(parents=True, exist_ok=True)
        with only_one(self.place.out), self._signals():
            for number, piece in enumerate(self._left()):
                if number == pieces:
                    return
                self._train(piece)
                self._finish(piece)

    def _left(self) -> Iterator[Piece]:
        """The pieces that are not done, in order; those before the curriculum's first only where they were begun."""
        reached = False
        for piece in self.curriculum.rounds():
            reached = reached or piece.name == self.curriculum.first
            begun = find_checkpoint(self.place.run(piece)) is not None
            if not self.place.done(piece) and (reached or begun):
                yield piece

    def start_of(self, piece: Piece) -> Path:
        """The run folder of the piece done last before this one, or the model file."""
        done = [each for each in self.curriculum.before(piece) if self.place.done(each)]
        return self.place.run(done[-1]) if done else self.place.model

    def _train(self, piece: Piece) -> None:
        """The piece to its end, through every pause."""
        self._await(piece)
        steps = piece.planned(TrainingPack(self.place.data))
        while True:
            self.pausing = False
            while self.place.pause.exists():
                time.sleep(LOOK)
            for rest in self.place.run(piece).glob(".checkpoint-*"):  # of a process that was killed while it wrote
                rest.unlink()
            settings = self._settings(piece, steps)
            self._log("start", piece, steps=steps, start_from=settings["start_from"])
            try:
                with self._watched():
                    train(
                        "denoiser",
                        data=self.place.data,
                        out=self.place.run(piece),
                        config=piece.config,
                        overrides=settings,
                        on_progress=self._progress,
                    )
                return
            except KeyboardInterrupt:
                self._log("pause" if self.pausing else "stop", piece)
                if not self.pausing:
                    raise

    def _await(self, piece: Piece) -> None:
        """Until the pack has the piece's shards: they may be rendered while earlier pieces are trained."""
        waited = False
        while missing := sorted(set(piece.stage().data.shards) - set(TrainingPack(self.place.data).shard_names)):
            if not waited:
                self._log("wait", piece, shards=missing)
            waited = True
            time.sleep(60 * LOOK)

    def _settings(self, piece: Piece, steps: int) -> dict[str, Any]:
        model = str(self.place.model)
        return {
            **piece.settings,
            "vae_run": model,
            "text_run": model,
            "start_from": str(self.start_of(piece)),
            "start_parts": ["unet"],
            "latent_cache": str(self.place.out / "latents"),
            "threads": free_threads(0),
            "steps": steps,
        }

    def _progress(self, progress: Progress) -> None:
        torch.set_num_threads(free_threads(torch.get_num_threads()))
        self.report(progress.line())

    @contextmanager
    def _watched(self) -> Iterator[None]:
        """While inside, the pause file ends the training as a signal would: after the step, with a checkpoint."""
        over = threading.Event()

        def watch() -> None:
            while not over.wait(LOOK):
                if self.place.pause.exists():
                    self.pausing = True
                    os.kill(os.getpid(), signal.SIGTERM)
                    return

        watcher = threading.Thread(target=watch, daemon=True)
        watcher.start()
        try:
            self.training = True
            yield
        finally:
            self.training = False
            over.set()
            watcher.join()

    @contextmanager
    def _signals(self) -> Iterator[None]:
        """SIGTERM interrupts, also where no training is under way; a pause that came too late to be one does not."""

        def interrupt(number: int, frame: Any) -> None:
            if self.training or not self.pausing:
                raise KeyboardInterrupt

        former = signal.signal(signal.SIGTERM, interrupt)
        try:
            yield
        finally:
            signal.signal(signal.SIGTERM, former)

    def _finish(self, piece: Piece) -> None:
        """The model of the piece, packed, its numbers and its sheets; done.json last."""
        run = self.place.run(piece)
        write_candidate(run, run / MODEL, tokenizer=self.place.data, like=self.place.model)
        judged = self.judge(piece)
        write_atomic(run / DONE, (json.dumps(judged, indent=1) + "\n").encode())
        (run / PREVIOUS).unlink(missing_ok=True)
        self._log("done", piece, **judged)

    def judge(self, piece: Piece) -> dict[str, Any]:
        """The judge's numbers on what earlier pieces drew ("old") and on what this one draws as the first ("new")."""
        pack, run = TrainingPack(self.place.data), self.place.run(piece)
        earlier = [drawn(pack, each.stage().data) for each in self.curriculum.before(piece)]
        seen = np.unique(np.concatenate([np.empty(0, dtype=np.int64), *earlier]))
        groups = {"old": seen, "new": np.setdiff1d(drawn(pack, piece.stage().data), seen)}
        judged: dict[str, Any] = {}
        for name, rows in groups.items():
            if len(rows):
                judge = Judge(model_of(run, self.place.data), pack, spread(rows, COUNT))
                found, pictures = judge.judge()
                judged[name] = rounded(asdict(found))
                save_png(judge.sheet(pictures), run / f"judged-{name}.png")
        return judged

    def _log(self, event: str, piece: Piece, **fields: Any) -> None:
        path = find_checkpoint(self.place.run(piece))
        state: Mapping[str, Any] = read_state(path) if path else {"step": 0, "seconds": 0.0}
        line = {
            "time": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
            "event": event,
            "piece": piece.name,
            "step": state["step"],
            "minutes": round(state["seconds"] / 60, 1),
            **fields,
        }
        with (self.place.out / LOG).open("a", encoding="utf-8") as file:
            file.write(json.dumps(line) + "\n")
        self.report(json.dumps(line))


@contextmanager
def only_one(folder: Path) -> Iterator[None]:
    """Holds the folder's lock inside; InvalidRequest where another process has it. The system frees a dead one's."""
    with (folder / LOCK).open("a") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            raise InvalidRequest(f"another process trains in {folder}; there can be only one") from None
        yield
