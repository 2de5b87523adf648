"""`python -m hf_attn_mi`: the same as the command `hf-attn-mi`."""

from hf_attn_mi.cli import run

if __name__ == "__main__":
    run()
