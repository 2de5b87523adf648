"""The model on some tokens of an input, and the search for a smallest set that carries its answer."""
