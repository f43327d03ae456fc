"""The server's own API of jobs, events, gallery and pictures, asked over a real connection."""

from __future__ import annotations

import base64
import io

import httpx
import pytest
from PIL import Image
from server_helpers import SMALL, client, done, events_of, make, picture, running, sentence, settings

from stable_diffusion import Request
from stable_diffusion.images import save_image
from stable_diffusion.pipeline.generate import generate
from stable_diffusion.server.listen import Listening


def test_a_job_becomes_the_picture_of_the_command_line(http: httpx.Client, tmp_path) -> None:
    answer = http.post("/v1/jobs", json=SMALL)
    assert answer.status_code == 202 and set(answer.json()) >= {"id", "state", "position", "url"}
    assert answer.headers["location"] == answer.json()["url"]
    job = done(http, answer.json()["id"])
    assert job["state"] == "done" and job["request"]["prompt"] == "a red apple"
    found = http.get(job["pictures"][0]["url"])
    assert found.headers["content-type"] == "image/png" and found.headers["x-content-type-options"] == "nosniff"
    values = {name: value for name, value in SMALL.items() if name != "prompt"}
    *_, last = generate("embedded-fast", Request(SMALL["prompt"], **values), preview_every=0)
    path = save_image(last.images[0], tmp_path / "same.png")
    assert found.content == path.read_bytes()


def test_events_tell_the_story_and_resume(http: httpx.Client) -> None:
    job = make(http, seed=4, count=2)
    whole = events_of(http.get(f"/v1/jobs/{job['id']}/events").text)
    names = [name for name, _ in whole]
    assert names[0] == "queued" and names[-1] == "done" and names.count("picture") == 2 and "progress" in names
    assert all(data["job"] == job["id"] for _, data in whole)
    later = http.get(f"/v1/jobs/{job['id']}/events", headers={"Last-Event-ID": str(whole[2][1]["event_id"])})
    assert events_of(later.text) == whole[3:]


def test_events_of_everything_carry_previews(server: Listening, http: httpx.Client) -> None:
    with client(server) as other, other.stream("GET", "/v1/events") as stream:
        lines = stream.iter_lines()
        assert next(lines) == ": open"
        http.post("/v1/jobs", json={**SMALL, "steps": 4})
        seen = []
        for line in lines:
            if line.startswith("event: "):
                seen.append(line.removeprefix("event: "))
            if "data:image/" in line:
                assert seen[-1] == "preview"
            if seen and seen[-1] == "done":
                break
    assert {"queued", "running", "progress", "preview", "picture", "done"} <= set(seen)


def test_idempotency(http: httpx.Client) -> None:
    header = {"Idempotency-Key": "one"}
    first = http.post("/v1/jobs", json=SMALL, headers=header).json()
    assert http.post("/v1/jobs", json=SMALL, headers=header).json()["id"] == first["id"]
    other = http.post("/v1/jobs", json={**SMALL, "seed": 9}, headers=header)
    assert other.status_code == 409 and "key" in sentence(other)
    done(http, first["id"])


def test_queue_pauses_moves_cancels_and_retries(http: httpx.Client) -> None:
    assert http.post("/v1/queue/pause").json()["paused"]
    ids = [http.post("/v1/jobs", json={**SMALL, "seed": seed}).json()["id"] for seed in (1, 2, 3)]
    place = [http.get(f"/v1/jobs/{each}").json()["position"] for each in ids]
    assert place == [0, 1, 2]
    moved = http.post(f"/v1/jobs/{ids[2]}/move", json={"first": True})
    assert moved.json()["position"] == 0
    listed = [each["id"] for each in http.get("/v1/jobs", params={"state": "queued"}).json()["jobs"]]
    assert listed == [ids[2], ids[0], ids[1]]
    http.post(f"/v1/jobs/{ids[0]}/move", json={"after": ids[1]})
    assert [http.get(f"/v1/jobs/{each}").json()["position"] for each in ids] == [2, 1, 0]
    assert http.post(f"/v1/jobs/{ids[0]}/move", json={"first": True, "last": True}).status_code == 422
    cancelled = http.delete(f"/v1/jobs/{ids[1]}")
    assert cancelled.json()["state"] == "cancelled"
    assert http.post(f"/v1/jobs/{ids[1]}/cancel").status_code == 409
    assert http.post(f"/v1/jobs/{ids[0]}/retry").status_code == 409
    assert http.post(f"/v1/jobs/{ids[1]}/retry").json()["state"] == "queued"
    assert http.post(f"/v1/jobs/{ids[0]}/skip").status_code == 409
    assert sorted(http.post("/v1/queue/clear").json()["cancelled"]) == sorted(ids)
    assert not http.post("/v1/queue/resume").json()["paused"]
    assert http.get("/v1/queue").json()["queued"] == 0
    gone = http.get("/v1/jobs/0123456789abcdef")
    assert gone.status_code == 404 and "no job" in sentence(gone)


def test_a_running_job_is_cancelled_at_its_next_step(http: httpx.Client) -> None:
    job = http.post("/v1/jobs", json={**SMALL, "steps": 100, "width": 128, "height": 128}).json()["id"]
    with http.stream("GET", f"/v1/jobs/{job}/events") as events:
        for line in events.iter_lines():
            if line == "event: progress":
                break
    http.post(f"/v1/jobs/{job}/cancel")
    assert done(http, job)["state"] == "cancelled"


def test_gallery(http: httpx.Client) -> None:
    job = make(http, prompt="a zebra in snow", seed=11, negative_prompt="blurry")
    mine = job["pictures"][0]["id"]
    found = http.get("/v1/gallery", params={"search": "zebra snow"}).json()
    assert [each["id"] for each in found["pictures"]] == [mine] and found["total"] == 1 and found["next"] is None
    page = http.get("/v1/gallery", params={"limit": 1}).json()
    following = http.get("/v1/gallery", params={"limit": 1, "before": page["next"]}).json()
    assert page["next"] == 1 and following["pictures"][0]["id"] != page["pictures"][0]["id"]
    whole = http.get(f"/v1/gallery/{mine}").json()
    assert "a zebra in snow" in whole["parameters"] and whole["request"]["seed"] == 11
    assert whole["request"]["model"] == "embedded-fast"
    again = make(http, **whole["request"])
    urls = job["pictures"][0]["url"], again["pictures"][0]["url"]
    assert http.get(urls[0]).content == http.get(urls[1]).content
    assert http.get(f"/v1/gallery/{mine}/thumbnail").content[8:12] == b"WEBP"
    for kind in ("jpeg", "webp"):
        other = http.get(urls[0], params={"format": kind})
        assert other.headers["content-type"] == f"image/{kind}"
        read = http.post("/v1/read", content=other.content, headers={"Content-Type": f"image/{kind}"}).json()
        assert read["request"]["prompt"] == "a zebra in snow" and read["request"]["seed"] == 11
    assert http.post(f"/v1/gallery/{mine}/star", json={"starred": True}).json()["starred"]
    assert mine in [each["id"] for each in http.get("/v1/gallery?starred=true").json()["pictures"]]
    assert http.delete(f"/v1/gallery/{mine}").json()["deleted"] is not None
    assert mine not in [each["id"] for each in http.get("/v1/gallery").json()["pictures"]]
    assert http.post(f"/v1/gallery/{mine}/restore").json()["deleted"] is None
    assert http.get("/v1/gallery/nobody").status_code == 404


def test_pictures_given(http: httpx.Client) -> None:
    data = picture(96, 64)
    up = http.post("/v1/inputs", content=data, headers={"Content-Type": "image/png"})
    assert up.status_code == 201 and (up.json()["width"], up.json()["height"]) == (96, 64)
    shown = http.get(up.json()["url"])
    with Image.open(io.BytesIO(shown.content)) as image:
        assert image.size == (96, 64) and image.getpixel((1, 1)) == (0, 128, 128)
    forms = {
        "hash": up.json()["pic"],
        "base64": base64.b64encode(data).decode(),
        "uri": "data:image/png;base64," + base64.b64encode(data).decode(),
    }
    made = {name: make(http, image=pic, strength=0.5) for name, pic in forms.items()}
    assert all(job["state"] == "done" for job in made.values())
    assert made["hash"]["request"]["image"].startswith("sha256:")
    files = {http.get(job["pictures"][0]["url"]).content for job in made.values()}
    assert len(files) == 1
    chained = make(http, image=f"picture:{made['hash']['pictures'][0]['id']}", strength=0.2)
    assert chained["state"] == "done"
    edges = http.post("/v1/preprocess", json={"image": up.json()["pic"], "preprocessor": "canny"})
    assert edges.headers["content-type"] == "image/png"
    assert http.post("/v1/preprocess", json={"image": up.json()["pic"], "preprocessor": "cany"}).status_code == 422


def test_capabilities_say_what_can_be_asked(http: httpx.Client) -> None:
    found = http.get("/v1/capabilities").json()
    models = {each["name"]: each for each in found["models"]}
    assert models["embedded-fast"]["steps"] == 4 and models["embedded"]["size"] == [256, 256]
    assert found["default_model"] == "embedded-fast" and found["loras"][0]["name"] == "broken"
    assert found["styles"] == [{"name": "pencil", "prompt": "a pencil drawing of {prompt}", "negative_prompt": "photo"}]
    assert found["wildcards"] == ["colour"]
    properties = found["settings"]["properties"]
    assert {"prompt", "steps", "loras", "controls", "hires"} <= set(properties)
    assert not {"lora_dir", "embeddings_dir"} & set(properties)
    text = http.get("/v1/capabilities").text
    assert "styles_file" not in text and "wildcards_dir" not in text and "data" not in found


def test_styles_and_wildcards_of_the_server_are_used(http: httpx.Client) -> None:
    job = make(http, prompt="a __colour__ cat", prompting={"styles": ["pencil"]})
    whole = http.get(f"/v1/gallery/{job['pictures'][0]['id']}").json()
    assert "a pencil drawing of a red cat" in whole["parameters"] and "photo" in whole["parameters"]


def test_tokens(http: httpx.Client) -> None:
    found = http.post("/v1/tokens", json={"prompt": "a cat", "negative_prompt": "word " * 100}).json()
    assert found["prompt"]["tokens"] == 2 and found["prompt"]["windows"] == 1 and found["prompt"]["cut"] == ""
    assert found["negative_prompt"]["tokens"] == 100 and found["negative_prompt"]["windows"] == 2
    long = http.post("/v1/tokens", json={"prompt": "x BREAK " * 20}).json()["prompt"]
    assert long["windows"] == 20 and long["cut"].count("x") == 4 and long["kept"] + long["cut"] == "x BREAK " * 20


def test_page_settings_health_and_metrics(http: httpx.Client) -> None:
    assert http.get("/v1/settings/page").json() == {}
    assert http.put("/v1/settings/page", json={"steps": 5}).json() == {"steps": 5}
    assert http.get("/v1/settings/page").json() == {"steps": 5}
    assert http.put("/v1/settings/page", json={"x": "y" * 70_000}).status_code == 413
    assert http.get("/healthz").json() == {"status": "ok"} and http.get("/readyz").status_code == 200
    text = http.get("/metrics").text
    assert "stable_diffusion_jobs_queued 0.0" in text and 'route="/v1/jobs"' in text


def test_full_queue(tmp_path) -> None:
    with running(settings(tmp_path, paused=True, limits={"queue": 2})) as found, client(found) as http:
        codes = [http.post("/v1/jobs", json=SMALL).status_code for _ in range(3)]
        assert codes == [202, 202, 429]
        assert int(http.post("/v1/jobs", json=SMALL).headers["retry-after"]) > 0


@pytest.mark.parametrize(
    ("body", "words"),
    [
        ({"steps": 3}, "prompt"),
        ({**SMALL, "steps": 0}, "steps is 0; expected a whole number from 1"),
        ({**SMALL, "stepz": 5}, "did you mean 'steps'"),
        ({**SMALL, "num_inference_steps": 5}, "steps"),
        ({**SMALL, "sampler": "eulr"}, "did you mean 'euler'"),
        ({**SMALL, "model": "embeded"}, "did you mean 'embedded'"),
        ({**SMALL, "loras": [{"name": "brokn"}]}, "did you mean 'broken'"),
        ({**SMALL, "hires": {"scale": 9}}, "hires scale is 9"),
        ({**SMALL, "mask": base64.b64encode(picture()).decode()}, "without an image"),
        ({**SMALL, "loras": [{"name": "broken", "strength": 1000}]}, "strength"),
    ],
)
def test_bad_settings_are_one_sentence(http: httpx.Client, body: dict, words: str) -> None:
    answer = http.post("/v1/jobs", json=body)
    assert answer.status_code in (400, 422)
    assert words in sentence(answer)


def test_unknown_addresses_and_wrong_methods(http: httpx.Client) -> None:
    assert http.get("/v1/nothing").status_code == 404 and sentence(http.get("/v1/nothing"))
    assert http.get("/v1/queue/pause").status_code == 405
    assert http.post("/v1/jobs", content=b"{", headers={"Content-Type": "application/json"}).status_code == 422
