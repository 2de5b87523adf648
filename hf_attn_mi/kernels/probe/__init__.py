"""The information that a linear probe finds."""
