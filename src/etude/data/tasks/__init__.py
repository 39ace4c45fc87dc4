"""Small exercises in reasoning over symbols and made-up people: an addition to any corpus."""
