"""Products with sparse matrices: what they store is what they multiply."""

from collections.abc import Callable

import pytest
import torch
from torch import nn

from modtool.live.inputs import parse_inputs
from modtool.live.trace import trace
from tests.nets import Function


def three() -> torch.Tensor:
    """Three elements of four by four; in blocks of two by two, two of those."""
    return torch.sparse_coo_tensor(torch.tensor([[0, 1, 2], [1, 0, 3]]), torch.ones(3), (4, 4))


def ones() -> torch.Tensor:
    return torch.ones(4, 5)


# Of an input (4, 5): multiply-accumulates worked out by hand.
ROWS: dict[str, tuple[Callable[[torch.Tensor], object], int]] = {
    "sparse.mm": (lambda x: torch.sparse.mm(three(), x), 3 * 5),
    "COO @": (lambda x: three() @ x, 3 * 5),
    "CSR @": (lambda x: three().to_sparse_csr() @ x, 3 * 5),
    "BSR @": (lambda x: three().to_dense().to_sparse_bsr((2, 2)) @ x, 2 * 4 * 5),
    "@ COO": (lambda x: x.t() @ three(), 5 * 3),
    "vector": (lambda x: torch.mv(three(), x[:, 0]), 3),
    "batch": (lambda x: torch.bmm(torch.stack([three()] * 2), torch.stack([x, x])), 2 * 3 * 5),
    "sparse.addmm": (lambda x: torch.sparse.addmm(ones(), three(), x), 3 * 5),
    "addmm": (lambda x: torch.addmm(ones(), three().to_sparse_csr(), x), 3 * 5),
    "linear": (lambda x: nn.functional.linear(x.t(), three().to_sparse_csr()), 5 * 3),
    "of values": (lambda x: (x * 0).to_sparse() @ torch.ones(5, 2), 0),
}


@pytest.mark.filterwarnings("ignore:Sparse:UserWarning")
@pytest.mark.parametrize("name", ROWS)
def test_each_stored_element_meets_a_row_or_a_column(name: str) -> None:
    function, macs = ROWS[name]
    model = Function(function)
    found = trace(model, parse_inputs(["4,5"], model))
    assert (found.error, found.executed, found.macs) == (None, "real", macs)
    assert (found.uncounted, [each.code for each in found.notes]) == ((), ["ran-for-real"])


@pytest.mark.filterwarnings("ignore:Sparse:UserWarning")
def test_a_product_of_two_sparse_matrices_is_listed() -> None:
    model = Function(lambda x: torch.sparse.mm(three(), x.to_sparse()))
    found = trace(model, parse_inputs(["4,5"], model))
    assert (found.macs, found.uncounted) == (0, ("aten._sparse_sparse_matmul",))
