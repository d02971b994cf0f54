"""What the small pieces compute, beside PyTorch."""

import pytest
import torch

from bnnlib.binarize import hard_sigmoid
from bnnlib.rounding import round_latent
from tests.support.engine import BROWSER, needed, run_in_node

pytestmark = needed
UNITS = 8


def test_the_windows_gradients_are_those_of_notebook_02():
    generator = torch.Generator().manual_seed(0)
    for spread in (0.5, 2.0):
        weights = torch.randn(10, UNITS, generator=generator).sign()
        r = (spread * torch.randn(UNITS, generator=generator)).double().requires_grad_()
        patterns = torch.cartesian_prod(*[torch.tensor([-1.0, 1]).double()] * UNITS)
        patterns.requires_grad_()
        target = torch.tensor([1.0] + [-1.0] * 9)
        scores = patterns @ weights.double().T / UNITS**0.5
        cost = (1 - target * scores).clamp(min=0).square().mean(1)
        plus = hard_sigmoid(r)
        chance = torch.where(patterns > 0, plus, 1 - plus).prod(1)
        (truth,) = torch.autograd.grad((chance * cost).sum(), r, retain_graph=True)
        (slopes,) = torch.autograd.grad(cost.sum(), patterns)
        expected = (chance.detach()[:, None] * slopes).sum(0)
        body = "return gradients(...given);"
        found = run_in_node(body, r.tolist(), weights.tolist(), files=("piece", "window"))
        assert found["truth"] == pytest.approx(truth.tolist(), abs=1e-12)
        assert found["slopes"] == pytest.approx(expected.tolist(), abs=1e-12)


@pytest.mark.parametrize("bits", [1, 2, 4, 8])
def test_a_latent_weight_is_rounded_as_in_training(bits):
    w = 2 * torch.rand(200, generator=torch.Generator().manual_seed(0)).double() - 1
    body = "return given[0].map((w) => rounded(w, given[1], 0.5));"
    found = run_in_node(body, w.tolist(), bits, files=("piece", "latent"))
    assert found == pytest.approx(round_latent(w, bits).tolist(), abs=1e-12)


@pytest.mark.parametrize("name", ["xnor", "window", "latent"])
def test_a_piece_is_short(name):
    assert len((BROWSER / f"{name}.js").read_text("utf-8").splitlines()) <= 60
