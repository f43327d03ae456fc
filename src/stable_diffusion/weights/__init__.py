"""Model files: reading them safely, saying what they are, loading them strictly, and writing our own format."""

from ..former import FOLDER

__path__ = [*__path__, str(FOLDER / "weights")]
