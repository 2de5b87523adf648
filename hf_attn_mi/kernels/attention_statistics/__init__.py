"""Statistics of attention rows, without the matrix."""
