"""What A1111's routes remember between requests: the options that clients set, and whom they watch."""

from __future__ import annotations

from dataclasses import asdict, replace
from typing import Annotated, Any

from fastapi import Depends
from fastapi.requests import HTTPConnection

from ..service import Service, ServiceIs, state_of
from .bodies import Generation
from .options import CHECKPOINT, Options, stored_options, with_options
from .progress import Watch

KEY = "a1111 options"
"""Of the options among the settings that outlive the server."""


class WebUI:
    """The state of A1111's API on one server."""

    def __init__(self, service: Service) -> None:
        self.service = service
        self.watch = Watch(service.queue)

    async def options(self) -> Options:
        """The options as they were set last; a model that is no longer listed is the server's own again."""
        options = stored_options(await self.service.call(self.service.queue.settings.get, KEY))
        titles = {entry.title for entry in self.service.library.models.entries().values()}
        return options if options.sd_model_checkpoint in titles else replace(options, sd_model_checkpoint="")

    async def set_options(self, given: dict[str, Any]) -> Options:
        """Change options for good; InvalidRequest where one cannot be used, and then none is changed."""
        options = with_options(await self.options(), given, self.service.library)
        if options.sd_model_checkpoint == self.service.library.default_model().title:
            options = replace(options, sd_model_checkpoint="")
        await self.service.call(self.service.queue.settings.set, KEY, asdict(options))
        return options

    async def options_of(self, body: Generation) -> Options:
        """The options with which a request runs; kept where it does not ask to have them restored."""
        given = dict(body.override_settings)
        if given.get(CHECKPOINT) == "":  # some clients send the field of a form that nobody filled in
            del given[CHECKPOINT]
        options = with_options(await self.options(), given, self.service.library)
        if given and not body.override_settings_restore_afterwards:
            await self.set_options(given)
        return options


def get_webui(connection: HTTPConnection, service: ServiceIs) -> WebUI:
    """The state of the application that is asked."""
    return state_of(connection, "webui", lambda: WebUI(service))


WebUIIs = Annotated[WebUI, Depends(get_webui)]
"""A parameter of a route that is the state of A1111's API."""
