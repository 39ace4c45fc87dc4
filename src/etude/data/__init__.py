"""Text becomes documents, documents become tokens, tokens become batches."""
