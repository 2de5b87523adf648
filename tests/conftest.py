"""What every test shares: no network, one thread, the embedded model."""

import os
import sys
from pathlib import Path

os.environ["HF_HUB_OFFLINE"] = "1"  # before transformers is imported
os.environ["HF_DATASETS_OFFLINE"] = "1"
sys.path.insert(0, str(Path(__file__).parents[1]))  # `tests.zoo` and `tests.sample_models`, also under a bare `pytest`

import pytest
import torch
from transformers.utils import logging

logging.disable_progress_bar()
torch.set_num_threads(1)
if not torch.cuda.is_available():
    # Before anything imports triton, as torch.compile does: without CUDA, kernels run in Triton's interpreter.
    os.environ.setdefault("TRITON_INTERPRET", "1")


@pytest.fixture(scope="session")
def demo():
    """The embedded model in evaluation mode and its tokenizer; tests leave both as they were."""
    from tests.sample_models import load_demo

    return load_demo()


@pytest.fixture
def fresh():
    """A copy of the embedded model that a test may change, and its tokenizer."""
    from tests.sample_models import load_demo

    return load_demo()
