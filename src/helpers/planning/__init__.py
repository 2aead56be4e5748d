"""What a run costs before it starts; needs no torch."""
