"""The settings that were given on a command line, on their way to a request."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click

from ..request.metadata_read import picture_text, read_text
from ..request.prompt_file import read_prompts
from ..request.request import Request, all_settings
from .control_options import given_controls
from .files import is_model_name
from .setting_options import parameter


@dataclass(frozen=True)
class Given:
    """The settings that were given on a command line."""

    settings: dict[str, Any]

    @staticmethod
    def of(parameters: dict[str, Any]) -> Given:
        """From what a command gets: without what was not given, --size taken apart, and groups put together."""
        values = {name: value for name, value in parameters.items() if value is not None and value != ()}
        size = values.pop("size", None)
        if size is not None:
            if "width" in values or "height" in values:
                raise click.UsageError("Give --size, or --width and --height, not both", click.get_current_context())
            values["width"], values["height"] = size
        settings: dict[str, Any] = {}
        for each in all_settings():
            if parameter(each) in values:
                each.put(settings, values[parameter(each)])
        if controls := given_controls(click.get_current_context()):
            settings["controls"] = controls
        return Given(settings)

    def over(self, **usual: Any) -> Given:
        """These settings, and `usual` ones where none were given."""
        return Given({**usual, **self.settings})

    def request(self, prompt: str, **more: Any) -> Request:
        """The request for a prompt; `more` are settings that the command itself makes."""
        return Request(prompt, **{**self.settings, **more})

    def like(self, picture: Path, prompt: str | None) -> Request:
        """The request that is written in a picture, with what was given.

        A model that another program names and that is not here is left out with a note; in a picture of our own it is
        an error, because such a picture is meant to be made again to the byte.
        """
        request = Request.like(picture, **self.settings, **({} if prompt is None else {"prompt": prompt}))
        if "model" in self.settings or request.model is None or read_text(Request, picture_text(picture)).ours:
            return request
        if is_model_name(request.model):
            return request
        click.echo(f"note: {picture}: its model {request.model!r} is not here; --model names another", err=True)
        return request.with_changes(model=None)

    def lines(self, file: Path) -> list[Request]:
        """A request for each line of a file of prompts; what a line says goes before what was given."""
        return [line.request(**self.settings) for line in read_prompts(file)]
