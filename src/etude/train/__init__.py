"""Learning: loss, gradients, the update step, the loop and the checkpoints it leaves."""
