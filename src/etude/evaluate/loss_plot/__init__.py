"""The loss curves of runs against the n-gram ladder, with samples, as a picture."""
