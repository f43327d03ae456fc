"""How a cluster is set up: the table [cluster] of the file that also sets up the server.

[cluster]
address = "auto"
max_replicas = 8
gpus = 1
store = "/shared/models"
"""

from __future__ import annotations

import dataclasses
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, get_type_hints

from ..errors import InvalidRequest, unknown_choice, what_is

TABLE = "cluster"
LOCAL = "local"
"""The address for which a Ray of this program's own is started on this machine."""


def about(default: Any, help: str, least: float = 0) -> Any:
    """A field of the table: its default, a line of help, and the smallest number that it takes."""
    return field(default=default, metadata={"help": help, "least": least})


# fmt: off
@dataclass(frozen=True, kw_only=True)
class ClusterSettings:
    """The settings of a cluster. Raises InvalidRequest where one is unusable."""

    address: str = about("auto", 'Address of Ray: HOST:PORT, "auto" for the one of this machine, "local" to start one.')
    namespace: str = about("stable-diffusion", "Name under which Ray keeps the replicas.")
    min_replicas: int = about(1, "Replicas that are kept while nothing is asked.", 1)
    max_replicas: int = about(4, "Most replicas, and so the most requests that run at once.", 1)
    grow_seconds: float = about(1.0, "Seconds that a request must wait for a replica until one more is started.")
    idle_seconds: float = about(60.0, "Seconds without work after which a replica beyond the least is ended.")
    attempts: int = about(4, "Times that a request is tried whose replica dies.", 1)
    cpus: float = about(1.0, "Processors that Ray reserves for a replica.")
    gpus: float = about(0.0, "GPUs that Ray reserves for a replica.")
    threads: int = about(0, "Threads of torch in a replica; 0 is as many as it has processors.")
    device: str = about("auto", "Device of a replica: auto, cpu, cuda ...")
    dtype: str = about("auto", "Precision of a replica: auto, float32, float16 ...")
    engine: str = about("auto", "Engine of a replica: auto, torch, openvino.")
    store: Path | None = about(None, "Folder that all machines see, in which models lie by their hash.")
    cache: Path = about(Path("~/.cache/stable-diffusion/models"), "Folder of each machine for its copies of models.")
    cache_gigabytes: float = about(100.0, "Size of that folder beyond which the copies used longest ago are removed.")
    object_megabytes: int = about(200, 'Memory for what machines exchange, where the address is "local".', 80)
    local_cpus: int = about(0, 'Processors of Ray, where the address is "local"; 0 is one for each replica.')
# fmt: on

    def __post_init__(self) -> None:
        for each in dataclasses.fields(self):
            value, least = getattr(self, each.name), each.metadata["least"]
            if isinstance(value, (int, float)) and not value >= least:
                raise InvalidRequest(f"{each.name} of the cluster is {value!r}; expected a number from {least:g}")
        if self.max_replicas < self.min_replicas:
            raise InvalidRequest(
                f"max_replicas is {self.max_replicas} and min_replicas {self.min_replicas}; expected at least as many"
            )
        if "://" in self.address:
            raise InvalidRequest(
                f"the address of Ray is {self.address!r}; expected HOST:PORT, 'auto' or 'local', for this program "
                "must be on a machine of the cluster (`ray start --address=HOST:PORT --num-cpus=0` makes it one)"
            )

    @property
    def torch_threads(self) -> int:
        """Threads of torch in a replica. Pictures depend on it in their last bits."""
        return self.threads or max(1, int(self.cpus))


def read_cluster_settings(path: Path | None, options: Mapping[str, Any]) -> ClusterSettings:
    """The table [cluster] of a TOML file, over which the options go; None is not given.

    InvalidRequest for an unknown name, or a value of another kind than its setting has.
    """
    found = {} if path is None else _table(path)
    found |= {name: value for name, value in options.items() if value is not None}
    kinds = get_type_hints(ClusterSettings)
    for name in found:
        if name not in kinds:
            raise unknown_choice("setting of the cluster", name, list(kinds))
    return ClusterSettings(**{name: _converted(name, value, kinds[name]) for name, value in found.items()})


def _table(path: Path) -> dict[str, Any]:
    try:
        found = tomllib.loads(path.read_text(encoding="utf-8")).get(TABLE, {})
    except OSError as error:
        raise InvalidRequest(f"{str(path)!r} cannot be read: {error.strerror}") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise InvalidRequest(f"{str(path)!r} is no TOML file: {error}") from None
    if not isinstance(found, dict):
        raise InvalidRequest(f"{TABLE} in {str(path)!r} is {found!r}; expected a table [{TABLE}]")
    return found


def _converted(name: str, value: Any, kind: Any) -> Any:
    is_number = isinstance(value, (int, float)) and not isinstance(value, bool)
    if kind is int and is_number and int(value) == value:
        return int(value)
    if kind is float and is_number:
        return float(value)
    if kind is str and isinstance(value, str):
        return value
    if kind in (Path, Path | None) and isinstance(value, (str, Path)):
        return Path(value).expanduser()
    words = {int: "a whole number", float: "a number", str: "text"}
    raise InvalidRequest(f"{name} of the cluster is {what_is(value)}; expected {words.get(kind, 'a path')}")
