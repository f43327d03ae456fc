"""Network calls shared by runs that go on at once: how they meet (`rendezvous`), and the engine that lets them."""
