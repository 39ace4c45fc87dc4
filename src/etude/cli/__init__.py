"""The command line: it parses and calls; the work is done elsewhere."""
