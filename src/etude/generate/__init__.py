"""Using a trained model: choosing the next token, again and again."""
