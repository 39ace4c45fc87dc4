"""How abilities emerge: sweeps, curves over training, change points, verdicts over seeds, the loss law, reports."""
