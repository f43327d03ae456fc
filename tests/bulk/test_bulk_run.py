"""A bulk run: each request once, a manifest of all, resumed where it was, packed into tar files."""

from __future__ import annotations

import hashlib
import io
import json
import os
import tarfile
from pathlib import Path
from typing import Any

import kill_bulk
import pytest
from click.testing import CliRunner
from PIL import Image

from stable_diffusion import Request, load
from stable_diffusion.bulk import run as run_file
from stable_diffusion.bulk.plan import Shard
from stable_diffusion.bulk.read import json_line
from stable_diffusion.bulk.run import BulkPlan, BulkRun, BulkStatus, plan_key
from stable_diffusion.bulk.work import WorkOrder, work
from stable_diffusion.cli.main import cli
from stable_diffusion.errors import InvalidRequest, StableDiffusionError
from stable_diffusion.events import Images
from stable_diffusion.images import save_image
from stable_diffusion.jobs import FolderInUse
from stable_diffusion.pipeline.generate import generate

WHOLE = bool(os.environ.get("STABLE_DIFFUSION_WHOLE_TESTS"))
BASE = {"model": "embedded-fast", "steps": 1, "width": 64, "height": 64}


class HereProcesses:
    """Workers in this process, one after another: what they do is the same, and torch is here already."""

    def __init__(self, orders: list[WorkOrder], leases: object) -> None:
        self.orders = orders

    def __enter__(self) -> HereProcesses:
        return self

    def __exit__(self, *_: object) -> None: ...

    def check(self) -> bool:
        for order in self.orders:
            work(order)
        return False


@pytest.fixture(autouse=True)
def here(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    if "processes" not in request.node.name:
        monkeypatch.setattr(run_file, "Processes", HereProcesses)
        monkeypatch.setattr(run_file, "LOOK", 0.0)


def run(folder: Path, *lines: Any, shard: Shard | None = None, tar: int = 0, key: str = "") -> BulkStatus:
    """The last state of a whole run; `key` "" reads the lines at every start."""
    plan = BulkPlan(
        lines=lambda: [json_line(line, number) for number, line in enumerate(lines, start=1)],
        base=BASE,
        shard=shard or Shard(),
        key=key,
    )
    return list(BulkRun(folder, plan, tar=tar).run())[-1]


def manifest(folder: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (folder / "manifest.jsonl").read_text().splitlines()]


def test_equal_requests_are_made_once_and_the_manifest_has_all(tmp_path: Path) -> None:
    two = {"prompt": "a dog", "seed": 7, "count": 2}
    run(tmp_path, "a cat", two, "a cat", two)
    rows = manifest(tmp_path)
    assert [(row["line"], row.get("number"), row["state"]) for row in rows] == [
        *((1, 0, "done"), (2, 0, "done"), (2, 1, "done"), (3, 0, "done"), (4, None, "twin"))
    ]
    assert rows[-1]["same_as_line"] == 2 and rows[0]["seed"] != rows[3]["seed"]
    model = load("embedded-fast")
    for row in rows[:-1]:
        data = (tmp_path / row["file"]).read_bytes()
        assert hashlib.sha256(data).hexdigest() == row["sha256"] and row["seconds"] > 0 and row["attempts"] == 1
        (made,) = (event for event in generate(model, Request(**row["request"])) if isinstance(event, Images))
        assert save_image(made.images[0], tmp_path / "one.png").read_bytes() == data
    assert len(list((tmp_path / "pictures").rglob("*.png"))) == 4


def test_a_second_run_makes_only_what_is_new(tmp_path: Path) -> None:
    first = run(tmp_path, {"prompt": "a", "seed": 1}, key="k")
    before = {path: path.stat().st_mtime_ns for path in (tmp_path / "pictures").rglob("*.png")}
    unread = run(tmp_path, {"never": "read"}, key="k")
    assert unread.done == unread.before == 1
    more = run(tmp_path, {"prompt": "new", "seed": 2}, {"prompt": "a", "seed": 1}, key="other")
    assert (more.before, more.done, more.total) == (1, 2, 2)
    assert all(path.stat().st_mtime_ns == time for path, time in before.items())
    assert first.seconds_left is not None
    held = BulkRun(tmp_path, BulkPlan(lines=list, base={}))
    with pytest.raises(FolderInUse):
        BulkRun(tmp_path, BulkPlan(lines=list, base={}))
    held.folder.unlock()
    held.database.close()


def test_what_was_cut_off_is_no_attempt(tmp_path: Path) -> None:
    made = BulkRun(tmp_path, BulkPlan(lines=lambda: [json_line({"prompt": "a", "seed": 1}, 1)], base=BASE))
    made._prepare()
    for _ in range(5):
        assert made.leases.claim("killed with all others") is not None
        made._prepare()
    assert made.leases.claim("one") is not None and made.leases.recover(worker="another") == ([], [])
    assert len(made.leases.recover(worker="one")[0]) == 1
    made.folder.unlock()
    assert run(tmp_path, {"prompt": "a", "seed": 1}).done == 1
    assert manifest(tmp_path)[0]["attempts"] == 2


def test_failures_are_in_the_manifest_and_wrong_lines_stop_everything(tmp_path: Path) -> None:
    made = run(tmp_path / "out", {"prompt": "a", "model": "nowhere.safetensors", "seed": 1}, {"prompt": "b", "seed": 2})
    assert (made.failed, made.done, made.total) == (1, 1, 2)
    failed = manifest(tmp_path / "out")[0]
    assert failed["state"] == "failed" and "nowhere.safetensors" in failed["error"] and failed["request"]["seed"] == 1
    with pytest.raises(InvalidRequest, match="line 2"):
        run(tmp_path / "other", "a", {"prompt": "b", "steps": 0})
    assert not list((tmp_path / "other").rglob("*.png"))


def test_a_full_disk_stops_the_run_and_the_next_goes_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import errno

    from stable_diffusion.weights.containers import atomic

    real = os.fsync

    def full(handle: int) -> None:
        if os.readlink(f"/proc/self/fd/{handle}").endswith(".png") or ".png." in os.readlink(f"/proc/self/fd/{handle}"):
            raise OSError(errno.ENOSPC, "No space left on device")
        real(handle)

    with monkeypatch.context() as patch:
        patch.setattr(atomic.os, "fsync", full)
        with pytest.raises(StableDiffusionError, match="the disk is full; make room"):
            run(tmp_path, {"prompt": "a", "seed": 1}, {"prompt": "b", "seed": 2})
    made = run(tmp_path, {"prompt": "a", "seed": 1}, {"prompt": "b", "seed": 2})
    assert made.done == 2 and made.failed == 0


def test_tar_files_are_those_of_webdataset(tmp_path: Path) -> None:
    lines = [{"prompt": f"number {n}", "seed": n} for n in range(5)]
    run(tmp_path / "files", *lines)
    run(tmp_path / "tars", *lines, tar=2)
    tars = sorted(path.name for path in (tmp_path / "tars").glob("*.tar"))
    assert tars == ["pictures-00000.tar", "pictures-00001.tar", "pictures-00002.tar"]
    assert not list((tmp_path / "tars" / "pictures").rglob("*.png"))
    for plain, packed in zip(manifest(tmp_path / "files"), manifest(tmp_path / "tars"), strict=True):
        with tarfile.open(tmp_path / "tars" / packed["file"]) as tar:
            data = tar.extractfile(packed["member"]).read()  # type: ignore[union-attr]
            told = json.load(tar.extractfile(packed["member"].replace(".png", ".json")))  # type: ignore[arg-type]
        assert data == (tmp_path / "files" / plain["file"]).read_bytes()
        assert told == packed["request"] and Image.open(io.BytesIO(data)).size == (64, 64)
    before = (tmp_path / "tars" / "pictures-00002.tar").stat().st_size
    run(tmp_path / "tars", *lines, {"prompt": "one more", "seed": 9}, tar=2)
    assert (tmp_path / "tars" / "pictures-00002.tar").stat().st_size > before
    with tarfile.open(tmp_path / "tars" / "pictures-00002.tar") as tar:
        assert len(tar.getnames()) == 4


def test_shards_make_everything_once(tmp_path: Path) -> None:
    lines = [{"prompt": f"number {n}", "seed": n} for n in (0, 1, 2, 3, 0)]
    for number in (1, 2):
        run(tmp_path, *lines, shard=Shard(number, 2))
    rows = [row for n in (1, 2) for row in manifest(tmp_path / f"shard-{n}-of-2")]
    assert sorted(row["line"] for row in rows if row["state"] == "done") == [1, 2, 3, 4]
    assert [row["line"] for row in rows if row["state"] == "twin"] == [5]


def test_a_plan_is_known_by_its_file_and_options(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    path.write_text("a")
    first = plan_key(path, {"steps": 3})
    assert plan_key(path, {"steps": 3}) == first != plan_key(path, {"steps": 4})
    path.write_text("ab")
    assert plan_key(path, {"steps": 3}) != first


@pytest.mark.timeout(3600 if WHOLE else 300)
def test_processes_that_are_killed_leave_nothing_undone(tmp_path: Path) -> None:
    prompts, kills, workers = (300, 10, 2) if WHOLE else (8, 1, 1)
    found = kill_bulk.whole(tmp_path, prompts, kills, workers)
    assert found["pictures"] == found["files"] == prompts and found["other bytes"] == 0, found
    assert not found["left over"], found


def test_the_command_refuses_in_a_sentence(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    for arguments, words in (
        (["-o", str(tmp_path / "out")], "--prompt"),
        (["a.txt", "--prompt", "a", "-o", "out"], "--prompt"),
        ([str(tmp_path / "no.txt"), "-o", str(tmp_path / "out")], "does not exist"),
        (["--prompt", "a", "-o", str(tmp_path / "file")], "is a file"),
        (["--prompt", "a", "-o", str(tmp_path / "out"), "--shard", "5/4"], "third of 64"),
        (["--prompt", "a", "-o", str(tmp_path / "out"), "--axis", "stebs=1"], "steps"),
    ):
        result = CliRunner().invoke(cli, ["bulk", *arguments])
        assert result.exit_code != 0 and words in result.output and "Traceback" not in result.output, result.output
