"""Notebook tune: settings by successive halving."""
