"""Texts that are made for one question each, which a small network can answer in minutes."""
