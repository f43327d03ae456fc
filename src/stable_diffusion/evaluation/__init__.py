"""How good a model is, in numbers: quality, alignment, diversity, stability and efficiency, in one report.

run.py         `evaluate(model, ...)`: the sections one after another -> `report.Report`
quality.py alignment.py diversity.py stability.py efficiency.py    one section each
frechet.py kernel.py vendi.py neighbours.py retrieval.py    the mathematics, plain pure functions
copies.py      which painted pictures are copies of training pictures (`scripts/memorisation.py`)
tower.py       the eye that judges: an image tower with its text encoder and tokenizer
pack.py        the held-out and training pictures of a data pack
page.py plots.py    the report as one HTML page
"""
