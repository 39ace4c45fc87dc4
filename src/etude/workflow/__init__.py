"""Whole jobs, wired from the parts: what the command line and a notebook call."""
