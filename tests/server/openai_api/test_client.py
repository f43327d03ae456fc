"""OpenAI's own Python client against a real server: sync, async, streams, edits, variations, errors, retries."""

from __future__ import annotations

import asyncio
import base64
import io
import time
from pathlib import Path
from typing import Any

import httpx
import pytest
from PIL import Image
from served import FAST, Served, opened, picture, png, served
from server_helpers import TOKEN

from stable_diffusion import generate_image
from stable_diffusion.images import save_image

openai = pytest.importorskip("openai")
SMALL: dict[str, Any] = {"size": "64x64", "extra_body": {"seed": 3, "num_inference_steps": 2}}


def client_of(server: Served, **options: Any) -> Any:
    return openai.OpenAI(base_url=f"{server.address}/v1", **{"api_key": "sk-local", "max_retries": 0, **options})


def test_a_picture_has_the_bytes_of_the_command_line(server: Served, tmp_path: Path) -> None:
    made = client_of(server).images.generate(prompt="a red apple", n=2, **SMALL)
    for number, each in enumerate(made.data):
        image = generate_image("a red apple", model=FAST, seed=3 + number, steps=2, width=64, height=64)
        path = save_image(image, tmp_path / f"{number}.png")
        assert base64.b64decode(each.b64_json) == path.read_bytes() == httpx.get(each.url).content


def test_async(server: Served) -> None:
    async def run() -> list[Any]:
        async with openai.AsyncOpenAI(base_url=f"{server.address}/v1", api_key="x", max_retries=0) as client:
            return await asyncio.gather(
                *(client.images.generate(prompt=f"apple {number}", model="gpt-image-1", **SMALL) for number in range(3))
            )

    made = asyncio.run(run())
    prompts = [opened(each.data[0].b64_json).info["parameters"].split("\n")[0] for each in made]
    assert prompts == ["apple 0", "apple 1", "apple 2"] and made[0].data[0].url is None


def test_stream(server: Served) -> None:
    events = list(
        client_of(server).images.generate(
            prompt="a boat", size="64x64", stream=True, partial_images=2, output_format="webp", model="gpt-image-2"
        )
    )
    assert [each.type for each in events[:1]] == ["image_generation.partial_image"]
    assert events[-1].type == "image_generation.completed" and events[-1].usage.total_tokens > 0
    assert {opened(each.b64_json).format for each in events} == {"WEBP"}
    assert {opened(each.b64_json).size for each in events} == {(64, 64)}


def test_a_stream_of_several_pictures(server: Served) -> None:
    events = list(client_of(server).images.generate(prompt="a boat", n=2, stream=True, **SMALL))
    assert [each.type for each in events] == ["image_generation.completed"] * 2
    assert events[0].b64_json != events[1].b64_json


def test_an_edit_keeps_what_the_mask_covers(server: Served) -> None:
    start, mask = picture(), Image.new("RGBA", (64, 64), "black")
    mask.paste((0, 0, 0, 0), (16, 16, 48, 48))
    made = client_of(server).images.edit(image=png(start), mask=png(mask), prompt="a worm", model=FAST)
    found, kept = opened(made.data[0].b64_json).convert("RGB"), start.convert("RGB")
    assert found.crop((0, 0, 64, 8)).tobytes() == kept.crop((0, 0, 64, 8)).tobytes()
    assert found.crop((16, 16, 48, 48)).tobytes() != kept.crop((16, 16, 48, 48)).tobytes()


def test_dall_e_2_edits_what_is_transparent_in_the_picture(server: Served) -> None:
    start = picture().convert("RGBA")
    start.paste((0, 0, 0, 0), (32, 0, 64, 64))
    made = client_of(server).images.edit(
        image=png(start), prompt="a worm", model="dall-e-2", response_format="b64_json"
    )
    found = opened(made.data[0].b64_json).convert("RGB")
    assert found.crop((0, 0, 16, 64)).tobytes() == start.convert("RGB").crop((0, 0, 16, 64)).tobytes()


def test_variations_take_the_prompt_that_the_picture_carries(server: Served) -> None:
    client = client_of(server)
    first = client.images.generate(prompt="a red apple", response_format="b64_json", **SMALL)
    with pytest.warns(DeprecationWarning):
        made = client.images.create_variation(
            image=base64.b64decode(first.data[0].b64_json), n=2, size="64x64", response_format="b64_json"
        )
    texts = [opened(each.b64_json).info["parameters"] for each in made.data]
    assert all(text.startswith("a red apple\n") and "Denoising strength: 0.6" in text for text in texts)


@pytest.mark.parametrize(("kind", "quality"), [("jpeg", 30), ("webp", 30), ("png", 30)])
def test_compression(server: Served, kind: str, quality: int) -> None:
    images = client_of(server).images
    best = images.generate(prompt="a fox", output_format=kind, **SMALL).data[0]
    small = images.generate(prompt="a fox", output_format=kind, output_compression=quality, **SMALL).data[0]
    assert opened(small.b64_json).format == kind.upper()
    assert (len(small.b64_json) == len(best.b64_json)) == (kind == "png")
    assert httpx.get(small.url).content == base64.b64decode(small.b64_json)


def test_quality_and_background(server: Served) -> None:
    images = client_of(server).images
    tiny = images.generate(prompt="x", model="tiny", size="16x16", quality="low", response_format="b64_json")
    assert tiny.quality == "low" and tiny.background == "opaque"
    usual = server.service.usual(server.service.library.models.find("tiny"))[1]
    assert f"Steps: {round(usual * 0.6)}," in opened(tiny.data[0].b64_json).info["parameters"]
    clear = images.generate(prompt="an apple", background="transparent", **SMALL)
    assert clear.background == "transparent" and opened(clear.data[0].b64_json).mode == "RGBA"


FAULTS: list[tuple[dict[str, Any], str | None, str]] = [
    ({"size": "3x"}, "size", "invalid_value"),
    ({"size": "63x64"}, "size", "invalid_value"),
    ({"n": "two"}, "n", "invalid_type"),
    ({"n": 11}, "n", "invalid_value"),
    ({"quality": "great"}, "quality", "invalid_value"),
    ({"output_format": "gif"}, "output_format", "unsupported_value"),
    ({"output_format": "svg"}, "output_format", "unsupported_value"),
    ({"background": "transparent", "output_format": "jpeg"}, "background", "invalid_value"),
    ({"background": "transparent", "model": "tiny"}, "background", "unsupported_value"),
    ({"extra_body": {"num_inference_steps": -3}}, "num_inference_steps", "invalid_value"),
    ({"extra_body": {"guidance_scale": 500}}, "guidance_scale", "invalid_value"),
    ({"extra_body": {"sampler": "nope"}}, "sampler", "invalid_value"),
    ({"prompt": "x <lora:nope:1>"}, None, "invalid_value"),
    ({"prompt": 7}, "prompt", "invalid_type"),
    ({"prompt": None}, "prompt", "missing_required_parameter"),
]


@pytest.mark.parametrize(("changes", "param", "code"), FAULTS)
def test_faults(server: Served, changes: dict[str, Any], param: str | None, code: str) -> None:
    with pytest.raises(openai.BadRequestError) as caught:
        client_of(server).images.generate(**{"prompt": "x", **changes})
    assert (caught.value.param, caught.value.code) == (param, code)
    assert caught.value.type == "invalid_request_error" and "/" not in caught.value.body["message"]


def test_unknown_model_and_other_apis(server: Served) -> None:
    client = client_of(server)
    with pytest.raises(openai.NotFoundError) as caught:
        client.images.generate(prompt="x", model="embeded")
    assert caught.value.code == "model_not_found" and "did you mean 'embedded'" in caught.value.body["message"]
    assert {each.id for each in client.models.list().data} >= {FAST, "embedded", "tiny"}
    assert client.models.retrieve("chatgpt-image-latest").object == "model"
    for call in (
        lambda: client.models.retrieve("gpt-5"),
        lambda: client.responses.create(model="gpt-5", input="draw"),
        lambda: client.chat.completions.create(model="gpt-5", messages=[]),
    ):
        with pytest.raises(openai.NotFoundError) as caught:
            call()
        assert caught.value.body["type"] == "invalid_request_error"


def test_edits_need_a_picture_that_is_one(server: Served) -> None:
    client = client_of(server)
    for image, mask in ((b"no picture", None), (png(picture()), png(picture((32, 32))))):
        with pytest.raises(openai.BadRequestError) as caught:
            client.images.edit(image=image, prompt="x", **({} if mask is None else {"mask": mask}))
        assert "\n" not in caught.value.body["message"]
    missing = server.http.post("/v1/images/edits", data={"prompt": "x"}, files={"other": b"x"})
    assert missing.status_code == 400 and missing.json()["error"]["param"] == "image"
    address = {"prompt": "x", "images": [{"image_url": "http://127.0.0.1:1/a.png"}]}
    refused = server.post("/v1/images/edits", address)
    assert refused.status_code == 400 and "nothing is fetched" in refused.json()["error"]["message"]


def test_bodies_that_are_none(server: Served) -> None:
    for body in (b"{", b"[]", b'{"prompt": "x", "n": NaN}', b'{"prompt": "\\ud800"}', b"[" * 100_000, b"\xff"):
        answer = server.http.post("/v1/images/generations", content=body, headers={"content-type": "application/json"})
        assert answer.status_code == 400 and answer.json()["error"]["type"] == "invalid_request_error"
    assert server.http.post(
        "/v1/images/generations", content=b"{}", headers={"content-type": "text/plain"}
    ).is_client_error
    assert server.http.get("/v1/images/generations").json()["error"]["code"] == "method_not_allowed"


def test_the_address_of_a_picture_needs_no_token_and_cannot_be_made_up(tmp_path: Path) -> None:
    with served(tmp_path, token=TOKEN) as server:
        with pytest.raises(openai.AuthenticationError) as caught:
            client_of(server).models.list()
        assert caught.value.code == "invalid_api_key"
        url = client_of(server, api_key=TOKEN).images.generate(prompt="x", **SMALL).data[0].url
        from_elsewhere = {"sec-fetch-site": "cross-site", "sec-fetch-mode": "no-cors", "sec-fetch-dest": "image"}
        assert httpx.get(url, headers=from_elsewhere).status_code == 200
        start, _, end = url.rpartition("/")
        for wrong in (f"{start[:-1]}{'0' if start[-1] != '0' else '1'}/{end}", url.replace("-0.png", "-1.png")):
            assert httpx.get(wrong).status_code == 404
        picture_id = end.removesuffix(".png")
        assert httpx.get(f"{server.address}/v1/gallery/{picture_id}/file").status_code == 401


def test_a_client_that_tries_again_joins_its_job(server: Served) -> None:
    """The first attempt runs into its timeout while the queue stands still; the second one gets that job's picture."""
    server.service.queue.pause()
    before = len(server.service.queue.jobs())
    body = {"prompt": "a slow snail", "size": "64x64", "num_inference_steps": 1, "response_format": "b64_json"}
    with pytest.raises(httpx.ReadTimeout):
        server.post("/v1/images/generations", body, headers={"x-stainless-retry-count": "0"}, timeout=0.5)
    time.sleep(1.5)  # longer than it takes to see that the client has gone
    server.service.queue.resume()
    answer = server.post("/v1/images/generations", body, headers={"x-stainless-retry-count": "1"})
    jobs = server.service.queue.jobs()
    assert answer.status_code == 200 and len(jobs) == before + 1 and jobs[0].state == "done"


def test_the_job_of_a_client_that_went_away_is_cancelled(server: Served) -> None:
    server.service.queue.pause()
    try:
        with pytest.raises(httpx.ReadTimeout):
            server.post("/v1/images/generations", {"prompt": "nobody waits", "size": "64x64"}, timeout=0.5)
        server.wait(lambda: server.service.queue.jobs()[0].state == "cancelled", 5)
    finally:
        server.service.queue.resume()


def test_pictures_of_a_file_object(server: Served) -> None:
    file = io.BytesIO(png(picture()))
    file.name = "start.png"
    made = client_of(server).images.edit(image=[file], prompt="a hat", model="gpt-image-1", input_fidelity="high")
    assert "Denoising strength: 0.5" in opened(made.data[0].b64_json).info["parameters"]
