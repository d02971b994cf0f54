"""Prints a hash of both gradients by look-up, of real numbers; for processes that compile anew."""

import hashlib

import torch

from bnnlib.kernels.cpu import sign_matmul

draw = torch.Generator().manual_seed(0)
digest = hashlib.sha256()
for size in ((7, 67), (2, 67, 5, 9)):  # dense and convolution: no size that anything divides
    x = torch.randint(2, size, generator=draw).to(torch.int8) * 2 - 1
    weight = torch.randn(70, 67, *[3, 3][: len(size) - 2], generator=draw)
    grad = torch.randn(size[0], 70, *size[2:], generator=draw)
    digest.update(sign_matmul.input_gradient(grad, weight).contiguous().numpy().tobytes())
    found = sign_matmul.weight_gradient(x, grad, weight, dropped=False)
    digest.update(found.contiguous().numpy().tobytes())
print(digest.hexdigest())
