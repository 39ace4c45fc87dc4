"""What a tuning gained and what it cost: held-out questions, the prompted base, and texts that it might forget."""
