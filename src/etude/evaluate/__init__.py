"""Measure a model, and compare it with what counting alone can do."""
