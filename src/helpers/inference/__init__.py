"""Notebook 04 and the chat page: replies."""
