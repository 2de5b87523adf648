"""The public tasks: from a model and inputs to a result."""
