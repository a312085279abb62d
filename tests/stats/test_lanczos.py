from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F

from stabdiag.stats.hessian import DifferenceProducts
from stabdiag.stats.lanczos import lanczos, ritz


def spectrum(*eigenvalues, dtype=torch.float64):
    """A symmetric matrix of these eigenvalues and random eigenvectors (as columns)."""
    n = len(eigenvalues)
    vectors = torch.linalg.qr(torch.randn(n, n, dtype=torch.float64))[0]
    values = torch.tensor(eigenvalues, dtype=torch.float64)
    return (vectors * values @ vectors.T).to(dtype), vectors.to(dtype)


def found(krylov):
    return ritz(krylov.projection.double().numpy(), float(krylov.remainder))


@pytest.fixture(autouse=True)
def _repeatable():
    torch.set_num_threads(1)
    torch.manual_seed(0)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_both_ends_of_a_spectrum_are_found_also_where_the_negative_end_is_larger(dtype):
    matrix, _ = spectrum(-9.0, *np.linspace(-1, 1, 198).tolist(), 5.0, dtype=dtype)
    krylov = lanczos(lambda v: matrix @ v, torch.randn(200, dtype=dtype), 12)
    result = found(krylov)
    assert result.values[-1] == pytest.approx(5.0, rel=1e-4)
    assert result.values[0] == pytest.approx(-9.0, rel=1e-4)
    gram = krylov.basis @ krylov.basis.T
    torch.testing.assert_close(gram, torch.eye(12, dtype=dtype), atol=1e-5, rtol=0)


def test_a_start_near_the_eigenvector_needs_three_products():
    matrix, vectors = spectrum(-4.0, *np.linspace(-1, 2, 198).tolist(), 3.0)
    start = vectors[:, -1] + 0.5 * torch.randn(200, dtype=torch.float64) / 200**0.5
    warm = found(lanczos(lambda v: matrix @ v, start, 3))
    cold = found(lanczos(lambda v: matrix @ v, torch.randn(200, dtype=torch.float64), 3))
    assert warm.values[-1] == pytest.approx(3.0, rel=0.05)
    assert cold.values[-1] < 2.5


def test_residuals_are_those_of_the_ritz_vectors_and_bound_the_error():
    matrix, _ = spectrum(*torch.randn(60).tolist())
    krylov = lanczos(lambda v: matrix @ v, torch.randn(60, dtype=torch.float64), 7)
    result = found(krylov)
    exact = torch.linalg.eigvalsh(matrix)
    for value, coefficients, residual in zip(result.values, result.vectors.T, result.residuals, strict=True):
        vector = torch.tensor(coefficients) @ krylov.basis
        assert residual == pytest.approx((matrix @ vector - value * vector).norm().item(), abs=1e-9)
        assert (exact - value).abs().min() <= residual + 1e-9


def test_the_estimated_error_is_near_the_true_one_where_the_end_stands_apart():
    matrix, _ = spectrum(*np.linspace(-1, 1, 99).tolist(), 3.0)
    for products in (4, 5, 6):
        result = found(lanczos(lambda v: matrix @ v, torch.randn(100, dtype=torch.float64), products))
        error = 3.0 - result.values[-1]
        assert error <= 1.5 * result.error(-1)
        assert result.error(-1) <= result.residuals[-1]


def test_an_operator_that_is_not_symmetric_shows_in_the_residuals():
    matrix, _ = spectrum(*np.linspace(0, 1, 40).tolist())
    noise = torch.randn(40, 40, dtype=torch.float64)
    start = torch.randn(40, dtype=torch.float64)
    clean = found(lanczos(lambda v: matrix @ v, start, 40))
    noisy = found(lanczos(lambda v: (matrix + 0.01 * noise) @ v, start, 40))
    assert clean.residuals[-1] < 1e-9
    assert noisy.residuals[-1] > 1e-3


def test_a_space_that_is_invariant_ends_early_and_is_exact():
    matrix, vectors = spectrum(*np.linspace(-3, -1, 20).tolist())
    start = vectors[:, 0] + vectors[:, 7]
    result = found(lanczos(lambda v: matrix @ v, start, 6))
    assert len(result.values) == 2
    assert result.values.tolist() == pytest.approx([-3.0, float(np.linspace(-3, -1, 20)[7])])
    assert result.residuals.max() < 1e-3
    assert found(lanczos(lambda v: 2 * v, torch.ones(3), 8)).values.tolist() == pytest.approx([2.0])


def test_nothing_is_found_in_zeros_and_nothing_breaks():
    for start in (torch.zeros(5), torch.ones(5)):
        result = found(lanczos(lambda v: 0 * v, start, 3))
        assert result.values.tolist() == [0.0]
        assert result.residuals.tolist() == [0.0]


def small_network(dtype):
    model = nn.Sequential(nn.Linear(6, 12), nn.Tanh(), nn.Linear(12, 4)).to(dtype)
    x, y = torch.randn(64, 6, dtype=dtype), torch.randint(4, (64,))
    names, shapes = zip(*((n, p.shape) for n, p in model.named_parameters()), strict=True)
    sizes = [shape.numel() for shape in shapes]

    def loss(flat):
        parts = [t.view(s) for t, s in zip(flat.split(sizes), shapes, strict=True)]
        output = torch.func.functional_call(model, dict(zip(names, parts, strict=True)), (x,))
        return F.cross_entropy(3 * output, y)

    flat = torch.cat([p.detach().reshape(-1) for p in model.parameters()])
    return loss, flat


@pytest.mark.parametrize(("dtype", "within"), [(torch.float32, 2e-2), (torch.float64, 1e-5)])
def test_difference_products_are_the_hessians(dtype, within):
    loss, flat = small_network(dtype)
    products = DifferenceProducts(torch.func.grad(loss), flat, torch.func.grad(loss)(flat))
    matrix = torch.func.hessian(loss)(flat)
    values, vectors = torch.linalg.eigh(matrix)
    for vector in (vectors[:, -1], torch.randn_like(flat), torch.randint(0, 2, flat.shape) * 2.0 - 1):
        product = products(vector.to(dtype))
        expected = matrix @ vector.to(dtype)
        assert (product - expected).norm() < within * expected.norm()
    assert products(torch.zeros_like(flat)).abs().max() == 0
    extreme = found(lanczos(products, torch.randn_like(flat), 12)).values[-1]
    assert extreme == pytest.approx(values[-1].item(), rel=max(within, 1e-3))
