"""Fetching a model from the model hub, only when asked: the one module that may use the network.

It goes through the library `huggingface_hub` (the extra `hub`). A download that broke off continues where it ended, in
a later run too, and the hash of every large file is checked; `hf_hub_download` does neither, so that files are read in
pieces through the library's file system. Of a diffusers folder only what this package
reads is fetched: each network once, without safety checker and duplicates.
"""

from __future__ import annotations

import fnmatch
import os
import shutil
import time
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path, PurePosixPath
from typing import Any, BinaryIO

from .errors import InvalidRequest, StableDiffusionError, nearest
from .weights.checkpoints.folder import INDEX, STEMS
from .weights.containers.hashes import sha256

MODELS = (".safetensors", ".gguf", ".ckpt", ".pt", ".bin")
WEIGHTS = (".safetensors", ".bin")
NETWORKS = ("unet", "transformer", "vae", "text_encoder", "text_encoder_2", "text_encoder_3")
FOLDERS = (*NETWORKS, "tokenizer", "tokenizer_2", "tokenizer_3", "scheduler")
CONFIGS = (".json", ".txt", ".model")
"""Endings of configs and vocabularies."""
PART, TAG = ".part", 16
"""Ending of the name of a file that is not complete, and how many digits of its hash are in it."""
LISTED = 12
"""How many files an error lists."""
SMALLEST_PIECE, LARGEST_PIECE = 2**20, 2**26
"""Bytes asked for at once. Larger pieces wait less for answers, smaller ones show progress and lose less."""

Progress = Callable[[str, int, int | None], None]
"""(file, bytes so far, bytes in all where they are known)."""


@dataclass(frozen=True)
class Pulled:
    """What was fetched: the file or folder to load, all files, and the commit that they are of."""

    path: Path
    files: tuple[Path, ...]
    commit: str


def pull(
    repo: str,
    folder: Path,
    *,
    files: Sequence[str] = (),
    revision: str | None = None,
    variant: str | None = None,
    progress: Progress | None = None,
) -> Pulled:
    """Fetch the model of a repository ("owner/name") to `folder`; what is there already is not fetched again.

    files     names or patterns (`*.safetensors`) of its files, which go to `folder` itself; without any, a diffusers
              folder goes to `folder`/name, and of other repositories the one model file that they have
    variant   which weights of a diffusers folder, such as "fp16"
    progress  is called as bytes arrive

    Raises InvalidRequest where there is no such repository or file, or which of several is meant is not said, and
    StableDiffusionError where the extra is missing, the hub cannot be reached, or the disk is too small.
    """
    hub = _library()
    with _plain_errors(hub, repo, revision):
        about = hub.HfApi(endpoint=_endpoint()).model_info(repo, revision=revision, files_metadata=True)
        found = {each.rfilename: each for each in about.siblings or () if _is_inside(each.rfilename)}
        names = _matching(repo, found, files) if files else _model_of(repo, found, variant)
        place = folder / PurePosixPath(repo).name if not files and INDEX in names else folder
        _check_room(place, sum(found[name].size or 0 for name in names if not (place / name).exists()))
        fetched = tuple(_fetch(hub, repo, str(about.sha), found[name], place, progress) for name in names)
    whole = place if INDEX in names else fetched[0]
    return Pulled(path=whole, files=fetched, commit=str(about.sha))


def _library() -> Any:
    try:
        import huggingface_hub
        import huggingface_hub.errors
    except ImportError:
        raise StableDiffusionError(
            "pull needs the library huggingface_hub; `pip install 'stable-diffusion[hub]'` installs it"
        ) from None
    return huggingface_hub


def _endpoint() -> str | None:
    """Another hub than the usual one, as the library itself names it, but read at the call."""
    return os.environ.get("HF_ENDPOINT", "").rstrip("/") or None


def _is_inside(name: str) -> bool:
    """Whether a file's name stays inside the folder that it is written to."""
    path = PurePosixPath(name)
    return bool(name) and not path.is_absolute() and ".." not in path.parts and "\\" not in name and ":" not in name


def _matching(repo: str, names: Collection[str], wanted: Sequence[str]) -> list[str]:
    """The files that match the names or patterns."""
    found: dict[str, None] = {}
    for each in wanted:
        matching = [name for name in names if name == each or fnmatch.fnmatchcase(name, each)]
        if not matching:
            close = nearest(each, names)
            hint = f"did you mean {close!r}? " if close else ""
            raise InvalidRequest(f"{repo} has no file {each!r}: {hint}there are {_listed(names)}")
        found |= dict.fromkeys(matching)
    return list(found)


def _model_of(repo: str, names: Collection[str], variant: str | None) -> list[str]:
    """What belongs to the model of a repository, where nothing was named."""
    if INDEX in names:
        return [INDEX, *(name for folder in FOLDERS for name in _of_folder(repo, names, folder, variant))]
    models = [name for name in names if name.endswith(MODELS)]
    if len(models) == 1:
        return models
    raise InvalidRequest(f"{repo} has {len(models)} model files; name one with --file: {_listed(models or names)}")


def _of_folder(repo: str, names: Collection[str], folder: str, variant: str | None) -> list[str]:
    """Configs and vocabularies of a component, and its weights once: safetensors, else pickles.

    Without a `variant` those of full precision are taken, else those of fp16, as a folder is read.
    """
    inside = [name for name in names if PurePosixPath(name).parent == PurePosixPath(folder)]
    plain = [name for name in inside if name.endswith(CONFIGS) and ".index." not in name]
    if folder not in NETWORKS or not inside:
        return plain
    for infix in ("", ".fp16") if variant is None else (f".{variant}",):
        for ending in WEIGHTS:
            found = [name for name in inside if _is_weights(PurePosixPath(name).name, infix, ending)]
            if any(name.endswith(ending) for name in found):
                return [*plain, *found]
    wanted = "weights" if variant is None else f"weights of the variant {variant!r}"
    raise InvalidRequest(f"{repo} has no {wanted} in {folder}: there are {_listed(inside)}")


def _is_weights(name: str, infix: str, ending: str) -> bool:
    """`model.fp16.safetensors`, its shards `model.fp16-00001-of-00002.safetensors`, and their index."""
    shard = "-[0-9][0-9][0-9][0-9][0-9]-of-[0-9][0-9][0-9][0-9][0-9]"
    patterns = [f"{infix}{ending}", f"{infix}{shard}{ending}", f"{shard}{infix}{ending}"]
    patterns += [f"{ending}.index{infix}.json", f"{infix}{ending}.index.json"]
    return any(fnmatch.fnmatchcase(name, stem + pattern) for stem in STEMS for pattern in patterns)


def _listed(names: Collection[str]) -> str:
    shown = sorted(names)[:LISTED]
    more = len(names) - len(shown)
    return ", ".join(shown) + (f" and {more} more" if more > 0 else "") if shown else "none at all"


def _check_room(place: Path, size: int) -> None:
    there = next(each for each in (place, *place.absolute().parents) if each.exists())
    free = shutil.disk_usage(there).free
    if size > free:
        raise StableDiffusionError(
            f"{size / 1e9:.1f} GB are to be fetched, and the disk of {there} has {free / 1e9:.1f}"
        )


def _fetch(hub: Any, repo: str, commit: str, about: Any, place: Path, progress: Progress | None) -> Path:
    """One file, written under another name until it is complete; what an earlier run left of it is continued."""
    name, size, sha = str(about.rfilename), about.size, about.lfs.sha256 if about.lfs else None
    target = place / name
    if target.exists():
        if size is None or target.stat().st_size == size:
            return target
        raise InvalidRequest(
            f"{target} is there and another file than that of {repo}; move it away, or give another --to"
        )
    target.parent.mkdir(parents=True, exist_ok=True)
    part = target.with_name(f".{target.name}.{(sha or about.blob_id or commit)[:TAG]}{PART}")
    files = hub.HfFileSystem(endpoint=_endpoint())
    with part.open("ab") as file, files.open(f"{repo}@{commit}/{name}", "rb", size=size, cache_type="none") as source:
        _copy(source, file, None if progress is None else partial(progress, name))
    if part.stat().st_size != source.size or (sha is not None and sha256(part) != sha):
        part.unlink()
        raise StableDiffusionError(f"{name} arrived damaged (its sha256 is another than the hub's); fetch it again")
    part.replace(target)
    return target


def _copy(source: Any, file: BinaryIO, progress: Callable[[int, int | None], None] | None) -> None:
    """The bytes of `source` from where `file` ends, in pieces of a second or two: each is one request of the library,
    with its retries."""
    piece = SMALLEST_PIECE
    source.seek(file.tell())
    while True:
        if progress is not None:
            progress(file.tell(), source.size)
        start = time.monotonic()
        left = source.size - file.tell()
        data = source.read(min(piece, left)) if left > 0 else b""
        if not data:
            return
        file.write(data)
        piece = min(2 * piece, LARGEST_PIECE) if time.monotonic() - start < 1 else max(piece // 2, SMALLEST_PIECE)


@contextmanager
def _plain_errors(hub: Any, repo: str, revision: str | None) -> Iterator[None]:
    """The library's errors, each as one sentence."""
    errors = hub.errors
    try:
        yield
    except errors.HFValidationError:
        raise InvalidRequest(f"{repo!r} is no repository; expected owner/name") from None
    except errors.GatedRepoError:
        raise StableDiffusionError(
            f"{repo} is given only to accounts that accepted its licence; accept it on its page, then `hf auth login`"
        ) from None
    except errors.RevisionNotFoundError:
        raise InvalidRequest(f"{repo} has no revision {revision!r}; leave it out for the newest") from None
    except errors.RepositoryNotFoundError:
        raise InvalidRequest(f"there is no repository {repo!r}, or it is private") from None
    except (StableDiffusionError, KeyboardInterrupt):
        raise
    except errors.HfHubHTTPError as error:
        status = getattr(getattr(error, "response", None), "status_code", "an error")
        raise StableDiffusionError(f"the model hub answers {status} for {repo}; try again later") from None
    except Exception as error:
        if not _is_offline(error):
            raise
        raise StableDiffusionError(
            f"the model hub cannot be reached ({type(error).__name__}); pull needs a connection, all else works offline"
        ) from None


def _is_offline(error: BaseException) -> bool:
    """Errors of connections, whichever library makes them."""
    names = {kind.__name__ for kind in type(error).__mro__}
    return isinstance(error, ConnectionError) or bool(
        names & {"TransportError", "RequestException", "OfflineModeIsEnabled", "LocalEntryNotFoundError"}
    )
