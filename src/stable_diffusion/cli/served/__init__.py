"""Pictures that a server makes for the command line: the same bytes, without loading a model here."""
