"""The mathematics of diffusion; it knows that a denoiser is callable and nothing of models.

One run, from a network to a latent:

    sigmas   = schedule_sigmas("karras", schedule, steps)                     sigmas.py
    source   = PerImageNoise(seeds, (C, H, W))  or  BrownianNoise(...)        noise.py
    x        = start_state(schedule, source.start(), sigmas[0])               schedule.py
    base     = network_denoiser(network, schedule, "eps")                     denoise.py
    denoise  = guided(base, cond, uncond, 7.5)                                denoise.py
    for step in sample("dpmpp_2m", denoise, x, sigmas, schedule, noise=source): ...   samplers/

The other way, from a picture into noise: `DiffusionProcess`                  forward.py
"""
