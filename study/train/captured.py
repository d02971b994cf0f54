"""A training step recorded once as a CUDA graph and replayed: its launches cost no Python.

One graph is one step of any recipe: rows of the epoch's order, forward, backward, update, and the
loss written to its place. All that changes from step to step lies in tensors of fixed places; the
host only replays, and copies an epoch's order and step sizes once. Before it is used, a captured
step is compared with the eager one on the device itself, and where it fails, runs go on without it.
"""

from collections.abc import Callable

import torch
from torch import Generator, Tensor, nn

from bnnlib import functional, models, parallel
from bnnlib.binarize import sign
from bnnlib.functional import InputValues
from study.data.training_data import Images
from study.recipes.recipe import Recipe
from study.train import eager
from study.train.state import State

WARM_UP = 3  # steps before recording: libraries allocate, choose and compile
COMPARED = 5  # steps beside the eager ones
FIRST_LOSS, LAST_LOSS = 1e-4, 1e-2  # how far losses may lie apart, relative, at both ends of these


class CudaGraph:
    """A function recorded as a CUDA graph; `replay` does again what it launched."""

    def __init__(self, call: Callable[[], None], noise: Generator):
        self.graph = torch.cuda.CUDAGraph()
        self.graph.register_generator_state(noise)
        with torch.cuda.graph(self.graph):
            call()

    def replay(self) -> None:
        self.graph.replay()

    @staticmethod
    def warm_up(call: Callable[[], None]) -> None:
        """Call on a side stream, as recording wants it."""
        stream = torch.cuda.Stream()
        stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(stream):
            for _ in range(WARM_UP):
                call()
        torch.cuda.current_stream().wait_stream(stream)


class Captured:
    """The steps of a run, from its state's network, optimizer and noise; replayed.

    graph: what records and replays; tests give one that only calls.
    """

    def __init__(self, state: State, recipe: Recipe, split: Images, graph: type = CudaGraph):
        self.state = state
        self.split = split
        self.batch = recipe.batch_size
        device, steps = split.images.device, len(split.images) // recipe.batch_size
        groups = len(state.optimizer.param_groups)
        self.order = torch.zeros(len(split.images), dtype=torch.int64, device=device)
        self.within = torch.arange(self.batch, device=device)
        self.cursor = torch.zeros(1, dtype=torch.int64, device=device)
        self.sizes = torch.zeros(groups, steps, device=device)
        self.losses = torch.zeros(steps, device=device)
        state.optimizer.allocate()
        state.network.train()
        before = snapshot(state)
        graph.warm_up(self.step)
        self._begin_again(before)
        self.graph = graph(self.step, state.noise)
        self._begin_again(before)

    def step(self) -> None:
        """One step, all on the device; the cursor then stands at the next one."""
        rows = self.order.index_select(0, self.cursor * self.batch + self.within)
        images = self.split.images.index_select(0, rows)
        labels = self.split.labels.index_select(0, rows)
        loss = eager.gradients(self.state.network, self.state.optimizer, images, labels)
        sizes = self.sizes.index_select(1, self.cursor).squeeze(1)
        self.state.optimizer.step(sizes)
        self.losses.index_copy_(0, self.cursor, loss.view(1))
        self.cursor.add_(1)

    def begin(self) -> None:
        """Take over the state's epoch: its order, its losses so far, the sizes of further steps."""
        done, optimizer = len(self.state.losses), self.state.optimizer
        self.order.copy_(self.state.order)
        if done:
            self.losses[:done] = torch.stack(self.state.losses)
        self.sizes[:, done:] = optimizer.step_sizes(len(self.losses) - done).to(self.sizes.device)
        self.cursor.fill_(done)
        self._refresh()

    def replay(self) -> None:
        """The next step, launched and not waited for."""
        self.graph.replay()

    def enter(self, done: int) -> None:
        """Make the state say that `done` steps of the epoch are done: losses and groups' t."""
        new = done - len(self.state.losses)
        self.state.losses = list(self.losses[:done].clone())
        for group in self.state.optimizer.param_groups:
            group["t"] += new

    def _begin_again(self, before: dict) -> None:
        restore(self.state, before)
        self._refresh()
        self.cursor.zero_()

    def _refresh(self) -> None:
        """The graph reads weights' signs where the last step left them: bring them up to date."""
        if self.state.optimizer.one_pass:
            self.state.optimizer.one_pass.refresh()


def snapshot(state: State) -> dict:
    """Copies of all tensors that a step changes, and of the noise."""
    moments, parameters = state.optimizer.moments, state.optimizer.parameters()
    tensors = [*state.network.state_dict().values()]
    tensors += [moments[p][name] for p in parameters if p in moments for name in "mv"]
    values = [tensor.clone() for tensor in tensors]
    return {"tensors": tensors, "values": values, "noise": state.noise.get_state()}


def restore(state: State, before: dict) -> None:
    """Put a snapshot's values back where they were; places stay."""
    with torch.no_grad():
        for tensor, value in zip(before["tensors"], before["values"], strict=True):
            tensor.copy_(value)
    state.noise.set_state(before["noise"])


def prepared(
    state: State, recipe: Recipe, split: Images, graph: type = CudaGraph
) -> tuple[Captured | None, str]:
    """(the captured step, "captured"), or (None, "eager: " and why) where a check failed.

    The state is as before: same values, same places, same noise.
    """
    if parallel.size() > 1:
        return None, "eager: several processes make this run"
    state.optimizer.allocate()  # so that the moments are in the snapshot
    before = snapshot(state)
    counts = [group["t"] for group in state.optimizer.param_groups]
    try:
        captured = Captured(state, recipe, split, graph)
        require_exact_sums(state.network, split.images[: recipe.batch_size])
        require_same_steps(captured)
        return captured, "captured"
    except Exception as error:  # whatever it is: the eager step is there
        return None, f"eager: {type(error).__name__}: {' '.join(str(error).split())}"
    finally:
        restore(state, before)
        state.network.train()
        for group, count in zip(state.optimizer.param_groups, counts, strict=True):
            group["t"] = count


def require_exact_sums(network: nn.Module, images: Tensor) -> None:
    """Raise ArithmeticError, naming a layer, unless hidden layers sum signs without loss.

    A library may choose an algorithm, such as Winograd's, whose sums of integers are none.
    """
    hooks = []

    def check(layer: nn.Module, inputs: tuple[Tensor], _) -> None:
        x, signs = inputs[0], sign(layer.signed_weight())
        if not torch.equal(functional.sums(x, signs).double(), exact_sums(x, signs)):
            raise ArithmeticError(f"layer {names[layer]} does not sum signs exactly")

    names = {layer: name for name, layer in models.binary_layers(network).items()}
    for layer in names:
        if layer.inputs is not InputValues.REAL:
            hooks.append(layer.register_forward_hook(check))
    try:
        with torch.no_grad():
            network(images)
    finally:
        for hook in hooks:
            hook.remove()


def exact_sums(x: Tensor, signs: Tensor) -> Tensor:
    """`functional.sums` in float64."""
    x, signs = x.double(), signs.double()
    if signs.dim() == 2:
        return nn.functional.linear(x, signs)
    return nn.functional.conv2d(x, signs, padding=1)


def require_same_steps(captured: Captured) -> None:
    """Raise ArithmeticError unless replayed steps train as the eager step does.

    A replay may add in another order, and what is rounded otherwise grows from step to step: losses
    may lie apart by FIRST_LOSS in the first step and by LAST_LOSS in the last.
    """
    state, steps = captured.state, min(COMPARED, len(captured.losses))
    before = snapshot(state)
    counts = [group["t"] for group in state.optimizer.param_groups]
    order, losses = state.order, state.losses
    state.order, state.losses = torch.arange(len(captured.order)).to(captured.order.device), []
    captured.begin()
    for _ in range(steps):
        captured.replay()
    replayed = captured.losses[:steps].tolist()
    restore(state, before)
    wanted = [_eager_step(captured, step) for step in range(steps)]
    state.order, state.losses = order, losses
    restore(state, before)
    for group, count in zip(state.optimizer.param_groups, counts, strict=True):
        group["t"] = count
    for step, (ours, theirs) in enumerate(zip(replayed, wanted, strict=True)):
        allowed = FIRST_LOSS if step == 0 else LAST_LOSS
        if not abs(ours - theirs) <= allowed * abs(theirs):
            raise ArithmeticError(
                f"in step {step + 1} the captured loss is {ours}, the eager one {theirs}"
            )


def _eager_step(captured: Captured, step: int) -> float:
    rows = slice(step * captured.batch, (step + 1) * captured.batch)
    images, labels = captured.split.images[rows], captured.split.labels[rows]
    return eager.step(captured.state.network, captured.state.optimizer, images, labels).item()
