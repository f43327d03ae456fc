"""How fast this package is beside its peers, on this machine: `python -m benchmarks --help`.

measure.py    sides of a row timed in turns: wall and processor seconds, medians and spread
rows.py       what a row and a side are, and the list of modules that yield them
machine.py    what the numbers depend on, and the measured rate of matrix products
networks.py   networks of full size with the same random weights, ours and diffusers'
steps.py, decoders.py, pictures.py, samplers.py, embedded.py, loading.py   the rows
results.py    the file of results, to which every run adds
page.py, plot.py   docs/performance.md and its plot, written from that file
gpu.py        one command for a machine with a GPU
"""
