"""From settings to a plan: the dial's sizes, the forecast of the loss, the time budget, and what a run takes."""
