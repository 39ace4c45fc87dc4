"""The built-in corpus: simple English stories from a small simulated world whose truth is known."""
