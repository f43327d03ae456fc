"""A whole prompt as conditioning: what holds at which step, and the parts that `AND` joins.

Each text is encoded once, however often it comes back.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from ..types import Blend, Conditioning
from .encode import EncodedPrompt, TextEncoder
from .prompt import split_and
from .prompt_editing import prompt_steps


@dataclass(frozen=True)
class Timeline:
    """(last step, blend) of each stretch of steps, counted from 1; the last blend holds to the end of the run."""

    stretches: tuple[tuple[int, Blend], ...]

    @staticmethod
    def of(conditioning: Conditioning) -> Timeline:
        """One conditioning from beginning to end."""
        return Timeline(((1, ((conditioning, 1.0),)),))

    def at(self, step: int) -> Blend:
        """What holds at `step`."""
        return next((blend for last, blend in self.stretches if step <= last), self.stretches[-1][1])

    def map(self, function: Callable[[Conditioning], Conditioning]) -> Timeline:
        """The same timeline with `function` applied to every conditioning, once to each."""
        made: dict[int, Conditioning] = {}

        def once(conditioning: Conditioning) -> Conditioning:
            if id(conditioning) not in made:
                made[id(conditioning)] = function(conditioning)
            return made[id(conditioning)]

        return Timeline(
            tuple((last, tuple((once(each), weight) for each, weight in blend)) for last, blend in self.stretches)
        )


@dataclass(frozen=True)
class EncodedTimeline:
    """A prompt as the denoiser gets it, and how each of its texts was read."""

    timeline: Timeline
    texts: tuple[tuple[str, EncodedPrompt], ...]

    def notes(self) -> list[str]:
        """Plain sentences where a text did not fit in one window."""
        found = [note for _, encoded in self.texts if (note := encoded.note()) is not None]
        return list(dict.fromkeys(found))


def encode_timeline(
    encoder: TextEncoder,
    prompt: str,
    steps: int,
    *,
    before: int = 0,
    calls: int = 1,
    negative: bool = False,
    clip_skip: int | None = None,
) -> EncodedTimeline:
    """Encode `prompt` for a run of `steps` steps; `before` and `calls` as in `prompt_steps`, `negative` as in
    `TextEncoder.encode`.

    A negative prompt has no `AND`: the word is text there, as in A1111.
    """
    parts = [(prompt, 1.0)] if negative else split_and(prompt)
    schedules = [prompt_steps(text, steps, before, calls) for text, _ in parts]
    texts = dict.fromkeys(text for schedule in schedules for _, text in schedule)
    known = {text: encoder.encode(text, clip_skip=clip_skip, negative=negative) for text in texts}
    ends = sorted({last for schedule in schedules for last, _ in schedule})
    stretches = []
    for end in ends:
        now = [_at(schedule, end) for schedule in schedules]
        blend = tuple((known[text].conditioning, weight) for text, (_, weight) in zip(now, parts, strict=True))
        stretches.append((end, blend))
    return EncodedTimeline(Timeline(tuple(stretches)), tuple(known.items()))


def _at(schedule: Sequence[tuple[int, str]], step: int) -> str:
    return next(text for last, text in schedule if step <= last)


def aligned(first: Timeline, second: Timeline) -> list[tuple[int, Blend, Blend]]:
    """(last step, blend of the first, blend of the second) for each stretch in which neither changes."""
    ends = sorted({last for last, _ in itertools.chain(first.stretches[:-1], second.stretches[:-1])})
    final = max(first.stretches[-1][0], second.stretches[-1][0], *[end + 1 for end in ends], 1)
    return [(end, first.at(end), second.at(end)) for end in [*ends, final]]
