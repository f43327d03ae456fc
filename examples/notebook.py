# ruff: noqa: B018  # the last line of a cell is what it shows
"""A notebook in cells (`# %%`), which VS Code, Spyder and Jupytext open; run as a script it makes one picture."""

# %% A prompt box with settings, live preview and history
import stable_diffusion

widget = stable_diffusion.widget("a red apple on a wooden table", model="embedded-fast", seed=7)
widget

# %% The same from code: it works in a thread, so wait before looking
widget.generate()
widget.wait()
widget.pictures[-1]

# %% A loaded model shows what it is
model = stable_diffusion.load("embedded-fast")
model

# %% Each `Images` event of the stream shows its pictures
*_, images = stable_diffusion.generate(model, "two red apples", seed=7)
images
