"""Counts of nearer points, for estimators of mutual information."""
