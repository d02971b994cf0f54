"""Citations for each value of the paper's recipes, and a word where paper and code differ.

The paper: arXiv 1602.02830 and its NIPS version. py files are the authors' Theano code
(MatthieuCourbariaux/BinaryNet at d7d45ae), lua files their Torch7 code (itayhubara/BinaryNet at
c23b862).
"""

from dataclasses import dataclass


@dataclass(frozen=True)
class Citation:
    """Place of a recipe's value in the paper and in the authors' code; a word if they differ."""

    paper: str
    code: str
    note: str = ""


_NO_DENSE = Citation("-", "-", "the multilayer perceptron has no such layers")
_NO_DROPOUT = Citation("none", "none")

_THEANO = {
    "weights": Citation("Algorithm 1", "binary_net.py:22-43", "the last layer's weights too"),
    "activations": Citation("Algorithm 1", "binary_net.py:42", "all but the last layer's"),
    "cancel_saturated": Citation("eq. 4", "binary_net.py:22-43", "rounding behind a hard sigmoid"),
    "initialization": Citation("not given", "binary_net.py:103, 148", "biases 0"),
    "optimizer": Citation("Adam", "Lasagne's updates.py:613-624", "with its defaults"),
    "multiplier": Citation(
        "Algorithm 1", "binary_net.py:96-98, 138-142", "a factor above 1 on the finished Adam step"
    ),
    "scale_biases": Citation("no", "binary_net.py:181-196", "binary weights alone are scaled"),
    "scale_gammas": Citation("no", "binary_net.py:181-196", "binary weights alone are scaled"),
    "clip": Citation("Algorithm 1", "binary_net.py:193-194", "after every update"),
    "halve_every": Citation("-", "-", "exponential decay instead"),
}

_MNIST_THEANO = {
    **_THEANO,
    "inputs": Citation("no preprocessing", "mnist.py:100"),
    "network": Citation("multilayer perceptron", "mnist.py:128-170"),
    "hidden": Citation("3 hidden layers of 4096", "mnist.py:42-44"),
    "dense": _NO_DENSE,
    "batch_norm": Citation("batch normalization", "mnist.py:36-38", "eps 1e-4, average 0.1"),
    "input_dropout": Citation("dropout, no rate given", "mnist.py:52-54"),
    "hidden_dropout": Citation(
        "dropout, no rate given", "mnist.py:52-54", "behind the binarization: {0, ±2}"
    ),
    "batch_size": Citation("100", "mnist.py:32"),
    "epochs": Citation("1000", "mnist.py:48"),
    "learning_rate": Citation("not given", "mnist.py:77"),
    "final_learning_rate": Citation(
        "exponential decay", "mnist.py:77-81", "printed by step, coded by epoch"
    ),
}

_CIFAR10_THEANO = {
    **_THEANO,
    "inputs": Citation("no preprocessing", "cifar10.py:87"),
    "network": Citation("the ConvNet of BinaryConnect", "cifar10.py:117-297"),
    "hidden": Citation("as BinaryConnect", "cifar10.py:117-297", "two convolutions of each width"),
    "dense": Citation("as BinaryConnect", "cifar10.py:117-297", "two layers"),
    "batch_norm": Citation("batch normalization", "cifar10.py:36-38", "eps 1e-4, average 0.1"),
    "input_dropout": _NO_DROPOUT,
    "hidden_dropout": _NO_DROPOUT,
    "batch_size": Citation("50", "cifar10.py:33"),
    "epochs": Citation("500", "cifar10.py:61", "axis of Figure 1"),
    "learning_rate": Citation("not given", "cifar10.py:65"),
    "final_learning_rate": Citation(
        "exponential decay", "cifar10.py:65-69", "printed by step, coded by epoch"
    ),
}

_SVHN_THEANO = {
    **_CIFAR10_THEANO,
    "inputs": Citation("as CIFAR-10", "svhn.py:100"),
    "network": Citation("as CIFAR-10", "svhn.py:129-280"),
    "hidden": Citation("half of CIFAR-10's", "svhn.py:129-280", "two convolutions of each width"),
    "dense": Citation("as CIFAR-10", "svhn.py:129-280", "not halved"),
    "batch_norm": Citation("as CIFAR-10", "svhn.py:38-40", "eps 1e-4, average 0.1"),
    "batch_size": Citation("as CIFAR-10", "svhn.py:35"),
    "epochs": Citation("200", "svhn.py:63"),
    "learning_rate": Citation("not given", "svhn.py:67-71"),
    "final_learning_rate": Citation(
        "exponential decay", "svhn.py:67-71", "printed by step, coded by epoch"
    ),
}

# One table for the paper's words and for the code: what differs is which column a recipe follows.
_TORCH7 = {
    "activations": Citation(
        "deterministic, some experiments stochastic in training",
        "BinarizedNeurons.lua:15-20",
        "stochastic in training: stcNeurons; all but the last layer's",
    ),
    "cancel_saturated": Citation("eq. 4", "BinarizedNeurons.lua:24-28", "behind a HardTanh"),
    "batch_norm": Citation(
        "shift-based, NIPS Algorithm 3",
        "BatchNormalizationShiftPow2.lua",
        "printed without + beta; coded: an ordinary one behind the last layer",
    ),
    "input_dropout": _NO_DROPOUT,
    "hidden_dropout": _NO_DROPOUT,
    "optimizer": Citation(
        "shift-based AdaMax, NIPS Algorithm 2",
        "adaMax_binary_clip_shift.lua:33-71",
        "coded: betas are no powers of two, an epsilon, and v is stored rounded: it never decays",
    ),
    "final_learning_rate": Citation("-", "-", "halved by steps instead"),
}
_RATE = "AdaMax's default 2^-10"
_UNBOUNDED = "coded: until stopped"

_MNIST_TORCH7 = {
    **_TORCH7,
    "inputs": Citation("no preprocessing", "Data.lua:82, 184-197", "coded: standardized"),
    "network": Citation("multilayer perceptron", "MNIST_Model.lua"),
    "hidden": Citation("3 hidden layers of 2048", "MNIST_Model.lua:21"),
    "dense": _NO_DENSE,
    "weights": Citation("Algorithm 1", "Main_BinaryNet_MNIST.lua:27-28", "the last layer's too"),
    "initialization": Citation(
        "not given", "BinaryLinear.lua:29, 39-40", "coded: biases U(±1/√fan-in)"
    ),
    "multiplier": Citation("Algorithm 1", "MNIST_Model.lua:51-52"),
    "scale_biases": Citation("no", "MNIST_Model.lua:51-58", "coded: biases as their weights"),
    "scale_gammas": Citation("no", "MNIST_Model.lua:59-78", "coded: times √(n / 1.5)"),
    "clip": Citation("Algorithm 1", "adaMax_binary_clip_shift.lua:71"),
    "batch_size": Citation("100", "Main_BinaryNet_MNIST.lua:26"),
    "epochs": Citation("as Theano", "Main_BinaryNet_MNIST.lua:32", _UNBOUNDED),
    "learning_rate": Citation(_RATE, "Main_BinaryNet_MNIST.lua:22", "coded: 2^-6"),
    "halve_every": Citation("10 epochs", "Main_BinaryNet_MNIST.lua:326", "coded: 20 epochs"),
}

_CIFAR10_TORCH7 = {
    **_TORCH7,
    "inputs": Citation("no preprocessing", "Data.lua:58-60, 161-180", "coded: whitened, twice"),
    "network": Citation("the ConvNet of BinaryConnect", "Cifar10_Model.lua:33-78"),
    "hidden": Citation("as BinaryConnect", "Cifar10_Model.lua:33-78"),
    "dense": Citation("as BinaryConnect", "Cifar10_Model.lua:33-78"),
    "weights": Citation("Algorithm 1", "Main_BinaryNet_Cifar10.lua:28-29", "the last layer's too"),
    "initialization": Citation(
        "not given",
        "BinaryLinear.lua:29, 39-40",
        "coded: biases, and on a GPU convolutions, U(±1/√fan-in)",
    ),
    "multiplier": Citation(
        "Algorithm 1", "Cifar10_Model.lua:88-89, 141-142", "coded: rounded to a power of two"
    ),
    "scale_biases": Citation("no", "Cifar10_Model.lua:93-94", "coded: biases as their weights"),
    "scale_gammas": Citation("no", "Cifar10_Model.lua", "no"),
    "clip": Citation("Algorithm 1", "Cifar10_Model.lua:168", "coded: every parameter is clipped"),
    "batch_size": Citation("200", "Main_BinaryNet_Cifar10.lua:27"),
    "epochs": Citation("500", "Main_BinaryNet_Cifar10.lua:33", f"axis of Figure 1; {_UNBOUNDED}"),
    "learning_rate": Citation(_RATE, "Main_BinaryNet_Cifar10.lua:23", "coded: 2^-6"),
    "halve_every": Citation("50 epochs", "Main_BinaryNet_Cifar10.lua:312"),
}

_SVHN_TORCH7 = {
    **_CIFAR10_TORCH7,
    "inputs": Citation(
        "as CIFAR-10", "Data.lua:105-111, 181-197", "coded: contrast normalized, standardized"
    ),
    "network": Citation("as CIFAR-10", "SVHN_Model.lua"),
    "hidden": Citation("half of CIFAR-10's", "SVHN_Model.lua"),
    "dense": Citation("as CIFAR-10", "SVHN_Model.lua", "not halved"),
    "weights": Citation("as CIFAR-10", "Main_BinaryNet_SVHN.lua", "the last layer's too"),
    "multiplier": Citation(
        "Algorithm 1", "SVHN_Model.lua:92, 156", "coded: rounded to a power of two"
    ),
    "scale_biases": Citation("no", "SVHN_Model.lua", "coded: biases as their weights"),
    "scale_gammas": Citation("no", "SVHN_Model.lua", "no"),
    "clip": Citation("Algorithm 1", "adaMax_binary_clip_shift.lua:71", "weights alone"),
    "batch_size": Citation("as CIFAR-10", "Main_BinaryNet_SVHN.lua"),
    "epochs": Citation("200", "Main_BinaryNet_SVHN.lua", _UNBOUNDED),
    "learning_rate": Citation(_RATE, "Main_BinaryNet_SVHN.lua:22", "coded: 2^-7"),
    "halve_every": Citation("as CIFAR-10", "Main_BinaryNet_SVHN.lua:317", "coded: 20 epochs"),
}

CITATIONS: dict[str, dict[str, Citation]] = {
    "mnist-theano": _MNIST_THEANO,
    "mnist-torch7": _MNIST_TORCH7,
    "mnist-torch7-code": _MNIST_TORCH7,
    "cifar10-theano": _CIFAR10_THEANO,
    "cifar10-torch7": _CIFAR10_TORCH7,
    "cifar10-torch7-code": _CIFAR10_TORCH7,
    "svhn-theano": _SVHN_THEANO,
    "svhn-torch7": _SVHN_TORCH7,
    "svhn-torch7-code": _SVHN_TORCH7,
    "svhn-part-theano": _SVHN_THEANO,
    "svhn-part-torch7": _SVHN_TORCH7,
    "svhn-part-torch7-code": _SVHN_TORCH7,
}
