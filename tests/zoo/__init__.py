"""A zoo of tiny random models: the architectures that a claim about "any encoder" has to be tested on.

`jobs()` lists them, `build(job)` makes a model and a batch of two for it, or raises `CannotBuild` with the reason.
Where the notes of a model say "not deterministic", seed torch before each forward to compare two of them.
"""

from .building import Built, CannotBuild, build
from .catalog import Job, jobs

__all__ = ["Built", "CannotBuild", "Job", "build", "jobs"]
