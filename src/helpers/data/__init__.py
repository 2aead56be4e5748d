"""Notebook 01: the corpus, from its source to train, val and test."""
