"""Texts from lists, files and data sets."""
