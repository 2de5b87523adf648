"""`fit_information` in two processes: the sample and the result are those of a single one."""

import os
import pickle

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


def in_process(rank, port, path):
    """The profile of one of two processes, pickled to a file."""
    child = os.fork()
    if child:
        return child
    status = 1
    try:
        os.dup2(os.open(os.devnull, os.O_WRONLY), 2)
        os.environ |= {"RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": "2"}
        os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
        from accelerate import PartialState

        PartialState._reset_state()
        path.write_bytes(pickle.dumps(fit()))
        status = 0
    finally:
        os._exit(status)


def test_two_processes_give_the_profile_of_one(tmp_path, monkeypatch):
    monkeypatch.setattr(module, "CHUNK", 32)
    port = free_port()
    workers = [in_process(rank, port, tmp_path / f"{rank}.pickle") for rank in range(2)]
    assert [os.waitpid(worker, 0)[1] for worker in workers] == [0, 0]
    alone = fit()
    assert 50 <= alone.info["texts"]["kept"] < 300  # a sample, drawn at random
    for rank in range(2):
        shared = pickle.loads((tmp_path / f"{rank}.pickle").read_bytes())
        assert shared.info["texts"] == alone.info["texts"]
        assert shared.sites == alone.sites
        torch.testing.assert_close(shared.information.nats, alone.information.nats, atol=1e-6, rtol=1e-5)
        torch.testing.assert_close(shared.information.interval, alone.information.interval, atol=1e-6, rtol=1e-5)
        torch.testing.assert_close(shared.prior, alone.prior, atol=1e-6, rtol=0)
