"""Running a model: unwrapping what the caller passed, and its inputs, targets and forward passes."""
