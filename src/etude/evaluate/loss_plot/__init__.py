"""Plot the loss curves of runs with the n-gram ladder and samples."""
