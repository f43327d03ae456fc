"""Networks run by OpenVINO on x86 and ARM processors (extra `cpu`): `OpenVINOEngine`.

    convert.py    a torch module and the shapes of its inputs -> a graph whose weights are inputs: no weight is copied
    store.py      such graphs, and mapped files of weights, in the user's cache folder; the least recently used go first
    compiled.py   a graph with a run's weights in it, ready to be called
    engine.py     the engine: which network is compiled, kept and dropped
"""
