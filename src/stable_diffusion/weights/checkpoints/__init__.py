"""Whole models on disk: single files, diffusers folders and our own format."""
