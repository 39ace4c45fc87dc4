"""Files, folders and data sets become documents."""
