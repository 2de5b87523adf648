"""What the caller hands over: a model, texts or tensors, a data set, and what is to be explained."""
