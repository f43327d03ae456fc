"""Configs survive JSON, and refuse keys that they do not have."""

import json

import pytest

from stable_diffusion.errors import InvalidRequest
from stable_diffusion.models.clip import CLIPTextConfig
from stable_diffusion.models.image_tower import ImageTowerConfig
from stable_diffusion.models.unet import UNetConfig
from stable_diffusion.models.vae import VAEConfig


@pytest.mark.parametrize(
    "config",
    [
        UNetConfig(channels=(32, 64), transformer_depth=(0, 2), blocks_per_stage=(1, 2), heads=(1, 2), vector_dim=5),
        UNetConfig(head_dim=64, context_dim=1024, linear_projection=True),
        VAEConfig(decoder_channels=(64, 64, 64, 128), patch_size=2, mid_attention=False),
        CLIPTextConfig(projection_dim=512, activation="gelu"),
        ImageTowerConfig(channels=(8, 16)),
    ],
)
def test_json_round_trip(config):
    again = type(config).from_dict(json.loads(json.dumps(config.to_dict())))
    assert again == config and hash(again) == hash(config)


def test_unknown_key_names_the_nearest():
    with pytest.raises(InvalidRequest, match="'channel': did you mean 'channels'"):
        UNetConfig.from_dict({"channel": [32, 64]})
