"""The command line: parse arguments, call the packages that do the work, and print errors."""
