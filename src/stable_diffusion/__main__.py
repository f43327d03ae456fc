"""`python -m stable_diffusion`: the same as the command `stable-diffusion`."""

from .cli.main import main

if __name__ == "__main__":
    main()
