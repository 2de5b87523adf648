"""Frozen results: what the tasks return."""
