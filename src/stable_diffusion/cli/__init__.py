"""The command `stable-diffusion`: a group in main.py and one file per command; data on stdout, the rest on stderr."""
