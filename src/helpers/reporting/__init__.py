"""Notebook 05: pages, tables, figures."""
