"""The machine: its self-test against definitions in float64, and what it has for a run."""
