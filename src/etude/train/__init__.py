"""Training: loss, gradients, the update step, the loop, objectives, update rules and checkpoints."""
