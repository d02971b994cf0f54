"""Trials that go wrong are noticed, each way in which they can."""

import ctypes
import os
import pickle
from pathlib import Path

import pytest
import trials
from mutations import Payload
from trials import Trials

OUTSIDE = Path(__file__).with_name("outside")


def writes_outside(number: int, folder: Path) -> str:
    if number:
        (folder / "link").symlink_to(OUTSIDE.parent)
        with pytest.raises(FileNotFoundError):  # the folder is not there, but it was tried
            (folder / "link" / "missing" / "file").open("w")
    return "done"


def makes_a_folder_outside(number: int, folder: Path) -> str:
    if number:
        os.mkdir(OUTSIDE)
        os.rmdir(OUTSIDE)
    return "done"


def unpickles(number: int, folder: Path) -> str:
    pickle.loads(pickle.dumps(Payload(str(folder / "made")))) if number else None
    return "done"


def takes_memory(number: int, folder: Path) -> str:
    return str(len(bytearray(number * 2 * trials.ROOM)))


def runs_a_program(number: int, folder: Path) -> str:
    os.system("true") if number else None
    return "done"


WRONG = {
    writes_outside: "for writing",
    makes_a_folder_outside: "os.mkdir",
    unpickles: "pickle.find_class",
    takes_memory: "MemoryError",
    runs_a_program: "os.system",
}


def test_what_is_forbidden_is_noticed_and_told(tmp_path):
    several = [Trials(trial.__name__, trial, 1) for trial in WRONG]
    with pytest.raises(pytest.fail.Exception) as failed:
        trials.run(several, tmp_path)
    told = str(failed.value)
    assert told.startswith(f"at least {len(WRONG)} went wrong")
    for trial, word in WRONG.items():
        assert f"{trial.__name__}: 1" in told and word in told, trial.__name__
    assert not OUTSIDE.exists()


def computes_for_ever(number: int, folder: Path) -> str:
    while number == 2:
        pass
    return "done"


def test_a_trial_that_does_not_end_is_ended_and_named(tmp_path, capfd):
    with pytest.raises(pytest.fail.Exception, match="for ever: 2 ended its process: SIGPROF"):
        trials.run([Trials("for ever", computes_for_ever, 3)], tmp_path, busy=1)
    assert "computes_for_ever" in capfd.readouterr().err  # where it was


def reads_behind(number: int, folder: Path) -> str:
    return _reads(number, end=True, offset=40)


def reads_before(number: int, folder: Path) -> str:
    return _reads(number, end=False, offset=-1)


def _reads(number: int, end: bool, offset: int) -> str:
    import torch  # only here: each trial's process would wait for it
    from guarded import guarded

    memory = guarded((5, 2), torch.float32, end)
    at = memory.data_ptr() + (offset if number else 0)
    return str(ctypes.string_at(at, 1))


@pytest.mark.parametrize("trial", [reads_behind, reads_before])
def test_a_byte_beyond_guarded_memory_ends_the_process(trial, tmp_path, capfd):
    with pytest.raises(pytest.fail.Exception, match="1 ended its process: SIGSEGV"):
        trials.run([Trials("reads", trial, 1)], tmp_path)


def test_what_goes_well_is_counted(tmp_path):
    found = trials.run([Trials("fine", computes_for_ever, 1)], tmp_path)
    assert trials.told(found["fine"]) == "1 done"


def test_parts_are_the_whole():
    parts = Trials("all", computes_for_ever, 25, first=3).parts(10)
    numbers = [number for part in parts for number in range(part.first, part.first + part.count)]
    assert numbers == list(range(3, 28)) and max(part.count for part in parts) == 10
