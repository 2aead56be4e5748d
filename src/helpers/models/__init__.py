"""A base model: families, chat format, loading, likelihood; the embedded model."""
