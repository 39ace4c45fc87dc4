"""Primitives of what is shown: lines, tables and progress in a terminal, and the layout of pictures."""
