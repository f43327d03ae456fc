"""One file per network: its config from tensor shapes, and its key tables in every layout."""
