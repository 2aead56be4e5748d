"""Notebook 02: a LoRA adapter."""
