"""Conversations about short stories of the primer's world: a story with an instruction, and the answer."""
