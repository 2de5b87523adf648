"""`python -m hf_attn_mi`: the same as the command `hf-attn-mi`."""

import sys

from hf_attn_mi.cli import main

if __name__ == "__main__":
    sys.exit(main())
