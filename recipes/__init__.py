"""Recipes: how the models that ship with the package are made, as commands that anyone can run again."""
