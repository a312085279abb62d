from __future__ import annotations

import collections
import dataclasses
import warnings

import pytest
import torch

from stabdiag.capture.tensors import MOST, measurable, tensors_in
from stabdiag.stats.real import real


@dataclasses.dataclass
class Output:
    logits: torch.Tensor
    cache: object = None


class Named(collections.OrderedDict):
    """As the outputs of Hugging Face's models are: a mapping and a dataclass in one."""


Pair = collections.namedtuple("Pair", "hidden state")
X, Y = torch.ones(1), torch.zeros(2)


@pytest.mark.parametrize(
    ("value", "paths"),
    [
        (X, [""]),
        ((X, Y), ["", "[1]"]),
        ([X, [Y, X]], ["", "[1]", "[1][1]"]),
        (Pair(X, (X, Y)), ["", "[1]", "[1][1]"]),
        ({"a": X, "b": {"c": Y}}, ["[a]", "[b][c]"]),
        (Named(loss=X, logits=Y), ["[loss]", "[logits]"]),
        (Output(X, (Y, None)), ["[logits]", "[cache]"]),
        (None, []),
        ("text", []),
        (3.5, []),
        (Output, []),
        ((None, X), ["[1]"]),
    ],
)
def test_tensors_are_found_in_whatever_a_module_returns(value, paths):
    assert [path for path, _ in tensors_in(value)] == paths


def test_the_search_ends_in_depth_and_breadth():
    assert len(list(tensors_in([X] * 100))) == MOST
    assert list(tensors_in([[[[X]]]])) == []
    endless: list[object] = []
    endless.append(endless)
    assert list(tensors_in(endless)) == []


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.float16, torch.bfloat16])
def test_floating_tensors_are_measured_as_they_are(dtype):
    tensor = torch.ones(2, dtype=dtype, requires_grad=True)
    values = measurable(tensor)
    assert values.dtype == dtype
    assert not values.requires_grad
    assert values.data_ptr() == tensor.data_ptr()


def test_complex_sparse_and_eight_bit_tensors_become_real_dense_and_wide():
    assert measurable(torch.tensor([3 + 4j]).conj()).tolist() == [[3.0, -4.0]]
    assert real(torch.tensor([1j])).tolist() == [[0.0, 1.0]]
    sparse = torch.sparse_coo_tensor([[0, 5, 5]], [1.0, 2.0, 3.0], (9,))
    assert measurable(sparse).tolist() == [1.0, 5.0]
    assert measurable(torch.ones(2).to(torch.float8_e4m3fn)).dtype == torch.float32


def unmeasurable() -> dict[str, torch.Tensor]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch's own, of prototypes
        return {
            "integers": torch.ones(2, dtype=torch.int64),
            "booleans": torch.ones(2, dtype=torch.bool),
            "nothing": torch.zeros(0, 3),
            "meta": torch.ones(2, device="meta"),
            "rows": torch.eye(3).to_sparse_csr(),
            "quantized": torch.quantize_per_tensor(torch.ones(2), 0.1, 0, torch.qint8),
            "nested": torch.nested.nested_tensor([torch.ones(2), torch.ones(3)]),
            "jagged": torch.nested.nested_tensor([torch.ones(2), torch.ones(3)], layout=torch.jagged),
        }


@pytest.mark.parametrize("kind", unmeasurable())
def test_there_is_nothing_to_measure_where_no_plain_floats_are(kind):
    assert measurable(unmeasurable()[kind]) is None
