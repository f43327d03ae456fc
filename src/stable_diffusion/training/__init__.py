"""Training from scratch: VAE, text encoder with image tower, denoiser, or any of them jointly.

`run.train(stage, data=..., out=..., minutes=...)` is the one entry point; `python -m stable_diffusion.training` calls
it.
"""
