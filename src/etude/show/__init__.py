"""Primitives of output: lines, tables and progress in a terminal, and the layout of pictures."""
