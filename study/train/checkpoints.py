"""Checkpoints: a run's state on disk, so that an interrupted run goes on where it was.

Two generations lie beside the run's record, <device>-seed<k>.checkpoint and the one before it; both
go when the record is written. They are safetensors with JSON inside: nothing is ever unpickled.
"""

import hashlib
import json
import os
import time
from contextlib import suppress
from pathlib import Path

import safetensors
import safetensors.torch
import torch
from torch import Tensor
from tqdm import tqdm

from bnnlib import parallel
from bnnlib.files import atomic_write
from bnnlib.optim import Optimizer
from study.train.state import State

SCHEMA = 1
EVERY = 120  # seconds between two: what a kill costs at most, beside a start of a few seconds
SHARE = 0.02  # of the time, at most, goes into checkpoints: on slow disks they become rarer


class Keeper:
    """Writes a run's state where it belongs, seldom enough to cost no time that one would notice.

    path: None keeps nothing. binding: what a checkpoint must agree in with the run, as JSON.
    """

    def __init__(self, path: Path | None, binding: dict):
        self.path, self.binding = path, json.loads(json.dumps(binding))
        self.next = time.perf_counter() + EVERY
        self.told = False

    @property
    def name(self) -> str:
        return f"{self.binding['recipe']['name']} seed {self.binding['seed']}"

    def due(self) -> bool:
        """Whether it is time; of several processes it is for the first one alone to write."""
        mine = self.path is not None and parallel.rank() == 0
        return mine and time.perf_counter() >= self.next

    def keep(self, state: State) -> None:
        """Write the state; the first time, tell what that takes."""
        began = time.perf_counter()
        save(state, self.path, self.binding)
        ended = time.perf_counter()
        self.next = ended + max(EVERY, (ended - began) / SHARE)
        if self.told:
            return
        # A worker that was given up for lost, and makes the same run, may be replacing it just now:
        # then it has no name for a moment, and is told of next time.
        with suppress(FileNotFoundError):
            size = self.path.stat().st_size / 1e6
            tqdm.write(f"{self.name} can be interrupted now; this takes 2 x {size:.0f} MB of disk")
            self.told = True

    def resume(self, state: State) -> None:
        """Fill a run's state from its newest intact checkpoint; without one it stays as it is.

        Damaged ones go. Raises ValueError if the checkpoint belongs to another run, or holds what
        this one can't take: hours of work may be in it, so nothing but the reader's own hand
        removes it.
        """
        if self.path is None:
            return
        for path in generations(self.path):
            try:
                facts, tensors = read(path)
            except FileNotFoundError:
                continue
            except ValueError as damage:
                tqdm.write(f"{self.name}: {damage}; it is removed")
                path.unlink(missing_ok=True)  # another process of this run may have done so
                continue
            try:
                _require_own(path, facts["binding"], self.binding)
                restore(state, facts, tensors)
                where = f"epoch {state.epoch + 1} after {len(state.losses)} steps"
            except (LookupError, TypeError, AttributeError, RuntimeError) as misfit:
                reason = " ".join(str(misfit).split())
                raise ValueError(
                    f"{path.name} in {path.parent.name} does not fit its run ({reason}): go on "
                    "with it as it was, or remove it to train anew"
                ) from misfit
            tqdm.write(f"{self.name} goes on in {where}")
            return


def generations(path: Path) -> tuple[Path, Path]:
    """The current checkpoint and the previous one."""
    return path, path.with_name(f"{path.name}-previous")


def save(state: State, path: Path, binding: dict) -> None:
    """Write a checkpoint; the one that was there becomes the previous one."""
    tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in _tensors(state).items()}
    facts = json.dumps(_facts(state, binding), allow_nan=False)
    sealed = {"facts": facts, "digest": _digest(facts, tensors)}
    current, previous = generations(path)
    with atomic_write(current) as file:
        file.write(safetensors.torch.save(tensors, sealed))
        with suppress(FileNotFoundError):
            os.replace(current, previous)


def read(path: Path) -> tuple[dict, dict[str, Tensor]]:
    """A checkpoint's facts and tensors, checked against its digest.

    Raises ValueError if it is damaged or no checkpoint, FileNotFoundError if it isn't there.
    """
    try:
        with safetensors.safe_open(path, framework="pt") as file:
            sealed = file.metadata()
            tensors = {name: file.get_tensor(name).clone() for name in file.keys()}  # noqa: SIM118
        facts = json.loads(sealed["facts"])
        if facts["schema"] != SCHEMA or sealed["digest"] != _digest(sealed["facts"], tensors):
            raise ValueError("its digest does not match its content")
    except (safetensors.SafetensorError, KeyError, TypeError, ValueError, RecursionError) as error:
        raise ValueError(f"{path.name} in {path.parent.name} is damaged ({error})") from error
    return facts, tensors


def done(path: Path) -> tuple[int, int]:
    """(epochs, steps in the next one) done by the checkpoint there; (0, 0) without a right one."""
    for generation in generations(path):
        with suppress(FileNotFoundError, ValueError, LookupError, TypeError):
            facts, tensors = read(generation)
            return len(facts["history"]), len(tensors["losses"])
    return 0, 0


def threads(path: Path) -> int:
    """How many threads the checkpoint there was made on, and wants again; 0 without a right one."""
    for generation in generations(path):
        with suppress(OSError, ValueError, LookupError, TypeError):
            return read(generation)[0]["binding"]["threads"]
    return 0


def remove(path: Path) -> None:
    """The run has ended: its checkpoints go, and what a process killed in writing one left."""
    for left in path.parent.glob(f".{path.name}.*"):
        left.unlink(missing_ok=True)
    for generation in generations(path):
        generation.unlink(missing_ok=True)


def _require_own(path: Path, theirs: dict, ours: dict) -> None:
    differing = [name for name in ours if theirs.get(name) != ours[name]]
    if differing:
        shown = ("threads", "torch", "device", "device_name", "seed", "arithmetic")
        values = [
            f"{name} {theirs.get(name)}, now {ours[name]}" if name in shown else name
            for name in differing
        ]
        raise ValueError(
            f"{path.name} in {path.parent.name} belongs to a run that differs in "
            f"{'; '.join(values)}: go on with it as it was, or remove it to train anew"
        )


def _digest(facts: str, tensors: dict[str, Tensor]) -> str:
    """SHA-256 over everything a checkpoint holds: safetensors themselves have no checksum."""
    digest = hashlib.sha256(facts.encode())
    for name, tensor in sorted(tensors.items()):
        digest.update(f"\0{name} {tensor.dtype} {list(tensor.shape)}\0".encode())
        digest.update(tensor.numpy().reshape(-1))
    return digest.hexdigest()


def _facts(state: State, binding: dict) -> dict:
    """Everything of a state but its tensors, as JSON."""
    return {
        "schema": SCHEMA,
        "binding": binding,
        "history": state.history,
        "seconds": time.perf_counter() - state.started,
        "groups": [_numbers(group) for group in state.optimizer.param_groups],
    }


def _numbers(entries: dict) -> dict:
    return {name: value for name, value in entries.items() if isinstance(value, int | float)}


def _tensors(state: State) -> dict[str, Tensor]:
    """Tensors of a state, by a name with their kind in front."""
    tensors = {"order": state.order, "shuffle": state.shuffle.get_state()}
    tensors["noise"] = state.noise.get_state()
    tensors["losses"] = torch.stack(state.losses) if state.losses else torch.empty(0)
    named = {"network": state.network.state_dict(), "best": state.best, "signs": state.signs}
    for kind, group in named.items():
        tensors |= {f"{kind}/{name}": tensor for name, tensor in group.items()}
    for index, parameter in enumerate(state.optimizer.parameters()):
        moments = state.optimizer.moments.get(parameter, {})
        tensors |= {f"optimizer/{index}/{name}": moment for name, moment in moments.items()}
    return tensors


def restore(state: State, facts: dict, tensors: dict[str, Tensor]) -> None:
    """Make a run's first state the one that these were taken from.

    Values are copied into memory laid out as the run's own (channels last): where a value lies
    decides how sums are cut, and so their last bits.
    """
    kinds: dict[str, dict[str, Tensor]] = {"network": {}, "best": {}, "signs": {}, "optimizer": {}}
    for name, tensor in tensors.items():
        kind, _, rest = name.partition("/")
        if rest:
            kinds[kind][rest] = tensor
    state.network.load_state_dict(kinds["network"])
    ours = state.network.state_dict()
    state.best = {name: _as(ours[name], tensor) for name, tensor in kinds["best"].items()}
    state.signs = {name: _as(state.signs[name], tensor) for name, tensor in kinds["signs"].items()}
    _restore_optimizer(state.optimizer, facts, kinds["optimizer"])
    device = ours[next(iter(ours))].device
    state.order, state.losses = tensors["order"].to(device), list(tensors["losses"].to(device))
    state.shuffle.set_state(tensors["shuffle"])
    state.noise.set_state(tensors["noise"])
    state.history = facts["history"]
    state.started = time.perf_counter() - facts["seconds"]


def _restore_optimizer(optimizer: Optimizer, facts: dict, moments: dict[str, Tensor]) -> None:
    for group, numbers in zip(optimizer.param_groups, facts["groups"], strict=True):
        group.update(numbers)
    parameters = optimizer.parameters()
    for name, moment in moments.items():
        index, key = name.split("/")
        parameter = parameters[int(index)]
        optimizer.moments.setdefault(parameter, {})[key] = _as(parameter, moment)


def _as(like: Tensor, value: Tensor) -> Tensor:
    """The value, laid out in memory and on the device as `like` is."""
    return torch.empty_like(like, dtype=value.dtype).copy_(value)
