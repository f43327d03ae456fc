"""How a server is set up: one table, read from a TOML file, the environment and options of the command, in this order.

    host = "0.0.0.0"
    token = "a long secret"
    models = ["/srv/models"]

    [limits]
    pixels = 4194304

In the environment a name stands in capitals after STABLE_DIFFUSION_SERVER_, lists parted as in PATH:
STABLE_DIFFUSION_SERVER_PORT=8080, STABLE_DIFFUSION_SERVER_LIMITS_STEPS=100.
"""

from __future__ import annotations

import dataclasses
import ipaddress
import os
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, get_type_hints

from ..engine.sharing.mode import ShareMode
from ..errors import InvalidRequest, unknown_choice

PREFIX = "STABLE_DIFFUSION_SERVER_"
LOOPBACK = ("localhost", "127.0.0.1", "[::1]")
"""Names of this machine as a browser writes them in Host."""
CLUSTER = "cluster"
"""A table of the same file that is read elsewhere: see `cluster.settings`."""
MIB = 2**20


def about(default: Any, help: str) -> Any:
    """A field of the table with a line of help."""
    return field(default=default, metadata={"help": help})


# fmt: off
@dataclass(frozen=True, kw_only=True)
class Limits:
    """What one request, one client and the whole queue may ask for."""

    pixels: int = about(2048 * 2048, "Pixels of a picture, after hires.")
    side: int = about(4096, "Pixels of a side.")
    steps: int = about(150, "Steps of a picture.")
    count: int = about(32, "Pictures of a request.")
    cost: int = about(40_000, "Megapixels x calls of the network x pictures of a request.")
    prompt: int = about(2000, "Characters of a prompt.")
    windows: int = about(16, "Windows of 75 tokens of a prompt, those that BREAK begins counted.")
    parts: int = about(8, "Parts of a prompt that AND joins.")
    loras: int = about(16, "LoRAs of a request.")
    controls: int = about(8, "Controls of a request.")
    image_pixels: int = about(16_777_216, "Pixels of a picture that is sent.")
    body: int = about(64 * MIB, "Bytes of a body with pictures.")
    small_body: int = about(MIB, "Bytes of a body without pictures.")
    header_seconds: int = about(10, "Seconds in which the headers of a request must be there.")
    body_seconds: int = about(30, "Seconds in which its body must be there.")
    queue: int = about(256, "Jobs that may wait.")
    queue_owner: int = about(64, "Jobs that may wait of one owner.")
    failures: int = about(10, "Wrong tokens of one address in a minute.")
    streams: int = about(64, "Event streams that are open at once.")


@dataclass(frozen=True, kw_only=True)
class ServerSettings:
    """A server's settings. Raises InvalidRequest where one is unusable."""

    host: str = about("127.0.0.1", "Address to listen on.")
    port: int = about(7860, "Port to listen on; 0 takes a free one.")
    data: Path = about(Path("~/.local/share/stable-diffusion"), "Folder of the queue and the pictures.")
    database: str = about("", "URL of a PostgreSQL database, in the place of a file in the data folder.")
    token: str = about("", "Secret that clients must give; needed off this machine.")
    hosts: tuple[str, ...] = about((), "Names under which clients reach the server, besides localhost.")
    allow_origins: tuple[str, ...] = about((), "Origins of other pages that may call the API from a browser.")
    tls_cert: Path | None = about(None, "Certificate chain (PEM), for https.")
    tls_key: Path | None = about(None, "Its private key (PEM).")
    model: str = about("embedded", "Model of requests that name none.")
    device: str = about("auto", "Device: auto (every GPU, a worker each), cpu, cuda:1, or several as cuda:0,cuda:1.")
    dtype: str = about("auto", "Precision: auto, float32, float16 ...")
    share: str = about("alone", "How jobs share network calls: alone, fixed:N or free.")
    models: tuple[Path, ...] = about((), "Folders of models.")
    loras: tuple[Path, ...] = about((), "Folders of LoRAs.")
    embeddings: tuple[Path, ...] = about((), "Folders of embeddings.")
    controls: tuple[Path, ...] = about((), "Folders of ControlNets, T2I-Adapters and IP-Adapters.")
    upscalers: tuple[Path, ...] = about((), "Folders of upscalers.")
    wildcards: Path | None = about(None, "Folder of wildcards.")
    styles_file: Path | None = about(None, "A styles.csv of A1111.")
    content_checker: Path | None = about(None, "Safety checker (folder or file): what it flags is blurred.")
    keep_originals: bool = about(False, "Keep flagged pictures as they were, in the data folder.")
    socket: bool = about(True, "Make pictures for this user's command line, over a socket of this user alone.")
    paused: bool = about(False, "Start without running anything.")
    limits: Limits = field(default_factory=Limits)
# fmt: on

    def __post_init__(self) -> None:
        if not 0 <= self.port <= 65535:
            raise InvalidRequest(f"port is {self.port}; expected a whole number from 0 to 65535")
        ShareMode.parse(self.share)
        if (self.tls_cert is None) != (self.tls_key is None):
            raise InvalidRequest("TLS needs both a certificate and its key; give tls_cert and tls_key")
        if not is_loopback(self.host) and not self.token:
            raise InvalidRequest(
                f"the server would be open to everybody at {self.host!r}; give a token "
                "(STABLE_DIFFUSION_SERVER_TOKEN or --token-file), or listen on 127.0.0.1"
            )
        if self.token and (len(self.token) < 8 or not self.token.isascii() or not self.token.isprintable()):
            raise InvalidRequest("the token is too short or not plain ASCII; expected at least 8 printable characters")
        for origin in self.allow_origins:
            if not origin.startswith(("http://", "https://")) or origin.count("/") != 2 or "*" in origin:
                raise InvalidRequest(f"allow_origins has {origin!r}; expected an origin such as https://example.org")

    @property
    def scheme(self) -> str:
        return "http" if self.tls_cert is None else "https"

    @property
    def roots(self) -> tuple[Path, ...]:
        """Folders that no message names."""
        folders = (*self.models, *self.loras, *self.embeddings, *self.controls, *self.upscalers, self.data)
        files = (self.wildcards, self.styles_file, self.tls_cert, self.tls_key, self.content_checker)
        return (*folders, *(file for file in files if file is not None))


def is_loopback(host: str) -> bool:
    """Whether an address to listen on is reached from this machine alone."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return False


def read_settings(
    path: Path | None, environment: Mapping[str, str], options: Mapping[str, Any]
) -> ServerSettings:
    """The settings of a file, over which the environment goes, over which the options go.

    options  by field name; None is not given. InvalidRequest for an unknown name or an unusable value.
    """
    found = {} if path is None else _from_file(path)
    found.pop(CLUSTER, None)
    limits = dict(found.pop("limits", {}))
    for name in _types(ServerSettings):
        if PREFIX + name.upper() in environment and name != "limits":
            found[name] = environment[PREFIX + name.upper()]
    for name in _types(Limits):
        if f"{PREFIX}LIMITS_{name.upper()}" in environment:
            limits[name] = environment[f"{PREFIX}LIMITS_{name.upper()}"]
    found |= {name: value for name, value in options.items() if value not in (None, ())}
    made = {name: _value(ServerSettings, name, value) for name, value in found.items()}
    return ServerSettings(**made, limits=Limits(**{name: _value(Limits, name, each) for name, each in limits.items()}))


def _from_file(path: Path) -> dict[str, Any]:
    try:
        found = tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise InvalidRequest(f"{str(path)!r} cannot be read: {error.strerror}") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise InvalidRequest(f"{str(path)!r} is no TOML file: {error}") from None
    if not isinstance(found.get("limits", {}), dict):
        raise InvalidRequest(f"limits in {str(path)!r} is {found['limits']!r}; expected a table [limits]")
    return found


def _types(cls: type[Any]) -> dict[str, Any]:
    hints = get_type_hints(cls)
    return {each.name: hints[each.name] for each in dataclasses.fields(cls)}


def _value(cls: type[Any], name: str, value: Any) -> Any:
    """A value from a file, a text of the environment or an option, as the field has it."""
    kinds = _types(cls)
    if name not in kinds or name == "limits":
        raise unknown_choice("setting of the server", name, [each for each in kinds if each != "limits"])
    kind = kinds[name]
    try:
        if kind is int and not isinstance(value, (bool, float)):
            return _above_zero(int(value), name)
        if kind is bool and str(value).lower() in ("true", "false", "1", "0", "yes", "no"):
            return str(value).lower() in ("true", "1", "yes")
        if kind is str and isinstance(value, str):
            return value
        if kind in (Path, Path | None) and isinstance(value, (str, Path)):
            return Path(value).expanduser()
        if kind in (tuple[str, ...], tuple[Path, ...]):
            listed = _listed(value, kind)
            return listed if kind == tuple[str, ...] else tuple(Path(each).expanduser() for each in listed)
    except (TypeError, ValueError):
        pass
    raise InvalidRequest(f"{name} is {value!r}; expected {_expected(kind)}")


def _above_zero(value: int, name: str) -> int:
    if value < (0 if name == "port" else 1):
        raise ValueError(name)
    return value


def _listed(value: Any, kind: Any) -> tuple[Any, ...]:
    if isinstance(value, str):
        sign = os.pathsep if kind == tuple[Path, ...] else ","
        value = [part.strip() for part in value.split(sign) if part.strip()]
    if not all(isinstance(each, (str, Path)) for each in value):
        raise TypeError(value)
    return tuple(value)


def _expected(kind: Any) -> str:
    names = {int: "a whole number from 1", bool: "true or false", str: "text", Path: "a path", Path | None: "a path"}
    return names.get(kind, "a list of texts")
