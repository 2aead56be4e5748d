"""What Bengali needs: words, numbers, care."""
