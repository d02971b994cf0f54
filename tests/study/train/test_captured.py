"""The captured step, rehearsed on the CPU with a graph that only calls."""

import math
from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F
from test_without_gpu import Operators
from tqdm import tqdm

from bnnlib import functional, numerics, optim
from bnnlib.binarize import Binarization
from bnnlib.functional import InputValues, TensorCoreProduct
from bnnlib.rounding import Rounding
from study import recipes
from study.data.training_data import Images, training_data
from study.train import build, captured, checkpoints, loop
from study.train.captured import Captured, prepared
from study.train.checkpoints import Keeper

SMOKE = recipes.at_profile(recipes.MNIST_THEANO, "smoke")
NOISY = replace(SMOKE, weights=Binarization.STOCHASTIC, activations=Binarization.STOCHASTIC)
ROUNDED = replace(SMOKE, latent_bits=6, gradient_bits=4, rounding=Rounding.STOCHASTIC)
# At smoke SVHN's recipes take the steps of CIFAR-10's, the first epoch's those of MNIST's.
TWINS = {recipe for recipe in recipes.PAPER if recipe.dataset == "svhn"}
TWINS |= {recipes.MNIST_THEANO_FIRST_EPOCH}
PAPER = [recipes.at_profile(recipe, "smoke") for recipe in recipes.PAPER if recipe not in TWINS]


class Called:
    """A graph whose replay is a call."""

    def __init__(self, call, noise):
        self.replay = call

    @staticmethod
    def warm_up(call):
        for _ in range(captured.WARM_UP):
            call()


def begun(recipe, epoch=0):
    """(a run's state at the start of an epoch, its training split)."""
    training = training_data(recipe, "smoke")
    state = loop.begin(recipe, training, 1)
    optim.set_learning_rate(state.optimizer, build.learning_rate(recipe, epoch))
    loop._begin_epoch(state, len(training.train.images))
    return state, training.train


def same_states(one, other) -> bool:
    """Whether two runs hold the same numbers: network, moments, noise, t."""
    mine, theirs = captured.snapshot(one), captured.snapshot(other)
    counts = [[group["t"] for group in state.optimizer.param_groups] for state in (one, other)]
    return (
        all(map(torch.equal, mine["values"], theirs["values"]))
        and torch.equal(mine["noise"], theirs["noise"])
        and counts[0] == counts[1]
    )


def epoch(state, recipe, split, step=None, keeper=None):
    with tqdm(disable=True) as silent:
        keeper = keeper or Keeper(None, {})
        if step is None:
            return loop.train_epoch(state, recipe, split, keeper, silent)
        return loop.replay_epoch(state, recipe, step, keeper, silent)


@pytest.mark.parametrize("recipe", [*PAPER, NOISY, ROUNDED], ids=lambda r: r.name)
def test_replayed_steps_train_as_eager_ones_bit_by_bit(recipe):
    recipe = replace(recipe, batch_size=min(recipe.batch_size, 50))
    (eager, split), (replayed, _) = begun(recipe), begun(recipe)
    split = Images(split.images[:1000], split.labels[:1000])
    for state in (eager, replayed):
        state.order = state.order[state.order < 1000]
    step, how = prepared(replayed, recipe, split, Called)
    assert how == "captured"
    assert len(step.losses) == 20
    assert torch.equal(epoch(eager, recipe, split), epoch(replayed, recipe, split, step))
    assert same_states(eager, replayed)


def test_preparing_changes_nothing_of_a_run():
    (prepared_one, split), (other, _) = begun(NOISY), begun(NOISY)
    other.optimizer.allocate()
    prepared(prepared_one, NOISY, split, Called)
    assert same_states(prepared_one, other)
    assert torch.equal(prepared_one.order, other.order) and not prepared_one.losses


def test_a_run_goes_on_from_a_checkpoint_between_replays(tmp_path, monkeypatch):
    (whole, split), (cut, _) = begun(NOISY), begun(NOISY)
    losses = epoch(whole, NOISY, split)
    monkeypatch.setattr(checkpoints, "EVERY", 0)
    monkeypatch.setattr(checkpoints, "SHARE", math.inf)
    step, _ = prepared(cut, NOISY, split, Called)
    graph, left = step.graph.replay, iter(range(4))

    def replay():
        if next(left, None) is None:
            raise KeyboardInterrupt
        graph()

    step.graph.replay = replay
    path = tmp_path / "cuda-seed1.checkpoint"
    with pytest.raises(KeyboardInterrupt):
        epoch(cut, NOISY, split, step, Keeper(path, {"recipe": {"name": "x"}, "seed": 1}))
    assert checkpoints.done(path) == (0, 4)
    resumed, _ = begun(NOISY)
    Keeper(path, {"recipe": {"name": "x"}, "seed": 1}).resume(resumed)
    step, how = prepared(resumed, NOISY, split, Called)
    assert how == "captured" and len(resumed.losses) == 4
    assert torch.equal(epoch(resumed, NOISY, split, step), losses)
    assert same_states(whole, resumed)


def test_a_step_that_trains_otherwise_is_not_used(monkeypatch):
    class Forgetful(Called):
        """Its replays leave the network as it was."""

        def __init__(self, call, noise):
            super().__init__(call, noise)
            self.replay = lambda: self.forget(call)

        def forget(self, call):
            before = captured.snapshot(state)
            call()
            captured.restore(state, before)

    state, split = begun(SMOKE)
    step, how = prepared(state, SMOKE, split, Forgetful)
    assert step is None and how.startswith("eager: ArithmeticError: in step ")
    other, _ = begun(SMOKE)
    other.optimizer.allocate()
    assert same_states(state, other)


def test_a_recording_that_fails_leaves_the_eager_step_and_the_reason():
    class Refused(Called):
        def __init__(self, call, noise):
            raise RuntimeError("operation not permitted\nwhen stream is capturing")

    state, split = begun(SMOKE)
    step, how = prepared(state, SMOKE, split, Refused)
    assert step is None
    assert how == "eager: RuntimeError: operation not permitted when stream is capturing"


def test_sums_of_signs_that_are_no_integers_are_found_by_layer(monkeypatch):
    recipe = recipes.at_profile(recipes.CIFAR10_THEANO, "smoke")
    state, split = begun(recipe)
    captured.require_exact_sums(state.network, split.images[:9])
    right = functional.sums
    monkeypatch.setattr(functional, "sums", lambda x, signs: right(x, signs) * (1 + 2**-20))
    with pytest.raises(ArithmeticError, match="^layer 4 "):
        captured.require_exact_sums(state.network, split.images[:9])
    assert not any(layer._forward_hooks for layer in state.network)


# Operators that look at memory in another way, and launch nothing
VIEWS = {"view", "detach", "alias", "as_strided", "t", "transpose", "expand", "unsqueeze"}
VIEWS |= {"squeeze", "select", "slice", "permute", "_unsafe_view", "unbind", "split"}


@pytest.mark.parametrize("name", ["mnist-theano", "mnist-torch7-code", "cifar10-torch7"])
def test_a_step_at_paper_size_waits_for_nothing(name, monkeypatch):
    """On the meta device whatever reads a number raises."""
    recipe = recipes.by_name(name)
    state = loop.begin(recipe, training_data(recipes.at_profile(recipe, "smoke"), "smoke"), 0)
    build.on_device(state.network, "meta")
    draw = torch.rand
    monkeypatch.setattr(torch, "rand", lambda *given, generator, **named: draw(*given, **named))
    reads_signs = lambda x, weight, values: values is not InputValues.REAL  # noqa: E731
    monkeypatch.setattr(functional, "_on_tensor_cores", reads_signs)
    state.optimizer = build.build_optimizer(recipe, state.network, state.noise)
    shape = (28, 28) if recipe.network == "mlp" else (3, 32, 32)
    images = torch.empty(2 * recipe.batch_size, *shape, dtype=torch.uint8, device="meta")
    split = Images(images, torch.empty(len(images), dtype=torch.int64, device="meta"))
    with Operators() as called:
        step = Captured(state, recipe, split, Called)
        made = len(called.names)
        step.step()
    launched = [name for name in called.names[made:] if name.split(".")[0] not in VIEWS]
    assert step.losses.is_meta and 0 < len(launched) < 1500
    with pytest.raises(RuntimeError, match="meta"):
        step.losses.sum().item()


def test_tensor_core_products_have_torch_s_numbers_and_gradients():
    generator = torch.Generator().manual_seed(0)
    for x_shape, w_shape in (((6, 70), (5, 70)), ((2, 7, 6, 4), (5, 7, 3, 3))):
        x, signs = (torch.randn(s, generator=generator).sign() for s in (x_shape, w_shape))
        plain = F.linear if len(x_shape) == 2 else lambda x, w: F.conv2d(x, w, padding=1)
        found = []
        ours = lambda x, w: TensorCoreProduct.apply(x, w, w.detach())  # noqa: E731
        for product in (plain, ours):
            left, right = x.clone().requires_grad_(), signs.clone().requires_grad_()
            out = product(left, right)
            grad = torch.randint(-9, 10, out.shape, generator=torch.Generator().manual_seed(1))
            out.backward(grad.float())  # integers: every order of summing is exact
            found.append((out.detach(), left.grad, right.grad))
        assert all(map(torch.equal, *found))


def test_only_signs_may_be_rounded_and_flags_are_put_back(monkeypatch):
    class OnCuda:
        device = torch.device("cuda")

        def dim(self):
            return 2

    layer = OnCuda(), torch.ones(3, 5)
    assert functional._on_tensor_cores(*layer, InputValues.SIGNS)
    assert functional._on_tensor_cores(*layer, InputValues.DROPPED)
    assert not functional._on_tensor_cores(*layer, InputValues.REAL)
    assert not functional._on_tensor_cores(OnCuda(), torch.ones(3, 5, 3, 3), InputValues.SIGNS)
    cudnn, matmul = torch.backends.cudnn, torch.backends.cuda.matmul
    monkeypatch.setattr(cudnn, "benchmark", False)
    monkeypatch.setattr(cudnn, "deterministic", False)
    before = cudnn.allow_tf32, matmul.allow_tf32
    try:
        numerics.set_up("cpu")
        assert (cudnn.allow_tf32, matmul.allow_tf32) == before
        numerics.set_up("cuda")
        with pytest.raises(ZeroDivisionError), numerics.tensor_cores():
            assert cudnn.allow_tf32 and matmul.allow_tf32
            raise ZeroDivisionError
        assert not cudnn.allow_tf32 and not matmul.allow_tf32
        assert functional.arithmetic("cuda").endswith("others float32")
        cudnn.allow_tf32 = True
        assert functional.arithmetic("cuda").endswith("others TF32 where libraries choose it")
    finally:
        cudnn.allow_tf32, matmul.allow_tf32 = before
