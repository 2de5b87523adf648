"""The kinds of targets, one file for each; `registry.py` names them.

A target is a frozen dataclass of its arguments with `kind` and `bind` (see `base.TargetKind`). For one input it becomes
a `base.BoundTarget`, which reads the explained value off the outputs.
"""
