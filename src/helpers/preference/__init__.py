"""Notebook prefer: what people prefer becomes the next adapter."""
