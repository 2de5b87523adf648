"""Efficient attention: the sparsest row with the same head output."""
