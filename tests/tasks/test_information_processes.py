"""`fit_information` in two processes: the sample and the result are those of a single one."""

import os
import pickle
import subprocess
import sys
from pathlib import Path

import torch

from hf_attn_mi import fit_information
from hf_attn_mi.tasks import fit_information as module
from scripts.reliability.common import bert, tokenizer
from scripts.reliability.corpus_faults import free_port
from tests.tasks.test_fit_information import sentences

TEXTS = sentences(300)


def fit(**options):
    """A profile of a random model; a sample of the inputs is kept."""
    settings = {"estimator": "gaussian", "permutations": 20, "memory": 200 * 3 * 2 * 32 * 4, **options}
    return fit_information(bert(), TEXTS, tokenizer=tokenizer(), **settings)


CHUNK = 32
IN_PROCESS = """
import pickle, sys
from pathlib import Path
from tests.tasks import test_information_processes as test

test.module.CHUNK = test.CHUNK
Path(sys.argv[1]).write_bytes(pickle.dumps(test.fit()))
"""


def in_process(rank, port, path):
    """One of two processes, a fresh interpreter, which pickles its profile to a file."""
    environment = {**os.environ, "RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": "2"}
    environment |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    root = Path(__file__).resolve().parents[2]
    return subprocess.Popen([sys.executable, "-c", IN_PROCESS, path], cwd=root, env=environment, stderr=subprocess.PIPE)


def test_two_processes_give_the_profile_of_one(tmp_path, monkeypatch):
    monkeypatch.setattr(module, "CHUNK", CHUNK)
    port = free_port()
    workers = [in_process(rank, port, tmp_path / f"{rank}.pickle") for rank in range(2)]
    try:
        errors = [worker.communicate(timeout=240)[1] for worker in workers]
    finally:
        for worker in workers:
            worker.kill()
    assert [worker.returncode for worker in workers] == [0, 0], errors
    alone = fit()
    assert 50 <= alone.info["texts"]["kept"] < 300  # a sample, drawn at random
    for rank in range(2):
        shared = pickle.loads((tmp_path / f"{rank}.pickle").read_bytes())
        assert shared.info["texts"] == alone.info["texts"]
        assert shared.sites == alone.sites
        torch.testing.assert_close(shared.information.nats, alone.information.nats, atol=1e-6, rtol=1e-5)
        torch.testing.assert_close(shared.information.interval, alone.information.interval, atol=1e-6, rtol=1e-5)
        torch.testing.assert_close(shared.prior, alone.prior, atol=1e-6, rtol=0)
