"""Looking inside: any prediction, activation, gradient and update of a run, at any step."""
