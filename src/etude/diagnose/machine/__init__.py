"""The machine: a self-test against definitions in float64, and a report on what a run can use."""
