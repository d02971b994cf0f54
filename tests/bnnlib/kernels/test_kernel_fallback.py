"""Without Numba's compiler: plain torch does the same, or a sentence says what is missing."""

import os
import subprocess
import sys

import pytest

pytest.importorskip("numba")

from study import ROOT  # noqa: E402

# Each compares with plain torch: what a packed network, a training and a search are made of.
SAME = """
import torch, torch.nn.functional as F
from bnnlib import binarize, functional, pooling, xnor
from bnnlib.kernels import dispatch, reference
from study import retrieval
assert not dispatch.AVAILABLE and functional.arithmetic("cpu") == "float32"
x, w = torch.randn(5, 100), torch.randn(7, 100)
words = xnor.pack_signs(x)
assert torch.equal(words, reference.pack_signs(x))
wanted = torch.where(x >= 0, 1.0, -1.0) @ torch.where(w >= 0, 1.0, -1.0).t()
assert torch.equal(xnor.xnor_matmul(words, xnor.pack_weights(w)).float(), wanted)
images, filters = torch.randn(2, 5, 6, 70), torch.randn(9, 70, 3, 3)
sums = xnor.xnor_conv2d(xnor.pack_signs(images), xnor.pack_weights(filters), 1, 1)
assert torch.equal(sums.float().movedim(-1, 1), F.conv2d(
    binarize.sign(images).movedim(-1, 1), binarize.sign(filters), padding=1))
rows = binarize.sign(torch.randn(400, 512)).requires_grad_()
weight = functional.empty_latent_weight((512, 512)).copy_(torch.randn(512, 512)).requires_grad_()
out = functional.linear(rows, weight, torch.zeros(512), functional.InputValues.SIGNS)
out.sum().backward()
assert torch.equal(out, rows.detach() @ binarize.sign(weight).t())
assert torch.equal(weight.grad, rows.detach().sum(0).expand(512, 512))
maps = torch.randn(2, 3, 4, 4).to(memory_format=torch.channels_last).requires_grad_()
pooled = pooling.MaxPool.apply(maps)
pooled.sum().backward()
assert torch.equal(pooled, F.max_pool2d(maps, 2)) and maps.grad.sum() == 24
codes = retrieval.index(words, 100)
distances, places = retrieval.search(words, codes, 2)
assert (distances[:, 0] == 0).all() and torch.equal(places[:, 0], torch.arange(5))
print("same")
"""
REFUSED = """
import torch
from study import shared_filters
weight = torch.ones(2, 3, 3, 3)
shared_filters.conv2d(torch.ones(1, 3, 4, 4, dtype=torch.int8), shared_filters.plan(weight))
"""
TRAINED = """
from study import recipes
from study.data.training_data import training_data
from study.train import eager, loop
recipe = recipes.at_profile(recipes.MNIST_THEANO, "smoke")
training = training_data(recipe, "smoke")
state = loop.begin(recipe, training, 0)
state.network.train()
loss = eager.step(state.network, state.optimizer, training.train.images[:20],
    training.train.labels[:20])
print("trained")
"""


def run(script: str, **variables: str) -> subprocess.CompletedProcess:
    environment = {**os.environ, "PYTHONPATH": str(ROOT), **variables}
    command = [sys.executable, "-c", script]
    return subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True)


@pytest.mark.parametrize(("script", "said"), [(SAME, "same"), (TRAINED, "trained")])
def test_without_the_compiler_plain_torch_does_the_same(script, said):
    done = run(script, NUMBA_DISABLE_JIT="1")
    assert (done.returncode, done.stdout.strip()) == (0, said), done.stderr


def test_what_plain_torch_does_not_do_is_refused_in_a_sentence():
    done = run(REFUSED, NUMBA_DISABLE_JIT="1")
    last = done.stderr.strip().splitlines()[-1]
    assert last == "RuntimeError: this needs kernels that Numba compiles: unset NUMBA_DISABLE_JIT"


def test_a_switch_set_to_nothing_switches_nothing_off():
    shown = "from bnnlib.kernels import dispatch; print(dispatch.AVAILABLE)"
    assert run(shown, NUMBA_DISABLE_JIT="0").stdout.strip() == "True"
