"""The built-in corpus: simple English stories from a small simulated world with a known state."""
