"""What is wrong with a run: what is known of it, the rules that judge it, and their verdicts."""
