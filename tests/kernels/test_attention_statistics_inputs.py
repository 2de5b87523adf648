"""Bad input, backends, memory, and the Gram matrix below."""

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from hf_attn_mi.errors import BackendUnavailableError, InvalidInputError
from hf_attn_mi.kernels import attention_statistics
from hf_attn_mi.kernels.attention_statistics import inputs, torch_per_query
from hf_attn_mi.kernels.attention_statistics import torch as shared_keys
from hf_attn_mi.kernels.effective import value_basis as bases
from hf_attn_mi.kernels.effective.value_basis import value_basis
from tests.kernels.test_attention_statistics import sample


def arguments(**changes):
    query, key, value = sample(2, 4, 2, 10, 10, 8)
    given = {"query": query, "key": key, "value": value, "output": None, **changes}
    return [given.pop(name) for name in ("query", "key", "value", "output")], given


HUGE = torch.zeros(2, 4, 10, 8).index_fill(2, torch.tensor([3]), torch.inf)
FLAGS = torch.ones(2, 10, dtype=torch.bool)
BAD = {
    "three dimensions": ({"query": torch.ones(4, 10, 8)}, "query has shape .* needs 4 dimensions"),
    "empty": ({"value": torch.ones(2, 2, 0, 8)}, "none empty"),
    "key length": ({"key": torch.ones(2, 2, 11, 8)}, "key has shape"),
    "key width": ({"key": torch.ones(2, 2, 10, 7)}, "key has shape"),
    "value batch": ({"value": torch.ones(3, 2, 10, 8)}, "shape"),
    "heads": ({"key": torch.ones(2, 3, 10, 8), "value": torch.ones(2, 3, 10, 8)}, "not a multiple"),
    "output": ({"output": torch.ones(2, 4, 10, 9)}, "output has shape"),
    "integers": ({"value": torch.ones(2, 2, 10, 8, dtype=torch.long)}, "value has dtype torch.int64"),
    "complex": ({"query": torch.ones(2, 4, 10, 8, dtype=torch.complex64)}, "query has dtype torch.complex64"),
    "infinite query": ({"query": HUGE}, "query has NaN or infinite"),
    "infinite output": ({"output": HUGE}, "output has NaN or infinite"),
    "nan value": ({"value": torch.full((2, 2, 10, 8), torch.nan)}, "value has NaN or infinite"),
    "wrong output": ({"output": torch.ones(2, 4, 10, 8)}, "output is not rows times values"),
    "wide heads": (
        {"query": torch.ones(2, 4, 10, 257), "key": torch.ones(2, 2, 10, 257)},
        "head_dim = 257: at most 256",
    ),
    "query without key": ({"key": None}, "come together"),
    "nothing": ({"query": None, "key": None}, "needs query and key, or rows"),
    "rows and query": ({"rows": torch.ones(2, 4, 10, 10)}, "not both"),
    "rows shape": ({"query": None, "key": None, "rows": torch.ones(2, 4, 10, 11)}, "rows has shape"),
    "negative rows": ({"query": None, "key": None, "rows": -torch.ones(2, 4, 10, 10)}, "negative"),
    "negative causal rows": (
        {"query": None, "key": None, "rows": -torch.ones(2, 4, 10, 10), "is_causal": True},
        "negative",
    ),
    "output alone": ({"query": None, "key": None, "output": torch.ones(2, 4, 10, 8)}, "or rows"),
    "mask integers": ({"mask": torch.ones(10, 10, dtype=torch.long)}, "mask has dtype"),
    "mask shape": ({"mask": torch.ones(10, 9, dtype=torch.bool)}, "mask has shape"),
    "mask of one dimension": ({"mask": torch.ones(10, dtype=torch.bool)}, "mask has shape"),
    "mask nan": ({"mask": torch.full((10, 10), torch.nan)}, "mask has NaN"),
    "mask infinite": ({"mask": torch.full((10, 10), torch.inf)}, "mask has NaN or"),
    "key mask dtype": ({"key_mask": FLAGS.long()}, "key_mask has dtype"),
    "key mask shape": ({"key_mask": FLAGS[:, :9]}, "key_mask has shape"),
    "query mask shape": ({"query_mask": FLAGS[:, :9]}, "query_mask has shape"),
    "window": ({"window": 0}, "window is 0"),
    "scale": ({"scale": float("nan")}, "scale is nan"),
    "backend": ({"backend": "cuda"}, "backend is 'cuda'"),
}


@pytest.mark.parametrize("name", BAD)
def test_bad_input_is_named(name):
    changes, message = BAD[name]
    tensors, options = arguments(**changes)
    with pytest.raises(InvalidInputError, match=message):
        attention_statistics(*tensors, **options)


def test_arguments_stay_as_they_are():
    tensors, _ = arguments()
    copies = [None if x is None else x.clone() for x in tensors]
    mask = torch.zeros(2, 1, 10, 10)
    attention_statistics(*tensors, mask=mask, key_mask=FLAGS, query_mask=FLAGS)
    attention_statistics(*tensors, is_causal=True)
    assert all(x is None or torch.equal(x, y) for x, y in zip(tensors, copies))
    assert (mask == 0).all()


def test_triton_without_cuda_is_refused(monkeypatch, needs_triton):
    monkeypatch.delenv("TRITON_INTERPRET", raising=False)
    tensors, _ = arguments()
    with pytest.raises(BackendUnavailableError, match="needs CUDA"):
        attention_statistics(*tensors, backend="triton")
    assert attention_statistics(*tensors).backend == "torch"


def test_triton_that_is_not_installed_is_refused(monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    tensors, _ = arguments()
    with pytest.raises(BackendUnavailableError, match="not installed"):
        attention_statistics(*tensors, backend="triton")
    assert attention_statistics(*tensors, backend="auto").backend == "torch"


def test_triton_refuses_float64(needs_triton, monkeypatch):
    monkeypatch.setenv("TRITON_INTERPRET", "1")
    query, key, value = sample(1, 2, 2, 10, 10, dtype=torch.float64)
    with pytest.raises(BackendUnavailableError, match="float64"):
        attention_statistics(query, key, value, None, backend="triton")


class Largest(TorchDispatchMode):
    """Number of entries of the largest tensor that any operation returns."""

    def __init__(self):
        super().__init__()
        self.entries = 0

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        found = function(*args, **(kwargs or {}))
        for tensor in found if isinstance(found, tuple | list) else [found]:
            if isinstance(tensor, torch.Tensor):
                stored = tensor.untyped_storage().nbytes() // tensor.element_size()
                self.entries = max(self.entries, min(tensor.numel(), stored))
        return found


@pytest.mark.parametrize("options", [{}, {"effective": False}, {"is_causal": True, "window": 100}])
def test_memory_grows_with_the_length_not_its_square(options, monkeypatch):
    tile = 1 << 14
    for module, name in ((shared_keys, "TILE"), (torch_per_query, "TILE"), (torch_per_query, "GRAMS")):
        monkeypatch.setattr(module, name, tile)
    monkeypatch.setattr(bases, "BASIS_CHUNK", tile)
    monkeypatch.setattr(inputs, "MASK_TILE", tile)
    for length in (500, 1500):
        query, key, value = sample(1, 2, 2, length, length, 8)
        with Largest() as seen:
            attention_statistics(query, key, value, None, **options)
        assert seen.entries <= max(2 * tile, 2 * 2 * length * 8)


def test_basis_is_orthonormal_where_the_gram_matrix_is_nearly_singular():
    generator = torch.Generator().manual_seed(0)
    left, _, right = torch.linalg.svd(torch.randn(1, 200, 6, generator=generator, dtype=torch.float64), False)
    values = (left * torch.logspace(0, -6.5, 6, dtype=torch.float64)) @ right
    found = value_basis(values, torch.tensor([200]), 2.0**-52)
    assert found.rank.tolist() == [6]
    gram = found.basis.transpose(1, 2) @ found.basis
    torch.testing.assert_close(gram[0], torch.eye(6, dtype=torch.float64), atol=1e-10, rtol=0)
    sizes = torch.linalg.svdvals(values)
    torch.testing.assert_close(found.condition, sizes.norm(dim=1) * (1 / sizes).norm(dim=1), rtol=1e-2, atol=0)
