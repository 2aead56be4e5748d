"""Notebook export: adapter, merged model, GGUF, Space."""
