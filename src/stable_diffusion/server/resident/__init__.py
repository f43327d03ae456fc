"""The command line's work done by a server that runs: a socket that only the same user can open."""
