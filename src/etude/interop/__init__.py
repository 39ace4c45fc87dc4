"""To and from other people's formats and tools."""
