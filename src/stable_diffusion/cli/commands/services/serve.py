"""`stable-diffusion serve`: the server, with the page at / and the APIs."""

from __future__ import annotations

import importlib.util
import os
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any

import click

from ....errors import InvalidRequest
from ...command import Command, F, SectionOption, Whole
from .on_cluster import runners as runners_of

NEEDED = ("fastapi", "uvicorn", "python_multipart", "websockets", "prometheus_client", "sqlalchemy")
MISSING = 'the server needs more packages: pip install "stable-diffusion[server]"'
FILES = "Models and other files"
SAFETY = "Who may use it"
EXAMPLES = """
stable-diffusion serve
stable-diffusion serve --models ~/models --loras ~/loras --port 8080
stable-diffusion serve --host 0.0.0.0 --token-file secret.txt --name paint.local --tls-cert cert.pem --tls-key key.pem
stable-diffusion serve --config server.toml
stable-diffusion serve --ray auto --config server.toml
"""


def _option(*names: str, section: str, **facts: Any) -> Callable[[F], F]:
    return click.option(*names, cls=SectionOption, section=section, **facts)


def _folders(name: str, what: str) -> Callable[[F], F]:
    return _option(
        f"--{name}", section=FILES, multiple=True, metavar="FOLDER", type=click.Path(path_type=Path),
        help=f"Folder of {what}; may be repeated.",
    )  # fmt: skip


@click.command("serve", cls=Command, examples=EXAMPLES)
@click.option("--config", type=click.Path(path_type=Path, dir_okay=False), help="TOML file of settings.")
@click.option("--host", help="Address to listen on; 127.0.0.1.")
@click.option("--port", type=Whole(0, 65535), help="Port; 7860. 0 takes a free one.")
@click.option("--data", type=click.Path(path_type=Path), help="Folder of the queue and the pictures.")
@click.option("--database", metavar="URL", help="PostgreSQL in the place of a file in the data folder.")
@click.option("-m", "--model", help="Model of requests that name none.")
@click.option("--device", help="auto (every GPU, a worker each), cpu, cuda:1, or several as cuda:0,cuda:1.")
@click.option("--dtype", help="auto, float32, float16 ...")
@click.option("--ray", metavar="ADDRESS", help='Make the pictures on a Ray cluster; "local" starts one.')
@click.option("--share", metavar="MODE", help="Jobs share network calls: alone (default), fixed:N, free.")
@click.option("--paused", is_flag=True, default=None, help="Start without running anything.")
@click.option("--rebuild-gallery", is_flag=True, help="Read the folder of pictures into the gallery first.")
@_folders("models", "models")
@_folders("loras", "LoRAs")
@_folders("embeddings", "embeddings")
@_folders("controls", "ControlNets, T2I-Adapters and IP-Adapters")
@_folders("upscalers", "upscalers")
@_option("--wildcards", section=FILES, type=click.Path(path_type=Path), help="Folder of wildcards.")
@_option("--styles-file", section=FILES, type=click.Path(path_type=Path), help="A styles.csv of A1111.")
@_option("--token-file", section=SAFETY, type=click.Path(path_type=Path), help="File with the secret of clients.")
@_option("--name", "hosts", section=SAFETY, multiple=True, help="Name by which clients call the server; repeatable.")
@_option("--allow-origin", "allow_origins", section=SAFETY, multiple=True, metavar="ORIGIN",
         help="Origin of another page that may call the API; repeatable.")  # fmt: skip
@_option("--tls-cert", section=SAFETY, type=click.Path(path_type=Path), help="Certificate chain (PEM), for https.")
@_option("--tls-key", section=SAFETY, type=click.Path(path_type=Path), help="Its private key (PEM).")
@_option("--content-checker", section=SAFETY, type=click.Path(path_type=Path), metavar="PATH",
         help="Safety checker of diffusers, folder or file: pictures that it flags are shown blurred.")  # fmt: skip
@_option("--keep-originals", section=SAFETY, is_flag=True, default=None,
         help="Keep flagged pictures as they were, in the data folder.")  # fmt: skip
@_option("--max-queue", section=SAFETY, type=Whole(1, 10**6), help="Jobs that may wait; 256.")
def command(
    config: Path | None,
    ray: str | None,
    token_file: Path | None,
    max_queue: int | None,
    rebuild_gallery: bool,
    **options: Any,
) -> None:
    """Serve the page and the APIs until Ctrl-C.

    On 127.0.0.1 everybody on this machine may use it; on another address a token is needed: --token-file, or
    STABLE_DIFFUSION_SERVER_TOKEN. Every setting can stand in a file (--config) and in the environment
    (STABLE_DIFFUSION_SERVER_PORT=8080).
    """
    if any(importlib.util.find_spec(name) is None for name in NEEDED):
        raise InvalidRequest(MISSING)
    from ....server.listen import serve
    from ....server.settings import read_settings

    if token_file is not None:
        options["token"] = _token(token_file)
    environment = dict(os.environ)
    if max_queue is not None:
        environment["STABLE_DIFFUSION_SERVER_LIMITS_QUEUE"] = str(max_queue)
    settings = read_settings(config, environment, options)
    with _runners(ray, config, options) as runners:
        say = lambda address: click.echo(f"listening at {address}", err=True)  # noqa: E731
        serve(settings, say, rebuild=rebuild_gallery, runners=runners)


def _runners(ray: str | None, config: Path | None, options: Mapping[str, Any]) -> AbstractContextManager[Any]:
    """What runs the jobs: a cluster with --ray, else nothing, which leaves it to the server."""
    return nullcontext(()) if ray is None else runners_of(config, {"address": ray, **options})


def _token(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8").strip()
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or "it is not text"
        raise InvalidRequest(f"{str(path)!r} cannot be read: {reason}") from None
