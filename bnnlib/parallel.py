"""One run on several processes: each takes its rows of every batch, and sums go over all of them.

`torchrun` starts the processes. All hold the same network, optimizer and generators and take the
same steps; what they share is sums: of the loss, the gradients and batch norm's statistics. With
one process nothing is shared, and every function here gives back what it was given.
"""

import hashlib
import os
from collections.abc import Iterable, Iterator
from contextlib import ExitStack, contextmanager, redirect_stderr, redirect_stdout

import torch
import torch.distributed as dist
from torch import Generator, Tensor

NO_BACKWARD = -1  # the number of the backward pass where there is none


@contextmanager
def joined(device: str) -> Iterator[None]:
    """A context in which this process is one of those that `torchrun` started; else no effect.

    They talk by NCCL on CUDA, else by gloo. Process 0 alone is heard on standard output and error.
    """
    if not dist.is_torchelastic_launched():
        yield
        return
    if device == "cuda":
        torch.cuda.set_device(int(os.environ["LOCAL_RANK"]))
    dist.init_process_group("nccl" if device == "cuda" else "gloo")
    try:
        with ExitStack() as stack:
            if rank() > 0:
                nowhere = stack.enter_context(open(os.devnull, "w"))
                stack.enter_context(redirect_stdout(nowhere))
                stack.enter_context(redirect_stderr(nowhere))
            yield
    finally:
        dist.destroy_process_group()


def size() -> int:
    """The number of processes that make this run."""
    return dist.get_world_size() if dist.is_initialized() else 1


def rank() -> int:
    """The number of this process, from 0; process 0 alone writes files."""
    return dist.get_rank() if dist.is_initialized() else 0


def rows(batch: Tensor) -> Tensor:
    """This process's share of a batch (B, ...): (B / size, ...). B must be a multiple of size."""
    return batch if size() == 1 else batch.chunk(size())[rank()]


def uniform(x: Tensor, noise: Generator | None) -> Tensor:
    """Uniform numbers in [0, 1) for x (B / size, ...), as large and of its type, on its device.

    They are this process's rows of the numbers drawn for the whole batch, so that all generators
    stay in step, and a number belongs to an image however many processes there are. Raises as
    `draw`.
    """
    return rows(draw((len(x) * size(), *x.shape[1:]), x, noise))


def draw(shape: tuple[int, ...], like: Tensor, noise: Generator | None) -> Tensor:
    """Uniform numbers in [0, 1) of a shape, of a tensor's type and on its device.

    noise: None is torch's own generator. Raises as `require_first_pass`.
    """
    require_first_pass(noise)
    return torch.rand(shape, generator=noise, device=like.device, dtype=like.dtype)


def require_first_pass(noise: Generator | None) -> None:
    """Raise RuntimeError if torch.utils.checkpoint recomputes a forward pass that drew from it.

    torch puts back the state of its own generator alone: from another one, new numbers would belong
    to another forward pass than the gradient.
    """
    torchs = (None, torch.default_generator, *torch.cuda.default_generators)
    if noise not in torchs and torch._C._current_graph_task_id() != NO_BACKWARD:
        raise RuntimeError(
            "a layer that draws from a generator of its own can't be recomputed by "
            "torch.utils.checkpoint, as it would draw other numbers: let it draw from "
            "torch.default_generator"
        )


def average_(tensors: Iterable[Tensor]) -> None:
    """Replace each tensor by its mean over the processes, in place.

    They fill stretches of memory, in any order of axes that is the same everywhere: each travels as
    a line, because NCCL refuses the order of latent weights.
    """
    if size() == 1:
        return
    lines = [tensor.as_strided((tensor.numel(),), (1,)) for tensor in tensors]
    for work in [dist.all_reduce(line, async_op=True) for line in lines]:
        work.wait()
    for line in lines:
        line.div_(size())


class Mean(torch.autograd.Function):
    """The autograd function behind `mean`."""

    @staticmethod
    def forward(ctx, x: Tensor) -> Tensor:
        out = x.clone()
        average_([out])
        return out

    @staticmethod
    def backward(ctx, grad: Tensor) -> Tensor:
        return Mean.forward(ctx, grad)


def mean(x: Tensor) -> Tensor:
    r"""The mean of x over the processes, any shape; the gradient, too, is a mean.

    Process $r$ goes backward from its own loss $L_r$, and the gradients of all are averaged in the
    end. With $m = \frac{1}{n} \sum x_r$ and $L = \frac{1}{n} \sum L_r$, what it must hand on is
    $n\, \partial L / \partial x_r = \partial L / \partial m = \frac{1}{n} \sum \partial L_r /
    \partial m$.
    """
    return x if size() == 1 else Mean.apply(x)


def _device() -> str:
    """The device on which numbers must lie to travel between processes."""
    return "cuda" if dist.get_backend() == "nccl" else "cpu"


def total(*numbers: float) -> list[float]:
    """Each number's sum over the processes, in float64."""
    if size() == 1:
        return list(numbers)
    sums = torch.tensor(numbers, dtype=torch.float64, device=_device())
    dist.all_reduce(sums)
    return sums.tolist()


def require_same(facts: dict[str, str]) -> None:
    """Raise ValueError, naming a process and a fact, unless all hold the same value of each fact.

    Every process raises it, so that none waits for another. facts: name -> value, of the same names
    everywhere.
    """
    if size() == 1:
        return
    digests = [list(hashlib.sha256(value.encode()).digest()) for value in facts.values()]
    ours = torch.tensor(digests, dtype=torch.uint8, device=_device())
    found = [torch.empty_like(ours) for _ in range(size())]
    dist.all_gather(found, ours)
    for other, theirs in enumerate(found):
        for place, name in enumerate(facts):
            if not torch.equal(theirs[place], found[0][place]):
                raise ValueError(f"process {other} differs from process 0 in {name}")


def wait_for_all() -> None:
    """Wait until all processes have come here."""
    if size() > 1:
        dist.barrier()


@contextmanager
def first_of_each_host_first() -> Iterator[None]:
    """A context that a host's first process leaves before its others enter it."""
    waits = int(os.environ.get("LOCAL_RANK", "0")) > 0
    if waits:
        wait_for_all()
    yield
    if not waits:
        wait_for_all()
