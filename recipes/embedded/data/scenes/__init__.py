"""The scene composer: a seeded scene graph, drawn as layered flat illustration with emoji in it, and captions."""
