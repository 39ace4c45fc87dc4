"""Published language models in the formats of other programs, as model folders."""
