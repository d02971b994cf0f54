"""Yardsticks for packed products and networks: every other way to compute the same.

Times nothing: `study.bench` does.
"""

from collections.abc import Callable
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from bnnlib import models, network_file, numerics
from bnnlib.folding import PIXEL, Block
from bnnlib.normalization import BatchNorm
from bnnlib.xnor import pack_signs
from study import recipes
from study.recipes.recipe import Recipe
from study.train import build, runs

MANY_ROWS = 16  # from here on the plain kernels, which make little of few, are timed


@dataclass(frozen=True)
class Product:
    """A way to multiply the signs x (M, K) by w (N, K), both given as float32, into (M, N)."""

    name: str
    output: str  # the type of the numbers
    left: Callable  # x -> what `multiply` reads, made outside of the time taken
    right: Callable  # w -> likewise
    multiply: Callable
    instructions: tuple[str, ...] = ()  # LLVM's names of what makes it quick, the quickest first


def _same(x: Tensor) -> Tensor:
    return x


def _bfloat16(x: Tensor) -> Tensor:
    return x.bfloat16()


def _int8(x: Tensor) -> Tensor:
    return x.to(torch.int8)


def _onednn_layout(w: Tensor) -> Tensor:
    """w in the order of memory that oneDNN prefers, as our weights have theirs."""
    return torch.ops.mkldnn._reorder_linear_weight(w, None)


def _onednn(x: Tensor, w: Tensor) -> Tensor:
    return torch.ops.mkldnn._linear_pointwise(x, w, None, "none", [], "")


def _tf32(x: Tensor, w: Tensor) -> Tensor:
    with numerics.tensor_cores():
        return F.linear(x, w)


def _int8_product(x: tuple[Tensor, int], w: tuple[Tensor, int]) -> Tensor:
    """Padded operands, each with its true number of rows or columns -> (M, N) int32."""
    return torch._int_mm(x[0], w[0])[: x[1], : w[1]]


DEFAULT = Product("torch float32", "float32", _same, _same, F.linear)  # on a CPU that is MKL's
NUMPY = Product("NumPy float32", "float32", Tensor.numpy, Tensor.numpy, lambda x, w: x @ w.T)
ONEDNN = Product("oneDNN float32", "float32", _same, _onednn_layout, _onednn)
TF32 = Product("torch TF32", "float32", _same, _same, _tf32)
BFLOAT16 = Product(
    "torch bfloat16", "bfloat16", _bfloat16, _bfloat16, F.linear, ("amx-bf16", "avx512bf16")
)
INT8 = Product(
    "torch int8",
    "int32",
    _int8,
    _int8,
    lambda x, w: torch._int_mm(x, w.t()),
    ("amx-int8", "avx512vnni", "avxvnni"),
)


LIBRARIES = tuple(product.name for product in (DEFAULT, NUMPY, ONEDNN))  # float32, on any device


def float32_products(device: str) -> list[Product]:
    """Every library's on this device; the first is torch's default."""
    if device == "cuda":
        return [DEFAULT]
    return [DEFAULT, NUMPY] + [ONEDNN] * torch.backends.mkldnn.is_available()


def narrow_products(device: str) -> list[Product]:
    """Products in fewer bits: TF32 on a GPU, bfloat16, and int8, the last."""
    if device == "cuda":  # never run so far
        from bnnlib.kernels.int8 import int8_columns, int8_rows

        # Zeros that the product wants are added outside of the time that is taken.
        rows = lambda x: (int8_rows(_int8(x)), len(x))  # noqa: E731
        columns = lambda w: (int8_columns(_int8(w)).t(), len(w))  # noqa: E731
        return [TF32, BFLOAT16, Product("torch int8", "int32", rows, columns, _int8_product)]
    return [BFLOAT16, INT8]


def plain_products(device: str) -> list[Product]:
    """The paper's plain kernel in float32, and on words; on a GPU that one is what `xnor` runs."""
    if device == "cuda":  # never run so far
        from bnnlib.kernels.gpu_naive import naive_matmul

        return [Product("plain float32", "float32", _same, _same, naive_matmul)]
    from study.bench.plain_kernels import multiply_float, multiply_words

    return [
        Product("plain float32", "float32", Tensor.numpy, Tensor.numpy, multiply_float),
        Product(
            "plain on words",
            "int32",
            lambda x: (pack_signs(x).numpy(), x.shape[1]),
            lambda w: pack_signs(w).numpy(),
            lambda x, w: multiply_words(x[0], w, x[1]),
        ),
    ]


@torch.no_grad()
def network_for(recipe: Recipe, profile: str) -> nn.Sequential:
    """The recipe's trained network, if there is one of full size, else random statistics."""
    for trained in ("paper", "evening"):  # an evening's training is shorter, its network is not
        file = runs.NETWORKS / f"{recipe.name}-{trained}.safetensors"
        if profile == "paper" and file.exists():
            return network_file.load_network(file)
    network = build.build_network(recipes.at_profile(recipe, profile), 0).eval()
    generator, layers = (
        torch.Generator().manual_seed(0),
        set(models.binary_layers(network).values()),
    )
    for part in network:
        if part in layers:
            scale = part.weight[0].numel() ** 0.5
        if isinstance(part, BatchNorm):
            part.mean.normal_(0, scale / 2, generator=generator)
            part.inv_std.fill_(1 / scale)
    return network


def float_network(
    blocks: list[Block], first: Product, others: Product
) -> Callable[[Tensor], Tensor]:
    """The network of these blocks as one writes it in PyTorch: uint8 images (B, ...) -> scores
    (B, 10) float32.

    The first layer is multiplied by one product, the other dense layers by another; convolutions
    are torch's, channels last. Pixels enter as the integers 2 p - 255, so that float32 sums are
    exact. Bias and normalization of a hidden layer are one call of torch's own normalization.
    """
    products = [first, *[others] * (len(blocks) - 1)]
    weights = [_weights(block, by) for block, by in zip(blocks, products, strict=True)]
    normalizations = [_normalization(block) for block in blocks[:-1]]

    def run(images: Tensor) -> Tensor:
        x = 2 * images.float() - PIXEL
        if x.dim() == 4:
            x = x.to(memory_format=torch.channels_last)
        for block, by, w, normalization in zip(
            blocks[:-1], products, weights, normalizations, strict=False
        ):
            sums = _sums(block, by, x, w)
            x = torch.where(_normalize(sums, *normalization) >= 0, 1.0, -1.0)
        return blocks[-1].real(_sums(blocks[-1], products[-1], x, weights[-1]))

    return run


def _weights(block: Block, by: Product):
    if block.signs.dim() == 4:
        return block.signs.to(memory_format=torch.channels_last)
    return by.right(block.signs.contiguous())


def _sums(block: Block, by: Product, x: Tensor, w) -> Tensor:
    if block.signs.dim() == 2:
        return torch.as_tensor(by.multiply(by.left(x.flatten(1)), w)).float()
    sums = F.conv2d(x, w, padding=1)
    return F.max_pool2d(sums, 2) if block.pooled else sums


def _normalize(sums: Tensor, mean: Tensor, variance: Tensor, gamma: Tensor, beta: Tensor) -> Tensor:
    """torch's batch normalization in evaluation mode, with eps = 0.

    `F.batch_norm` refuses eps = 0 in torch 2.11; what it calls does not.
    """
    return torch.batch_norm(sums, gamma, beta, mean, variance, False, 0.0, 0.0, True)


def _normalization(block: Block) -> tuple[Tensor, ...]:
    """(mean, variance, factor, shift) of the block's sums, its bias and divisor included."""
    norm, divisor = block.normalization, block.divisor
    factor = norm.gamma * norm.inv_std / divisor
    return divisor * norm.mean - divisor * block.bias, torch.ones_like(factor), factor, norm.beta
