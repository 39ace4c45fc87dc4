"""The doctor: whether a machine computes correctly, and what went wrong in a run."""
