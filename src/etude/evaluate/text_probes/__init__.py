"""Probes made from any held-out text, in any language, without set-up."""
