"""Effective attention: rows and received weights without what no output sees."""
