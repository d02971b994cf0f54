"""What the first run on a GPU would meet, as far as it shows without one."""

import pytest
import torch
import torch.nn.functional as F
from torch.utils._python_dispatch import TorchDispatchMode

from bnnlib import folding, functional, models
from bnnlib.layers import MaxPool2x2
from study import bench, recipes
from study.bench import baselines, products
from study.data.training_data import Images, training_data
from study.train import build, estimate, evaluation

SMOKE = recipes.at_profile(recipes.MNIST_THEANO, "smoke")


class Operators(TorchDispatchMode):
    """Collects the names of all operators called within."""

    def __init__(self):
        super().__init__()
        self.names = []

    def __torch_dispatch__(self, operator, types, arguments=(), named=None):
        self.names.append(operator.__name__)
        return operator(*arguments, **(named or {}))


def test_the_float_network_runs_where_torch_refuses_an_epsilon_of_zero(monkeypatch):
    real = F.batch_norm

    def as_torch_2_11(*given, eps=1e-5, **named):
        if eps <= 0:
            raise ValueError("batch_norm eps must be positive")
        return real(*given, eps=eps, **named)

    monkeypatch.setattr(F, "batch_norm", as_torch_2_11)
    network = baselines.network_for(recipes.MNIST_THEANO, "smoke")
    images = torch.randint(0, 256, (9, 28, 28), dtype=torch.uint8)
    *_, scores = folding.reference(network, images)
    run = baselines.float_network(folding.blocks(network), baselines.DEFAULT, baselines.DEFAULT)
    assert torch.equal(run(images), scores)


def test_an_estimate_does_not_count_the_first_evaluation(monkeypatch):
    """On a GPU it compiles and chooses: a second for 500 images, and so hours for a run."""
    clock, calls = [0.0], []

    def evaluate(network, split):
        calls.append(len(split.images))
        clock[0] += 1.0 if len(calls) == 1 else 0.001

    monkeypatch.setattr(estimate.evaluation, "evaluate", evaluate)
    monkeypatch.setattr(estimate.time, "perf_counter", lambda: clock[0])
    estimate.pace.cache_clear()
    _, image = estimate.pace(SMOKE, "smoke", "cpu")
    estimate.pace.cache_clear()
    assert image == pytest.approx(0.001 / calls[-1])


def test_pooling_away_from_the_cpu_has_no_copies_to_and_fro():
    x = torch.empty(2, 8, 4, 4, device="meta").contiguous(memory_format=torch.channels_last)
    x.requires_grad_()
    with Operators() as called:
        MaxPool2x2()(x).sum().backward()
    assert not {name.split(".")[0] for name in called.names} & {"max_unpool2d", "clone", "copy_"}
    assert x.grad.is_contiguous(memory_format=torch.channels_last)
    with pytest.raises(ValueError, match="even to be halved"):
        MaxPool2x2()(torch.empty(1, 1, 3, 4, device="meta"))


def test_filters_away_from_the_cpu_and_their_gradients_lie_channels_last():
    recipe = recipes.at_profile(recipes.CIFAR10_THEANO, "smoke")
    network = build.on_device(build.build_network(recipe, 0), "meta")
    network(torch.empty(4, 3, 32, 32, device="meta", dtype=torch.uint8)).sum().backward()
    for layer in models.binary_layers(network).values():
        if layer.weight.dim() == 4:
            for tensor in (layer.weight, layer.weight.grad):
                assert tensor.is_contiguous(memory_format=torch.channels_last)


def test_only_filters_away_from_the_cpu_are_laid_out_anew():
    weight = functional.empty_latent_weight((5, 4, 3, 3)).normal_()
    assert functional.laid_out(weight) is weight
    order = weight.to("meta").contiguous(memory_format=torch.channels_last).stride()
    assert functional.laid_out(weight.to("meta")).stride() == order


def test_nothing_waits_for_the_device_inside_an_evaluation(monkeypatch):
    monkeypatch.setattr(evaluation, "EVALUATION_BATCH", 50)
    monkeypatch.setattr(F, "one_hot", lambda labels, _: torch.eye(10)[labels])  # a CPU's checks it
    network = build.build_network(SMOKE, 0)
    split = training_data(SMOKE, "smoke").test
    waits = []
    for count in (50, 200):
        with Operators() as called:
            evaluation.evaluate(network, Images(split.images[:count], split.labels[:count]))
        waits.append(called.names.count("_local_scalar_dense.default"))
    assert waits[0] == waits[1] <= 2  # those of the sums, at the end


def test_no_gradients_are_kept_for_kernels_of_another_device():
    network = build.on_device(build.build_network(SMOKE, 0), "meta")
    for parameter in network.parameters():
        parameter.grad = torch.empty_like(parameter)
    build.build_optimizer(SMOKE, network).zero_grad()
    assert not any(hasattr(parameter, "spare_gradient") for parameter in network.parameters())


def test_a_sum_of_257_is_not_the_256_that_bfloat16_makes_of_it():
    wanted = torch.tensor([[257]], dtype=torch.int32)
    assert not products.equal(wanted.bfloat16(), wanted) and products.equal(wanted.float(), wanted)
    words = torch.tensor([[2**62 + 1]])
    assert products.equal(words, words) and not products.equal(words - 1, words)


def test_measurements_are_kept_by_device_and_come_newest_first(monkeypatch, tmp_path):
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda: (9, 0))
    assert bench.kind("cuda") == "cuda-sm90"
    folder = tmp_path / "results" / "bench"
    monkeypatch.setattr(bench, "ROOT", tmp_path)
    dates = {"cuda-sm80": "2026-01", "cuda-sm90": "2026-03", "cpu-avx2-znver3": "2025-12"}
    for kind, date in (dates | {"cpu-avx512-znver5": "2026-02"}).items():
        content = {"schema": bench.runs.SCHEMA, "provenance": {"started": date}}
        bench.runs.write_record(folder / f"kernels-{kind}.json", content)
    kinds = ["cpu-avx512-znver5", "cpu-avx2-znver3", "cuda-sm90", "cuda-sm80"]
    assert list(bench.committed()) == kinds
    assert list(bench.committed("training")) == []
