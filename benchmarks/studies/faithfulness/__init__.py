"""Which token scores are faithful, and which are plausible? The command is benchmarks/accuracy/faithfulness.py."""
