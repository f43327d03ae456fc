"""The gallery: found, starred, deleted with a way back, and built again from the files."""

from __future__ import annotations

import io
import os
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from PIL import Image
from quick_runner import QuickRunner

from stable_diffusion import Request
from stable_diffusion.errors import InvalidRequest
from stable_diffusion.jobs import JobService, Limits, UnknownPicture
from stable_diffusion.jobs import gallery as gallery_file

Make = Callable[..., JobService]


def painted(service: JobService, *prompts: str, owner: str = "local") -> list[str]:
    """Jobs run one after another; the ids of their pictures."""
    ids = []
    for prompt in prompts:
        job = service.submit(Request(prompt, seed=3), owner=owner)
        service.workers[0].run_next()
        ids += [picture.id for picture in service.pictures_of(job.id)]
    return ids


def test_pictures_are_found(make_service: Make) -> None:
    service = make_service(runners=[QuickRunner()])
    cat, dog, other = *painted(service, "a red CAT", "Été 100% dog"), *painted(service, "a cat", owner="you")
    gallery = service.gallery
    assert [each.id for each in gallery.list()] == [other, dog, cat]
    assert [each.id for each in gallery.list(owner="local")] == [dog, cat]
    assert [each.id for each in gallery.list(search="cat red")] == [cat]
    assert [each.id for each in gallery.list(search="été 100%")] == [dog]
    assert gallery.list(search="1_0") == [] and gallery.count(search="seed:") == 3
    assert [each.id for each in gallery.list(limit=1, offset=1)] == [dog]
    assert gallery.star([cat, "unknown"]) == [cat]
    assert [each.id for each in gallery.list(starred=True)] == [cat] and gallery.count(starred=False) == 2
    assert gallery.star([cat], False) == [cat] and gallery.count(starred=True) == 0
    request, _ = gallery.request_of(dog)
    assert (request.prompt, request.seed) == ("Été 100% dog", 3)
    with pytest.raises(UnknownPicture, match="there is no picture 'x'"):
        gallery.read("x")


def test_pictures_that_are_not_to_be_saved_pass(make_service: Make) -> None:
    service = make_service(runners=[QuickRunner()], limits=Limits(unsaved=0.0))
    job = service.submit(Request("a cat"), save=False)
    service.workers[0].run_next()
    (picture,) = service.pictures_of(job.id)
    assert service.gallery.read(picture.id) and service.gallery.list() == []
    assert service.gallery.purge() == [picture.id]
    assert service.pictures_of(job.id) == [] and not list(service.folder.pictures.rglob("*.png"))


def test_deleted_pictures_can_be_brought_back(make_service: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    service = make_service(runners=[QuickRunner()])
    events = service.subscribe()
    cat, dog = painted(service, "cat", "dog")
    before = service.gallery.read(cat)
    assert service.gallery.delete([cat]) == [cat] and service.gallery.delete([cat]) == []
    assert [each.id for each in service.gallery.list()] == [dog]
    assert [each.id for each in service.gallery.list(deleted=True)] == [cat]
    assert service.gallery.read(cat) == before
    assert len(list(service.folder.trash.rglob("*.png"))) == len(list(service.folder.pictures.rglob("*.png"))) == 1
    assert service.gallery.restore([cat]) == [cat] and service.gallery.read(cat) == before
    assert service.gallery.delete([cat, dog]) == [cat, dog]
    assert service.gallery.purge() == []
    assert service.gallery.purge([cat]) == [cat]
    later = time.time() + 31 * 86400
    monkeypatch.setattr(gallery_file.time, "time", lambda: later)
    assert service.gallery.purge() == [dog]
    assert not list(service.folder.trash.rglob("*.png")) and service.gallery.count(deleted=True) == 0
    changes = [event.data["change"] for event in iter(lambda: events.get(0), None) if event.kind == "gallery"]
    assert changes == ["deleted", "restored", "deleted", "deleted", "purged", "purged"]


def test_thumbnails_are_made_once(service: JobService) -> None:
    (picture,) = painted(service, "cat")
    path = service.folder.path / service.gallery.picture(picture).file
    Image.new("RGBA", (600, 300), (255, 0, 0, 128)).save(path)
    first = service.gallery.thumbnail(picture)
    with Image.open(io.BytesIO(first)) as small:
        assert (small.format, small.size, small.mode) == ("WEBP", (256, 128), "RGBA")
    path.write_bytes(b"changed")
    assert service.gallery.thumbnail(picture) == first


def test_missing_and_damaged_files_are_entries_too(service: JobService) -> None:
    cat, dog = painted(service, "cat", "dog")
    (service.folder.path / service.gallery.picture(cat).file).unlink()
    (service.folder.path / service.gallery.picture(dog).file).write_bytes(b"\x89PNG damaged")
    assert [(each.id, each.available) for each in service.gallery.list()] == [(dog, True), (cat, False)]
    with pytest.raises(UnknownPicture, match="is missing"):
        service.gallery.read(cat)
    with pytest.raises(UnknownPicture, match="is damaged"):
        service.gallery.thumbnail(dog)
    assert service.gallery.delete([cat]) == [cat] and service.gallery.restore([cat]) == [cat]
    assert service.gallery.purge([cat]) == [] and service.gallery.delete([cat]) == [cat]
    assert service.gallery.purge([cat]) == [cat]


def test_a_gallery_is_built_again_from_its_files(tmp_path: Path) -> None:
    service = JobService(tmp_path, runners=[QuickRunner()])
    cat, dog, bird = painted(service, "cat", "dog", "bird")
    service.gallery.delete([dog])
    before = {each: service.gallery.picture(each) for each in (cat, dog)}
    (tmp_path / service.gallery.picture(bird).file).write_bytes(b"damaged")
    (service.folder.pictures / "notes.txt").write_text("not a picture")
    (service.folder.pictures / "holiday.png").write_bytes(b"not one of ours")
    service.close()
    for file in tmp_path.glob("jobs.db*"):
        os.unlink(file)
    service = JobService(tmp_path, runners=())
    assert service.gallery.rebuild() == 3 and service.gallery.rebuild() == 0
    for each, old in before.items():
        new = service.gallery.picture(each)
        assert replace(new, created=0, deleted=None, seconds=0) == replace(old, created=0, deleted=None, seconds=0)
    assert service.gallery.picture(dog).deleted is not None
    assert not service.gallery.picture(bird).available
    service.close()


def test_uploaded_pictures_stay_while_a_job_names_them(service: JobService, monkeypatch: pytest.MonkeyPatch) -> None:
    def png(colour: str) -> bytes:
        file = io.BytesIO()
        Image.new("RGB", (8, 8), colour).save(file, "PNG")
        return file.getvalue()

    used, unused = service.upload(png("red")), service.upload(png("blue"))
    job = service.submit({"prompt": "a cat", "image": f"sha256:{used}"})
    assert service.upload(png("red")) == used
    request = service.request_of_job(job.id)
    assert request.image is not None and request.image.getpixel((0, 0)) == (255, 0, 0)
    assert "sha256:" in str(service.job(job.id).body["image"]) and len(str(dict(service.job(job.id).body))) < 300
    later = time.time() + 2 * 86400
    monkeypatch.setattr(gallery_file.time, "time", lambda: later)
    assert service.inputs.remove_unused() == 1
    with pytest.raises(InvalidRequest, match="upload it once more"):
        service.request_of({"prompt": "a cat", "image": f"sha256:{unused}"})
    assert service.request_of_job(job.id).image is not None
    service.cancel(job.id)
    service.store.delete(job.id)
    assert service.inputs.remove_unused() == 1 and not [
        each for each in service.folder.inputs.rglob("*") if each.is_file()
    ]
