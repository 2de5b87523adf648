"""Studies: each has a `run.py` that writes JSON lines and a `report.py` that makes a page of docs/studies from them."""
