"""What Bengali needs: words, hotlines, care."""
