"""A run: evidence gathered from its folder, and one rule for each kind of fault."""
