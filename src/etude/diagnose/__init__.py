"""The doctor: does this machine compute correctly, and what went wrong in a run?"""
