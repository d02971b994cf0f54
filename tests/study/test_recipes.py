import json
from dataclasses import asdict, fields, replace

import pytest
import torch

from bnnlib.binarize import Binarization
from bnnlib.layers import Normalization
from bnnlib.models import image_shape
from bnnlib.optim import Clip, Multiplier
from bnnlib.rounding import Rounding
from bnnlib.rules import Rule
from study import rates, recipes
from study.recipes import MNIST_THEANO, RECIPES, sweeps
from study.recipes.shapes import connections
from study.train import build
from study.train.eager import squared_hinge

KINDS = ("theano", "torch7", "torch7-code")


def test_names_are_unique():
    assert len({recipe.name for recipe in RECIPES}) == len(RECIPES)


def differing(recipe, other):
    """The fields, but for the name, in which two recipes differ."""
    a, b = asdict(recipe), asdict(other)
    return {name for name in a if a[name] != b[name]} - {"name"}


def test_the_float_twin_differs_in_binarization_alone():
    for name in ("mnist-theano", "cifar10-theano", "svhn-theano", "svhn-part-theano"):
        twin = recipes.by_name(name + "-float")
        changed = {"weights", "activations", "cancel_saturated", "clip", "multiplier"}
        assert differing(twin, recipes.by_name(name)) == changed
        assert twin.weights is Binarization.NONE


@pytest.mark.parametrize(
    "group",
    [
        (recipes.CIFAR10_THEANO, *recipes.CIFAR10_ABLATIONS),
        recipes.GRADIENTS,
        recipes.SHIFT,
        recipes.GAPS_MNIST,
        recipes.GAPS_CIFAR10,
        recipes.OPEN_BITS,
        recipes.OPEN_REGULARIZERS,
    ],
    ids=lambda group: group[0].name,
)
def test_each_ablation_changes_one_thing(group):
    # An optimizer comes with its own rate.
    rate = {"learning_rate", "final_learning_rate", "halve_every"}
    several = {
        "gradients-stochastic-both": {"weights", "activations"},
        "gradients-no-glorot-higher-rate": {"multiplier"},
        "shift-both": {"batch_norm", "optimizer"},
        "gaps-mnist-no-dropout": {"input_dropout", "hidden_dropout"},
        "gaps-mnist-shift": {"batch_norm", "optimizer"},
        "gaps-cifar10-shift": {"batch_norm", "optimizer"},
    }
    # Each binarization with what belongs to it, dropout at both places, bits and how to round.
    of_weights = {"weights", "multiplier", "clip"}
    of_activations, dropout = (
        {"activations", "cancel_saturated"},
        {"input_dropout", "hidden_dropout"},
    )
    several |= {
        "open-float": of_weights | of_activations,
        "open-weights": of_activations,
        "open-activations": of_weights,
        "open-float-dropout": of_weights | of_activations | dropout,
        "open-weights-dropout": of_activations | dropout,
        "open-activations-dropout": of_weights | dropout,
        "open-both-dropout": dropout,
    }
    for kind in ("latent", "gradient"):
        for bits in (16, 12, 8, 6, 4, 2):
            several[f"open-{kind}-{bits}-stochastic"] = {f"{kind}_bits", "rounding"}
    for recipe in group[1:]:
        changed = differing(recipe, group[0]) - rate
        assert len(changed) == 1 or changed == several[recipe.name], recipe.name


def test_the_linear_classifier_is_one_layer_of_real_weights_on_the_pixels():
    for recipe, inputs in ((recipes.MNIST_LINEAR, 784), (recipes.CIFAR10_LINEAR, 3072)):
        network = build.build_network(recipe, seed=0)
        assert [tuple(p.shape) for p in network.parameters()] == [(10, inputs), (10,)]
        assert connections(recipe) == 10 * inputs
        x = torch.randint(0, 256, (3, *image_shape("mlp", recipe.side, recipe.channels)))
        weight, bias = network.parameters()
        expected = (2 * x.double().flatten(1) / 255 - 1) @ weight.double().t() + bias.double()
        torch.testing.assert_close(network(x.byte()).double(), expected, rtol=0, atol=1e-4)


def test_on_part_nothing_differs_but_the_data():
    for kind in (*KINDS, "theano-float"):
        part, whole = recipes.by_name(f"svhn-part-{kind}"), recipes.by_name(f"svhn-{kind}")
        assert part in recipes.SVHN_PART and differing(part, whole) == {"dataset"}
    assert len(recipes.SVHN_PART) == len(KINDS) + 1
    assert {recipe.dataset for recipe in recipes.SVHN_PART} == {"svhn-part"}


@pytest.mark.parametrize("profile", recipes.PROFILES)
def test_the_recipes_on_part_share_their_size_in_every_profile(profile):
    first, *others = (recipes.at_profile(recipe, profile) for recipe in recipes.SVHN_PART)
    for recipe in others:
        assert not differing(recipe, first) & {"hidden", "dense", "epochs", "train_images"}
    twin = recipes.at_profile(recipes.SVHN_PART_THEANO_FLOAT, profile)
    assert recipes.float_twin(first) == replace(twin, name=f"{first.name}-float")


def test_what_the_torch7_code_does_beyond_the_papers_words():
    shared = {"inputs", "initialization", "batch_norm", "optimizer", "scale_biases"}
    shared |= {"learning_rate"}
    beyond = {
        "mnist": {"scale_gammas", "halve_every"},
        "cifar10": {"multiplier", "clip"},
        "svhn": {"multiplier", "halve_every"},
    }
    for dataset, more in beyond.items():
        words = recipes.by_name(f"{dataset}-torch7")
        code = recipes.by_name(f"{dataset}-torch7-code")
        assert differing(words, code) == shared | more


def test_a_recipe_is_json_and_back():
    for recipe in RECIPES:
        read = json.loads(json.dumps(asdict(recipe)))
        again = recipes.Recipe(**read | {"hidden": tuple(read["hidden"])})
        assert repr(again) == repr(recipe)  # which tells a choice from its word


@pytest.mark.parametrize("profile", recipes.PROFILES)
def test_profiles_change_existing_fields_of_existing_recipes(profile):
    for name, changes in recipes.PROFILES[profile].items():
        assert recipes.at_profile(recipes.by_name(name), profile) == replace(
            recipes.by_name(name), **changes
        )
    assert all(recipes.at_profile(r, "paper") == r for r in RECIPES)


@pytest.mark.parametrize("profile", recipes.PROFILES)
def test_what_is_compared_shares_its_scale_in_every_profile(profile):
    cifar10 = (recipes.CIFAR10_THEANO, *recipes.CIFAR10_ABLATIONS)
    small = (recipes.GRADIENTS, recipes.SHIFT, recipes.OPEN_BITS, recipes.OPEN_REGULARIZERS)
    for group in (*small, cifar10):
        changes = [dict(recipes.PROFILES[profile].get(recipe.name, {})) for recipe in group]
        if profile == rates.PROFILE and group in (recipes.GRADIENTS, recipes.SHIFT):
            for recipe, change in zip(group, changes, strict=True):  # each has its own rate
                for name in sweeps.at_rate(recipe, 1.0):
                    change.pop(name, None)
        assert all(change == changes[0] for change in changes)
    for group in (recipes.GAPS_MNIST, recipes.GAPS_CIFAR10):
        first, *others = (recipes.at_profile(recipe, profile) for recipe in group)
        for recipe in others:
            scale = {"epochs", "train_images", "dense"} | (
                set() if recipe.name == "gaps-mnist-width" else {"hidden"}
            )
            assert not differing(recipe, first) & scale
    halved = recipes.by_name("gaps-mnist-width").hidden[0] * 2
    assert halved == recipes.by_name("gaps-mnist-baseline").hidden[0]


@pytest.mark.parametrize("profile", ["quick", "evening"])
def test_a_shortened_schedule_of_halvings_has_some_ten_stages(profile):
    for recipe in (recipes.at_profile(r, profile) for r in RECIPES):
        if recipe.halve_every and recipe.dataset != "svhn":
            assert 6 <= recipe.epochs / recipe.halve_every <= 10 + 1e-9, recipe.name


def test_the_recipe_table_has_a_source_for_every_field_of_the_papers_recipes():
    ours = {"train_images", "latent_bits", "gradient_bits", "rounding"}
    ours |= {"side", "channels", "classes", "filter_scale", "polynomial_gradient"}
    described = {f.name for f in fields(MNIST_THEANO)} - {"name", "dataset"} - ours
    sets = ("mnist", "cifar10", "svhn", "svhn-part")
    papers = {f"{data}-{kind}" for data in sets for kind in KINDS}
    assert recipes.CITATIONS.keys() == papers
    for name in papers:
        assert recipes.CITATIONS[name].keys() == described
        recipes.by_name(name)


@pytest.mark.parametrize("recipe", RECIPES, ids=lambda recipe: recipe.name)
def test_every_recipe_takes_a_step_at_smoke_size(recipe):
    recipe = recipes.at_profile(recipe, "smoke")
    network = build.build_network(recipe, seed=0)
    generator = torch.Generator().manual_seed(0)
    optimizer = build.build_optimizer(recipe, network, generator)
    shape = image_shape(recipe.network, recipe.side, recipe.channels)
    x = torch.randint(0, 256, (20, *shape), dtype=torch.uint8, generator=generator)
    before = [p.detach().clone() for p in network.parameters() if p.requires_grad]
    squared_hinge(network(x), torch.arange(20) % 10).backward()
    optimizer.step()
    after = [p.detach() for p in network.parameters() if p.requires_grad]
    assert all(p.isfinite().all() for p in after)
    moved = [not torch.equal(old, new) for old, new in zip(before, after, strict=True)]
    assert moved[0] and sum(moved) > len(moved) / 2
    assert network.eval()(x).isfinite().all()


@pytest.mark.parametrize(
    "change",
    [
        {"epochs": -1},
        {"epochs": 0},
        {"batch_size": 1},
        {"hidden": ()},
        {"hidden": (8, 0)},
        {"hidden": (), "network": "convnet", "activations": Binarization.NONE},
        {"learning_rate": 0.0},
        {"hidden_dropout": 1.0},
        {"network": "transformer"},
        {"dense": 5},
        {"train_images": -1},
        {"halve_every": 10.0},
        {"halve_every": 0.0, "final_learning_rate": 0.0},
        {"halve_every": -1.0, "final_learning_rate": 0.0},
        {"learning_rate": float("nan")},
        {"learning_rate": float("inf")},
        {"multiplier": Multiplier.GLOROT, "weights": Binarization.NONE},
        {"scale_biases": True, "multiplier": Multiplier.NONE},
        {"learning_rate": 2.0**-130, "optimizer": Rule.ADAMAX_CODED},
        {"learning_rate": 1e-3, "optimizer": Rule.ADAMAX_CODED, "final_learning_rate": 1e-40},
        {"learning_rate": 1e-3, "optimizer": Rule.ADAMAX_PRINTED},
        {"halve_every": 0.0, "optimizer": Rule.ADAMAX_PRINTED, "learning_rate": 2**-10},
        {"latent_bits": 17},
        {"latent_bits": 8, "clip": Clip.NOTHING},
        {"latent_bits": 8, "weights": Binarization.NONE, "multiplier": Multiplier.NONE},
        {"gradient_bits": 1},
        {"gradient_bits": 8, "weights": Binarization.NONE, "multiplier": Multiplier.NONE},
        {"rounding": Rounding.STOCHASTIC},
        {"filter_scale": True, "batch_norm": Normalization.SHIFT_CODED},
        {"filter_scale": True, "weights": Binarization.NONE, "multiplier": Multiplier.NONE},
        {"polynomial_gradient": True, "cancel_saturated": False},
        {"polynomial_gradient": True, "activations": Binarization.STOCHASTIC},
    ],
    ids=str,
)
def test_impossible_recipes_are_refused_by_name(change):
    with pytest.raises(ValueError, match=rf"mnist-theano: {next(iter(change))}"):
        replace(MNIST_THEANO, **change)


def test_an_unknown_choice_is_refused():
    with pytest.raises(ValueError, match="'adamw' is not a valid Rule"):
        replace(MNIST_THEANO, optimizer="adamw")


def test_a_batch_of_one_is_refused_where_it_is_normalized_alone():
    for batch_norm in Normalization:
        if batch_norm in (Normalization.NONE, Normalization.SCALE):
            assert replace(MNIST_THEANO, batch_norm=batch_norm, batch_size=1).batch_size == 1
        else:
            with pytest.raises(ValueError, match="batch_size must be above 1"):
                replace(MNIST_THEANO, batch_norm=batch_norm, batch_size=1)


def test_a_halving_schedule_may_not_leave_the_powers_of_two_of_float32():
    words = recipes.MNIST_TORCH7
    with pytest.raises(ValueError, match="learning_rate must round to powers of two"):
        replace(words, halve_every=5.0)
    assert replace(words, halve_every=10.0).epochs == 1000


def test_another_length_keeps_the_number_of_halvings():
    words = recipes.lasting(recipes.MNIST_TORCH7, 100)
    assert (words.epochs, words.halve_every) == (100, 1.0)
    theano = recipes.lasting(MNIST_THEANO, 100)
    assert theano == replace(MNIST_THEANO, epochs=100)
    assert recipes.lasting(MNIST_THEANO, 0) == MNIST_THEANO


def test_unknown_names_are_refused_with_the_choices():
    with pytest.raises(ValueError, match="smoke, quick, evening, paper"):
        recipes.at_profile(MNIST_THEANO, "fast")
    with pytest.raises(ValueError, match="mnist-theano, "):
        recipes.by_name("mnist")


def test_only_an_unaltered_recipe_is_named():
    quick = recipes.at_profile(MNIST_THEANO, "quick")
    assert recipes.is_named(quick, "quick")
    assert not recipes.is_named(replace(quick, epochs=3), "quick")
    assert not recipes.is_named(quick, "paper")
