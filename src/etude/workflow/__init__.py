"""Whole jobs, wired from the other packages. The command line and notebooks call these."""
