"""Token-scoring methods and their registry."""
