"""Documents become one cleaned text on disk, split into a training and a validation part."""
