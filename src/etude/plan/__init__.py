"""Planning of a run: the dial, the forecast of the loss, the time budget, and memory and time."""
