"""Finished pictures enlarged by networks from files: ESRGAN and its kin, in tiles, on any device."""
