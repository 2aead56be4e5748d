"""A run on Kaggle, driven from here."""
