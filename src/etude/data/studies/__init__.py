"""Texts that each serve to study one question, and that a small network learns in minutes."""
