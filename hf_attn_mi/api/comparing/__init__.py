"""Which explanation to trust: the same inputs scored by many methods, judged, and compared."""
