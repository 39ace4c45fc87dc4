"""Run public benchmarks on Etude's models, through the lm-eval library."""
