"""A run on disk and in time: settings, run.json, sessions, checkpoints, mirror."""
