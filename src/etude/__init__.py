"""Etude: grow a language model from text, and watch it learn."""
