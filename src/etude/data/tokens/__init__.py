"""Text becomes tokens, and tokens become batches."""
