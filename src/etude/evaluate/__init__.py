"""Measuring a model against what counting alone can do."""
