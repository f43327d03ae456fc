"""Distances and scores that know nothing of models: numbers from points."""
