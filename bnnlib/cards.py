"""Model cards: what a network file is, trained on what, how good, how to load it and its limits.

Markdown with the front matter that Hugging Face reads. All is read off the file; what it doesn't
say is said to be unknown.
"""

import json
import math
import shlex
from dataclasses import dataclass
from pathlib import Path

from torch import nn

from bnnlib.folding import reads_pixels
from bnnlib.layers import BinaryActivation, BinaryConv2d
from bnnlib.models import CLASSES, MLP_INPUTS, binary_layers
from bnnlib.network_file import About, about, load_network

HUB = {"mnist": "ylecun/mnist", "cifar10": "uoft-cs/cifar10", "svhn": "ufldl-stanford/svhn"}
FORMS = {"c": "a C99 file", "onnx": "an ONNX file", "js": "a script for web pages"}


@dataclass(frozen=True, eq=False)
class Model:
    """A network file, taken apart for its card."""

    name: str
    size: int  # bytes of the file
    network: nn.Sequential
    about: About

    @property
    def weights(self) -> int:
        return sum(layer.weight.numel() for layer in binary_layers(self.network).values())

    @property
    def is_packed(self) -> bool:
        """Whether it runs on bits: its activations are signs."""
        return any(isinstance(part, BinaryActivation) for part in self.network)

    @property
    def takes_pictures(self) -> bool:
        return self.is_packed and reads_pixels(self.network)

    @property
    def convolves(self) -> bool:
        layers = binary_layers(self.network).values()
        return any(isinstance(layer, BinaryConv2d) for layer in layers)

    @property
    def forms(self) -> list[str]:
        """The forms that it can be exported in."""
        if not self.takes_pictures:
            return []
        small = math.prod(self.about.shape) == MLP_INPUTS and len(self.about.labels) == CLASSES
        return ["c", "onnx"] + ["js"] * (small and not self.convolves)


def card(source: Path, exported: str = "", licence: str = "") -> str:
    """The card of a network file, or of what it was `exported` to: "c", "onnx" or "js".

    licence: of the weights, in Hugging Face's word; "": none is claimed. Raises ValueError for a
    damaged file, OSError where there is none.
    """
    told, size = about(source), source.stat().st_size
    model = Model(source.stem, size, load_network(source), told)
    parts = [_front_matter(model, licence), f"# {model.name}", _what(model, exported)]
    parts += ["## Numbers", _numbers(model), "## Load it", _loading(model), "## Limits"]
    return "\n\n".join([*parts, _limits(model)]) + "\n"


def _front_matter(model: Model, licence: str) -> str:
    """YAML; strings as JSON, which is YAML too."""
    told = model.about
    lines = [f"license: {licence}"] * bool(licence)
    lines += ["library_name: bnnlib", "pipeline_tag: image-classification"]
    lines += ["tags:", "- binarized-neural-network", "- 1-bit", "- image-classification"]
    if told.dataset in HUB:
        lines += ["datasets:", f"- {HUB[told.dataset]}"]
    if told.error is not None:
        named = json.dumps(told.dataset, ensure_ascii=False)
        kind = json.dumps(HUB.get(told.dataset, told.dataset), ensure_ascii=False)
        lines += ["metrics:", "- accuracy", "model-index:", f"- name: {json.dumps(model.name)}"]
        lines += ["  results:", "  - task:", "      type: image-classification"]
        lines += ["    dataset:", f"      name: {named}", f"      type: {kind}"]
        lines += [
            "    metrics:",
            "    - type: accuracy",
            f"      value: {1 - told.error / 100:.4f}",
        ]
        lines += [f"      name: accuracy on {told.tested} test images"]
    return "\n".join(["---", *lines, "---"])


def _what(model: Model, exported: str) -> str:
    told = model.about
    kind = "convolutional network" if model.convolves else "network of dense layers"
    signs = "weights and activations are" if model.is_packed else "weights are"
    shape = " x ".join(map(str, told.shape))
    sentences = [f"A {kind} whose {signs} +1 or -1, trained as binarized neural networks are."]
    sentences += [f"It reads images of {shape} and tells {len(told.labels)} classes apart."]
    trained = f"Trained on {told.dataset}" if told.dataset else "What it was trained on is unknown"
    sentences += [f"{trained}{f', by the run {told.record}' if told.record else ''}."]
    if exported:
        sentences.append(f"This is its export as {FORMS[exported]}.")
    return " ".join(sentences)


def _numbers(model: Model) -> str:
    told = model.about
    error = "not measured" if told.error is None else f"{told.error:.2f} %, n = {told.tested}"
    widths = ", ".join(str(len(layer.weight)) for layer in binary_layers(model.network).values())
    rows = [("test error", error), ("weights", f"{model.weights:,}, a bit each")]
    rows += [("units or filters, by layer", widths), ("network file", f"{model.size:,} bytes")]
    rows += [("classes", ", ".join(told.labels))]
    lines = [f"| {name} | {value.replace('|', '&#124;')} |" for name, value in rows]
    return "\n".join(["| | |", "|---|---|", *lines])


def _python(model: Model, file: str) -> str:
    """The lines of Python that load the network, as a block of code."""
    shape = ", ".join(map(str, model.about.shape))
    quoted = json.dumps(file, ensure_ascii=False)
    code = ["```python", "import torch"]
    if model.is_packed:
        dtype = "uint8" if model.takes_pictures else "float32"
        code += ["from bnnlib import packed", "", f"network = packed.load({quoted})  # on bits"]
        code += [f"images = torch.zeros(1, {shape}, dtype=torch.{dtype})"]
        code += ["print(packed.predict(network, images))", "```"]
    else:
        code += ["from bnnlib import network_file", ""]
        code += [f"network = network_file.load_network({quoted})", "```"]
    return "\n".join(code)


def _loading(model: Model) -> str:
    name = f"{model.name}.safetensors"
    file = shlex.quote(name)
    parts = ["In Python:", _python(model, name)]
    if model.takes_pictures:
        parts += [f"From a shell: `python -m bnnlib.classify {file} picture.png`."]
    if model.forms:
        parts += [
            "In C, without dependencies: `python -m bnnlib.export " + f"{file} --c` writes "
            f"`{model.name}.c`; compile it with `-DBNN_TEST` and it tries itself, or include "
            "it and call what its first comment names."
        ]
    if "js" in model.forms:
        parts += [
            f"In the browser: `python -m bnnlib.export {file} --js` writes a script with "
            "one constant; `engine.js` of the playground reads it: "
            "`readNetwork(decodeBase64(NETWORK))`."
        ]
    elif "onnx" in model.forms:
        parts += [f"In the browser, by ONNX Runtime: `python -m bnnlib.export {file} --onnx`."]
    else:
        parts += ["It has no form for C or the browser: it doesn't run on bits from pixels on."]
    return "\n\n".join(parts)


def _limits(model: Model) -> str:
    told = model.about
    lines = ["It always names one of its classes, also for what belongs to none of them."]
    if told.reads_digits:
        lines += [
            "It knows digits in MNIST's form alone, white on black and centred; "
            "`bnnlib.classify` brings pictures into it."
        ]
    elif model.takes_pictures:
        lines += ["Pictures are stretched to its size, whatever their proportions."]
    if not model.takes_pictures and model.is_packed:
        lines += ["It reads images normalized as in its training, not pixels."]
    lines += [
        "Its error was measured on images of the same origin as those that it was trained on; "
        "on others it is unknown."
    ]
    return "\n".join(f"- {line}" for line in lines)
