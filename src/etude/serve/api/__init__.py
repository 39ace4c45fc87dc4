"""The API of OpenAI's clients: models served to other programs."""
