"""Prints whether one packed product equals the reference; for processes that compile it anew."""

import torch

from bnnlib import xnor
from bnnlib.kernels import reference

x, w = torch.randn(5, 100), torch.randn(7, 100)
found = xnor.xnor_matmul(xnor.pack_signs(x), xnor.pack_weights(w))
plain = reference.pack_weights(w)
print(torch.equal(found, reference.xnor_matmul(reference.pack_signs(x), plain, (7, 100), None)))
