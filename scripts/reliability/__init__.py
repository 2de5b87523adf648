"""What happens under faults: fuzzed inputs, injected exceptions, killed saves, thousands of calls.

Each script takes a count and a seed, prints one JSON line and one sentence, and with --write keeps the line for
docs/reliability.md, which `python scripts/generate_reliability.py` makes of these lines.
"""

import os

os.environ.setdefault("HF_HUB_OFFLINE", "1")  # before anything imports huggingface_hub
os.environ.setdefault("HF_DATASETS_OFFLINE", "1")
