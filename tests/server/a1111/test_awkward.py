"""Bodies that no client means: odd numbers and signs anywhere get an answer that JSON can hold, and never a 5xx."""

from __future__ import annotations

import json

import pytest
from served import Served, base64_text, picture

SMALL = {"prompt": "a kite", "steps": 1, "width": 64, "height": 64}
ODD = (
    "NaN",
    "Infinity",
    "-1e999",
    "1e999",
    '"\\ud800"',
    "true",
    "[]",
    "{}",
    '"\\u0000"',
    "9" * 400,
    '"x"',
    "-1",
    "null",
)
FIELDS = (
    *("seed", "steps", "cfg_scale", "width", "batch_size", "subseed_strength", "eta", "s_tmax", "prompt", "styles"),
    *("sampler_name", "scheduler", "override_settings", "alwayson_scripts", "script_args", "infotext", "lora"),
    *("clip_skip", "hr_scale", "hr_resize_x", "firstphase_width", "force_task_id", "refiner_checkpoint"),
)


def post(server: Served, path: str, text: str) -> int:
    answer = server.http.post(path, content=text.encode("utf-8"), headers={"content-type": "application/json"})
    assert answer.status_code < 500 or answer.status_code == 501, (path, text[:300], answer.text)
    answer.json()
    return answer.status_code


@pytest.mark.parametrize("field", FIELDS)
def test_odd_values_of_fields(server: Served, field: str) -> None:
    """What is asked for besides is impossible, so that nothing is generated where the odd value is taken."""
    for value in ODD:
        fields = {name: json.dumps(each) for name, each in {**SMALL, "width": 63, "enable_hr": True}.items()}
        fields[field] = value
        body = "{" + ", ".join(f'"{name}": {each}' for name, each in fields.items()) + "}"
        assert post(server, "/sdapi/v1/txt2img", body) in (400, 404, 422, 200)


@pytest.mark.parametrize("name", ["weight", "control_mode", "resize_mode", "threshold_a", "module", "model", "image"])
def test_odd_values_of_units(server: Served, name: str) -> None:
    for value in ODD:
        unit = (
            f'{{"model": "control_canny", "module": "canny", "image": "{base64_text(picture())}", "{name}": {value}}}'
        )
        scripts = f'{{"controlnet": {{"args": [{unit}]}}}}'
        post(server, "/sdapi/v1/txt2img", f'{{"prompt": "a", "width": 63, "alwayson_scripts": {scripts}}}')


def test_odd_values_of_options(server: Served) -> None:
    before = server.get("/sdapi/v1/options").json()
    for name in (*before, "nothing"):
        for value in ODD:
            post(server, "/sdapi/v1/options", f'{{"{name}": {value}}}')
    post(server, "/sdapi/v1/options", json.dumps(before))
    assert server.get("/sdapi/v1/options").json() == before


def test_the_echo_holds_what_json_can(server: Served) -> None:
    odd = '{"controlnet": {"args": [{"enabled": false, "weight": NaN, "note": "\\ud800"}]}}'
    overrides = '{"nothing": NaN, "\\ud800": "\\ud800"}'
    fields = json.dumps(SMALL)[:-1] + f', "alwayson_scripts": {odd}, "override_settings": {overrides}}}'
    assert post(server, "/sdapi/v1/txt2img", fields) == 200


def test_other_routes(server: Served) -> None:
    for path in ("/internal/progress", "/controlnet/detect", "/sdapi/v1/png-info", "/sdapi/v1/extra-single-image"):
        for body in ("{", "[]", "null", '"x"', "{}", '{"image": "AAAA"}', '{"id_task": "\\u0000"}', ""):
            assert post(server, path, body) < 500
    for name in ("upscaling_resize", "upscaling_resize_w", "upscaler_1", "extras_upscaler_2_visibility", "resize_mode"):
        for value in ODD:
            body = f'{{"image": "{base64_text(picture((8, 8)))}", "{name}": {value}}}'
            post(server, "/sdapi/v1/extra-single-image", body)
