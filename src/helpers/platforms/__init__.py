"""Where a run happens: the machine, its Python, its secrets."""
