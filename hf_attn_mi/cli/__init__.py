"""The command line, `hf-attn-mi COMMAND ...`: one file a command, and what they share."""

from hf_attn_mi.cli.loading import demo_model_path
from hf_attn_mi.cli.main import main

__all__ = ["demo_model_path", "main"]
