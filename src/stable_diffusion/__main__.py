"""`python -m stable_diffusion`: the same as the command `stable-diffusion`."""

from stable_diffusion.cli.main import main

if __name__ == "__main__":
    main()
