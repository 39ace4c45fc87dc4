"""Import from and export to other projects' formats and tools."""
