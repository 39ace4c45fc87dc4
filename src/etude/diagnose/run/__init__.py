"""A run: evidence gathered from its folder, and one rule for each thing that can go wrong."""
