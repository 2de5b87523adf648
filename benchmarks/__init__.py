"""Benchmarks and studies: speed, accuracy, and the studies whose pages stand in docs/studies.

Every command can be run as a file, from any folder: `python benchmarks/speed/explain.py --quick`.
"""
