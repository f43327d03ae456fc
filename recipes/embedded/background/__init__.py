"""The training that runs behind everything else: a curriculum of pieces, stopped and taken up at any moment."""
