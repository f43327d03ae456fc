"""Programs that people use, running against a real server: webuiapi and sd-backend-client."""

from __future__ import annotations

import base64
import json
import subprocess
import sys
import threading
from pathlib import Path
from urllib.parse import urlsplit

import pytest
from served import FAST, Served, base64_text, middle, opened, picture, png, recorded, served

from control_files import write_controlnet
from stable_diffusion import load

webuiapi = pytest.importorskip("webuiapi")
sd_backend_client = pytest.importorskip("sd_backend_client")

SMALL = {"steps": 2, "width": 64, "height": 64, "seed": 7}


@pytest.fixture(scope="module")
def webui(server: Served) -> object:
    port = urlsplit(server.address).port
    return webuiapi.WebUIApi(host="127.0.0.1", port=port, sampler="Euler a", steps=2)


def test_the_bytes_are_those_of_the_command_line(server: Served, webui: object, tmp_path: Path) -> None:
    """webuiapi sends some forty fields; the file is that of a command with the five that mean something."""
    result = webui.txt2img(prompt="a red kite", cfg_scale=1, sampler_name="Euler a", **SMALL)
    file = tmp_path / "kite.png"
    command = [sys.executable, "-m", "stable_diffusion", "a red kite", "--out", str(file), "--model", FAST]
    command += ["--steps", "2", "--width", "64", "--height", "64", "--seed", "7", "--sampler", "Euler a", "--cfg", "1"]
    subprocess.run(command, check=True, capture_output=True, timeout=120)
    assert base64.b64decode(result.json["images"][0]) == file.read_bytes()
    assert result.image.size == (64, 64) and result.info["all_seeds"] == [7]
    assert result.parameters["prompt"] == "a red kite"


def test_webuiapi_makes_pictures_of_pictures(webui: object) -> None:
    start = picture()
    plain = webui.img2img(images=[start], prompt="a snow ball", denoising_strength=0.6, **SMALL)
    assert plain.image.size == (64, 64)
    assert webui.img2img(images=[start], prompt="a snow ball", include_init_images=True, **SMALL).parameters[
        "init_images"
    ]
    masked = webui.img2img(
        images=[start], prompt="a snow ball", mask_image=middle(), mask_blur=0, inpainting_fill=1, **SMALL
    )
    assert masked.image.convert("RGB").getpixel((2, 2)) == start.getpixel((2, 2)), "outside of the mask nothing changes"
    assert masked.image.convert("RGB").tobytes() != start.tobytes()
    wide = webui.img2img(images=[picture((128, 64))], prompt="a snow ball", resize_mode=1, **SMALL)
    assert wide.image.size == (64, 64)


def test_webuiapi_controls_and_hires(webui: object) -> None:
    assert webui.controlnet_model_list() == ["control_canny"]
    assert "canny" in webui.controlnet_module_list() and webui.controlnet_version() >= 1
    unit = webuiapi.ControlNetUnit(image=picture(), module="canny", model="control_canny", weight=0.5)
    tiny = {"sd_model_checkpoint": "tiny.safetensors"}
    asked = {"prompt": "a kite", "sampler_name": "Euler", "override_settings": tiny, **SMALL}
    plain = webui.txt2img(**asked)
    controlled = webui.txt2img(**asked, controlnet_units=[unit], alwayson_scripts={})  # its default is shared by calls
    assert controlled.json["images"] != plain.json["images"]
    edges = webui.controlnet_detect([picture()], module="canny")
    assert edges.image.size == (64, 64) and edges.image.getextrema() != ((0, 0),) * 3
    large = webui.txt2img(**asked, enable_hr=True, hr_scale=1.5, hr_second_pass_steps=2, denoising_strength=0.5)
    assert large.image.size == (96, 96) and large.info["denoising_strength"] == 0.5


def test_webuiapi_lists_and_options(webui: object) -> None:
    assert {"Euler a", "DPM++ 2M", "UniPC"} <= set(webui.util_get_sampler_names())
    assert "karras" in webui.util_get_scheduler_names()
    assert webui.util_get_model_names() == ["embedded", "embedded-fast", "tiny.safetensors"]
    webui.util_set_model("Embeded-Fast")
    assert webui.util_get_current_model() == FAST
    webui.util_wait_for_ready(check_interval=0.01)
    assert [each["name"] for each in webui.get_loras()] == ["ink"]
    assert webui.get_prompt_styles() == [
        {"name": "woodcut", "prompt": "{prompt} as a woodcut", "negative_prompt": "photo"}
    ]
    for ask in ("cmd_flags", "sd_vae", "upscalers", "latent_upscale_modes", "hypernetworks", "face_restorers"):
        assert isinstance(getattr(webui, f"get_{ask}")(), (list, dict)), ask
    for ask in ("realesrgan_models", "scripts", "embeddings", "memory", "schedulers"):
        assert isinstance(getattr(webui, f"get_{ask}")(), (list, dict)), ask
    assert webui.get_upscalers()[0]["name"] == "None"
    assert webui.refresh_checkpoints() is None and webui.skip() == {}


def test_webuiapi_extras_and_png_info(webui: object) -> None:
    made = webui.txt2img(prompt="a kite", negative_prompt="fog", **SMALL)
    text = webui.png_info(made.image)
    assert text.info.startswith("a kite\nNegative prompt: fog\nSteps: 2")
    assert text.parameters["Seed"] == "7" and text.parameters["Size-1"] == "64"
    large = webui.extra_single_image(image=made.image, upscaler_1="Lanczos", upscaling_resize=2)
    assert large.image.size == (128, 128) and "Lanczos" in large.info
    assert large.image.info["parameters"].startswith("a kite")
    both = webui.extra_batch_images(images=[made.image, picture((32, 16))], upscaler_1="Nearest", upscaling_resize=2)
    assert [image.size for image in both.images] == [(128, 128), (64, 32)]


def test_sd_backend_client(server: Served) -> None:
    """It takes a server for A1111's by what is there and what is not, and checks the types of every answer."""
    from sd_backend_client.api.a1111_webservice import A1111Webservice
    from sd_backend_client.api.detect import connect_to_backend
    from sd_backend_client.api.webui.diffusion_request_body import DiffusionRequestBody

    client = connect_to_backend(server.address)
    assert isinstance(client, A1111Webservice)
    can = client.get_capabilities()
    assert (can.controlnet, can.scheduler, can.interrogate, can.soft_inpainting) == (True, True, True, True)
    assert [each.name for each in client.list_checkpoints()] == ["embedded", "embedded-fast", "tiny.safetensors"]
    assert {"euler_ancestral", "dpmpp_2m"} <= {each.name for each in client.list_samplers()}
    assert {"karras", "simple"} <= {each.name for each in client.list_schedulers()}
    assert [each.name for each in client.list_loras()] == ["ink"] and client.list_vaes() == []
    assert [each.name for each in client.list_upscalers()] == ["Lanczos", "Nearest"]
    assert client.list_hypernetworks() == [] and len(client.get_soft_inpainting_parameters()) == 6
    assert [each.full_model_name for each in client.list_controlnet_models()] == ["control_canny"]
    assert "Canny" in client.get_controlnet_type_categories()
    assert [style.name for style in client.get_styles()] == ["woodcut"]
    body = DiffusionRequestBody(prompt="a kite", batch_size=2, steps=2, width=64, height=64, seed=3)
    made = client.submit_txt2img(body).wait(timeout=120)
    assert made.seeds == [3, 4] and [image.size for image in made.images] == [(64, 64)] * 2
    body.init_images, body.mask, body.soft_inpainting, body.batch_size = [picture()], middle(), True, 1
    assert client.submit_inpaint(body).wait(timeout=120).images[0].size == (64, 64)
    assert client.submit_upscale(picture(), 100, 80).wait(timeout=120).images[0].size == (100, 80)


def test_progress_previews_and_interrupt(server: Served) -> None:
    idle = server.get("/sdapi/v1/progress").json()
    assert (idle["progress"], idle["state"]["job_count"], idle["current_image"]) == (0.0, 0, None)
    answers = []
    body = {
        "prompt": "a kite",
        "steps": 140,
        "width": 128,
        "height": 128,
        "force_task_id": "task(one)",
        "batch_size": 2,
    }
    thread = threading.Thread(target=lambda: answers.append(server.post("/sdapi/v1/txt2img", body)))
    thread.start()
    seen: list[dict] = []

    def shown() -> bool:
        seen.append(server.get("/sdapi/v1/progress").json())
        return seen[-1]["current_image"] is not None

    server.wait(shown)
    last = seen[-1]
    assert 0 < last["progress"] < 1 and last["state"]["job_count"] == 1 and last["state"]["sampling_steps"] == 140
    assert opened(last["current_image"]).format == "PNG"
    assert server.get("/sdapi/v1/progress?skip_current_image=true").json()["current_image"] is None
    task = {"id_task": "task(one)", "id_live_preview": -1}
    server.wait(lambda: server.post("/internal/progress", task).json()["live_preview"])
    found = server.post("/internal/progress", task).json()
    assert found["active"] and not found["completed"] and found["live_preview"].startswith("data:image/png;base64,")
    assert server.get("/internal/pending-tasks").json() == {"size": 1, "tasks": ["task(one)"]}
    assert server.post("/sdapi/v1/interrupt").json() == {}
    thread.join(60)
    answer = answers[0].json()
    assert answers[0].status_code == 200 and answer["images"] == [] and json.loads(answer["info"])["all_seeds"] == []
    assert server.post("/internal/progress", task).json()["completed"]
    assert server.get("/sdapi/v1/progress").json()["state"]["job_count"] == 0


def test_skip_goes_on_with_the_next_picture(server: Served) -> None:
    answers = []
    body = {"prompt": "a kite", "steps": 100, "width": 64, "height": 64, "seed": 5, "batch_size": 2}
    thread = threading.Thread(target=lambda: answers.append(server.post("/sdapi/v1/txt2img", body)))
    thread.start()
    server.wait(lambda: server.get("/sdapi/v1/progress").json()["state"]["sampling_step"] > 0)
    server.post("/sdapi/v1/skip")
    thread.join(60)
    assert json.loads(answers[0].json()["info"])["all_seeds"] == [6]


def test_pictures_are_kept_where_they_are_asked_to_be(server: Served) -> None:
    before = server.get("/v1/gallery").json()["total"]
    body = {"prompt": "a kite", **SMALL, "send_images": False, "save_images": True}
    assert server.post("/sdapi/v1/txt2img", body).json()["images"] == []
    assert server.get("/v1/gallery").json()["total"] == before + 1
    server.post("/sdapi/v1/txt2img", {**body, "save_images": False})
    assert server.get("/v1/gallery").json()["total"] == before + 1


def test_interrogate_gives_the_prompt_that_a_picture_carries(webui: object) -> None:
    made = webui.txt2img(prompt="a red kite, over (hills:1.1)", **SMALL)
    assert webui.interrogate(made.image).info == "a red kite, over (hills:1.1)"
    with pytest.raises(RuntimeError, match=r"501.*no model here that describes pictures"):
        webui.interrogate(picture())


def test_other_formats_carry_the_text(server: Served) -> None:
    for name, kind in (("jpg", "JPEG"), ("webp", "WEBP")):
        body = {"prompt": "a kite", **SMALL, "override_settings": {"samples_format": name}}
        image = opened(server.post("/sdapi/v1/txt2img", body).json()["images"][0])
        assert image.format == kind
        sent = {"image": base64.b64encode(png(picture())).decode()}
        assert server.post("/sdapi/v1/png-info", sent).json() == {"info": "", "items": {}, "parameters": {}}
        text = server.post("/sdapi/v1/txt2img", body).json()["images"][0]
        assert server.post("/sdapi/v1/png-info", {"image": text}).json()["parameters"]["Seed"] == "7"


def test_bad_requests_are_one_sentence(server: Served) -> None:
    start = base64_text(picture())
    wrong = [
        ("txt2img", {"sampler_name": "Eulr"}, 400, "did you mean 'euler'"),
        ("txt2img", {"cfg_scale": 500}, 400, "cfg_scale is 500"),
        ("txt2img", {"steps": "many"}, 422, "steps"),
        ("txt2img", {"steps": True}, 422, "steps"),
        ("txt2img", {"override_settings": {"sd_model_checkpoint": "embeded"}}, 400, "did you mean 'embedded'"),
        ("txt2img", {"width": 63}, 400, "width is 63; expected a multiple of 8, the nearest is 64"),
        ("txt2img", {"prompt": "a kite <lora:inc:1>"}, 400, "did you mean 'ink'"),
        ("txt2img", {"batch_size": 1000}, 400, "batch_size x n_iter is 1000"),
        ("img2img", {"init_images": []}, 404, "init_images is empty"),
        ("img2img", {"init_images": ["http://127.0.0.1/a.png"]}, 400, "nothing is fetched"),
        ("img2img", {"init_images": ["/etc/hostname"]}, 400, "no picture in base64"),
        ("img2img", {"init_images": [start], "alwayson_scripts": {"Roop": {"args": [start]}}}, 422, "'Roop'"),
        ("extra-single-image", {"image": start, "upscaler_1": "Lanczoss"}, 400, "did you mean 'Lanczos'"),
        ("extra-single-image", {"image": start, "upscaling_resize_w": 99999, "resize_mode": 1}, 400, "at most"),
    ]
    for route, body, status, said in wrong:
        answer = server.post(f"/sdapi/v1/{route}", {"prompt": "a kite", **SMALL, **body})
        assert answer.status_code == status and said in answer.json()["detail"], (body, answer.text)
        assert {"error", "detail", "errors"} <= set(answer.json()) and "/" not in answer.json()["detail"]


def test_what_a_model_cannot_do_is_no_failure_of_the_server(server: Served) -> None:
    """Found when the job runs: this ControlNet is for another model."""
    unit = {"model": "control_canny", "module": "none", "image": base64_text(picture())}
    body = {"prompt": "a kite", **SMALL, "alwayson_scripts": {"ControlNet": {"args": [unit]}}}
    answer = server.post("/sdapi/v1/txt2img", body)
    assert answer.status_code == 400 and "is a ControlNet for a model" in answer.json()["detail"], answer.text


def test_a_control_for_other_latents_is_no_failure_of_the_server(server: Served) -> None:
    write_controlnet(server.service.settings.controls[0] / "patches.safetensors", load(FAST).parts.unet.config)
    server.post("/sdapi/v1/refresh-checkpoints")
    unit = {"model": "patches", "module": "none", "image": base64_text(picture())}
    body = {"prompt": "a kite", **SMALL, "alwayson_scripts": {"ControlNet": {"args": [unit]}}}
    answer = server.post("/sdapi/v1/txt2img", body)
    assert answer.status_code == 400 and "reads latents of 64 channels" in answer.json()["detail"], answer.text


def test_a_token_is_the_password_of_basic(tmp_path: Path) -> None:
    """webuiapi asks for the scripts before it has its credentials, and goes on without the answer."""
    token = "a-long-secret-of-tests"
    with served(tmp_path, token=token) as guarded:
        port = urlsplit(guarded.address).port
        api = webuiapi.WebUIApi(host="127.0.0.1", port=port)
        refused = guarded.get("/sdapi/v1/options")
        assert refused.status_code == 401 and set(refused.json()) >= {"error", "detail", "errors"}
        api.set_auth("anybody", token)
        assert api.get_options()["sd_model_checkpoint"] == FAST
        assert guarded.get("/sdapi/v1/options", headers={"authorization": f"Bearer {token}"}).status_code == 200


def test_absent_routes_and_wrong_methods(server: Served) -> None:
    for path in ("/sdapi/v1/artists", "/sdapi/v1/server-kill", "/controlnet/nothing", "/login_check", "/system_stats"):
        assert server.get(path).status_code == 404, path
    assert server.post("/sdapi/v1/server-restart").status_code == 404
    for path in ("txt2img", "img2img", "interrogate", "interrupt", "png-info", "extra-single-image"):
        assert server.get(f"/sdapi/v1/{path}").status_code == 405, path
    assert server.post("/sdapi/v1/samplers").status_code == 405
    assert server.post("/sdapi/v1/train/embedding").status_code == 501


def test_a_lora_of_the_list_changes_the_picture(server: Served) -> None:
    body = recorded("a1111-sdcpp-txt2img")["json"]
    with_it = server.post("/sdapi/v1/txt2img", body).json()
    tagged = server.post("/sdapi/v1/txt2img", {**body, "lora": [], "prompt": "a badger <lora:ink:0.8>"}).json()
    without = server.post("/sdapi/v1/txt2img", {**body, "lora": [], "prompt": "a badger"}).json()
    assert with_it["images"] == tagged["images"] != without["images"]
    assert "stable-diffusion.cpp" in json.loads(with_it["info"])["notes"][0]
