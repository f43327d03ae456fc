"""A replica: the worker of this package, held by a process of the cluster. It knows nothing of Ray."""

from __future__ import annotations

import copy
import os
import pickle
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from ..events import Event
from ..request.request import Request
from ..runner import LocalRunner
from .models import LocalModels, ModelStore
from .settings import ClusterSettings
from .shared_files import SharedRequest

MOST_STOPPED = 1000
"""Runs that are remembered as those that were asked to end."""


@dataclass(frozen=True)
class Failure:
    """In the place of an event: why a run ended early. An error of the request is no death of the replica."""

    error: Exception


class Replica:
    """Runs requests one after another, on the models that it has loaded."""

    def __init__(self, settings: ClusterSettings) -> None:
        import torch

        torch.set_num_threads(settings.torch_threads)
        self.runner = LocalRunner(engine=settings.engine, device=settings.device, dtype=settings.dtype)
        self.models: LocalModels | None = None
        if settings.store is not None:
            most = int(settings.cache_gigabytes * 2**30)
            self.models = LocalModels(ModelStore(settings.store), Path(settings.cache).expanduser(), most)
        self._model: str | None = None
        self._one_at_a_time = threading.Lock()
        self._stopped: dict[str, None] = {}
        self._previews: set[str] = set()

    def ping(self) -> int:
        """The number of its process; answered while a request runs too."""
        return os.getpid()

    def run(self, run_id: str, asked: Request | SharedRequest) -> Iterator[Event | Failure]:
        """The events of a request; a `Failure` is the last where it cannot be done.

        run_id   the name of this run, by which `stop` and `want_preview` speak of it
        """
        with self._one_at_a_time:  # the run before may still be at the step at which it was stopped
            try:
                request = self._here(asked)
                for event in self.runner.run(request, wants_preview=lambda: self._is_wanted(run_id)):
                    yield event
                    if run_id in self._stopped:
                        break
            except Exception as error:
                yield Failure(_sendable(error))
            finally:
                self._stopped.pop(run_id, None)
                self._previews.discard(run_id)

    def stop(self, run_id: str) -> None:
        """Ends a run at its next step."""
        self._stopped[run_id] = None
        if len(self._stopped) > MOST_STOPPED:
            self._stopped.pop(next(iter(self._stopped)))

    def want_preview(self, run_id: str) -> None:
        """Lets the next step of a run have a preview."""
        self._previews.add(run_id)

    def _here(self, asked: Request | SharedRequest) -> Request:
        """The request with the paths of this machine, for which files are copied here where they are not yet."""
        if isinstance(asked, SharedRequest):
            assert self.models is not None  # requests are shared where the settings have a store
            request = asked.placed(self.models)
        else:
            request = asked
        if request.model != self._model:
            if self._model is not None:
                self.runner.release()
            self._model = request.model
        return request

    def _is_wanted(self, run_id: str) -> bool:
        wanted = run_id in self._previews
        self._previews.discard(run_id)
        return wanted


def _sendable(error: Exception) -> Exception:
    """The error as another process can read it."""
    try:
        pickle.dumps(error)
        copy.copy(error)  # is made again as a reader makes it
        return error
    except Exception:
        return RuntimeError(f"{type(error).__name__}: {error}")
