"""The command line, `hf-attn-mi COMMAND ...`: one file a command, and what they share.

Importing it loads neither torch nor transformers: a command imports what it needs when it runs, so that `--version`,
`--help` and shell completion answer at once.
"""

from hf_attn_mi.cli.loading import embedded_model_path
from hf_attn_mi.cli.main import app, main
from hf_attn_mi.cli.program import run

__all__ = ["app", "embedded_model_path", "main", "run"]
