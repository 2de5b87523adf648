"""A data set through a model once, and what it says about the tokens of one input."""
