"""The suite: a folder per room."""
