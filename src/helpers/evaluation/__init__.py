"""Notebook 03: the base model against the tuned one."""
