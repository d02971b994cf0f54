"""Model cards: what they say is what the file holds."""

import shlex
from dataclasses import replace

import pytest
import yaml

from bnnlib import cards
from bnnlib.binarize import Binarization
from bnnlib.export.__main__ import main
from bnnlib.network_file import save_network, trained_on
from study import recipes
from study.train.build import build_network, file_shape

SMALL = {"mlp": replace(recipes.MNIST_THEANO, hidden=(9, 8))}
SMALL["convnet"] = replace(recipes.CIFAR10_THEANO, hidden=(4, 5, 6), dense=7)


def written(tmp_path, recipe, trained=None):
    path = tmp_path / "a network.safetensors"
    path.write_bytes(save_network(build_network(recipe, 0), file_shape(recipe), trained))
    return path


def front_matter(card):
    _, matter, text = card.split("---\n", 2)
    return yaml.safe_load(matter), text


def test_the_front_matter_is_what_hugging_face_reads(tmp_path):
    trained = trained_on("mnist", "0123456789", 1.25, 10_000, "a-run/evening")
    card = cards.card(written(tmp_path, SMALL["mlp"], trained), licence="mit")
    matter, text = front_matter(card)
    assert matter["license"] == "mit" and matter["datasets"] == ["ylecun/mnist"]
    assert matter["pipeline_tag"] == "image-classification"
    (model,) = matter["model-index"]
    (result,) = model["results"]
    assert model["name"] == "a network" and result["dataset"]["type"] == "ylecun/mnist"
    assert result["metrics"][0]["value"] == 0.9875
    assert "1.25 %, n = 10000" in text and "by the run a-run/evening" in text
    weights = 784 * 9 + 9 * 8 + 8 * 10
    assert f"{weights:,}, a bit each" in text and "9, 8, 10" in text


@pytest.mark.parametrize("kind", SMALL)
def test_the_python_of_a_card_runs(kind, tmp_path, monkeypatch, capsys):
    card = cards.card(written(tmp_path, SMALL[kind]))
    code = card.split("```python\n")[1].split("```")[0]
    monkeypatch.chdir(tmp_path)
    exec(code, {})
    assert capsys.readouterr().out.startswith("tensor([")


@pytest.mark.parametrize("name", ["a network", 'the "best"', "it's", "x; y"])
def test_commands_and_code_of_a_card_take_its_name_to_the_letter(name, tmp_path, monkeypatch):
    written(tmp_path, SMALL["mlp"]).rename(tmp_path / f"{name}.safetensors")
    text = cards.card(tmp_path / f"{name}.safetensors")
    commands = [part for part in text.split("`") if part.startswith("python -m")]
    assert len(commands) == 3
    for command in commands:
        assert f"{name}.safetensors" in shlex.split(command)
    monkeypatch.chdir(tmp_path)
    exec(text.split("```python\n")[1].split("```")[0], {})


def test_what_the_file_does_not_say_is_unknown(tmp_path):
    matter, text = front_matter(cards.card(written(tmp_path, SMALL["mlp"])))
    assert "model-index" not in matter and "license" not in matter
    assert "What it was trained on is unknown" in text and "| not measured |" in text


def test_names_of_any_script_stay_yaml_and_a_table(tmp_path):
    names = ['a: "b"', "x | y", "鳥", "- z", *"efghij"]
    trained = trained_on('the folder "a: b"', names, 5.0, 20)
    matter, text = front_matter(cards.card(written(tmp_path, SMALL["mlp"], trained)))
    assert matter["model-index"][0]["results"][0]["dataset"]["name"] == 'the folder "a: b"'
    (line,) = [line for line in text.splitlines() if line.startswith("| classes")]
    assert line.count("|") == 3 and "鳥" in line


@pytest.mark.parametrize(
    ("kind", "changes", "said", "unsaid"),
    [
        ("mlp", {}, ["--c`", "--js`"], []),
        ("convnet", {}, ["--c`", "--onnx`"], ["--js`"]),
        ("mlp", {"side": 8}, ["--c`", "--onnx`"], ["--js`"]),
        (
            "mlp",
            {"activations": Binarization.NONE, "cancel_saturated": False},
            ["no form for C", "load_network"],
            ["packed.load", "--c`"],
        ),
    ],
)
def test_a_card_names_the_forms_that_its_network_takes(kind, changes, said, unsaid, tmp_path):
    card = cards.card(written(tmp_path, replace(SMALL[kind], **changes)))
    assert all(words in card for words in said)
    assert not any(words in card for words in unsaid)


@pytest.mark.parametrize("form", ["c", "js"])
def test_an_export_has_its_card_beside_it(form, tmp_path):
    target = tmp_path / f"out.{form}"
    model = str(written(tmp_path, SMALL["mlp"]))
    assert main([model, f"--{form}", "--output", str(target)]) == 0
    assert f"export as {cards.FORMS[form]}" in (tmp_path / f"out.{form}.md").read_text("utf-8")
