"""A model being run: what the caller handed over, its inputs, targets and forward passes."""
