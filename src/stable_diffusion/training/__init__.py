"""Training from scratch: VAE, text encoder with image tower, denoiser, or any of them jointly.

`run.train(stage, data=..., out=..., minutes=...)` is the one entry point; `stable-diffusion train STAGE` calls it.
"""
