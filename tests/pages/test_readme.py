"""Code in README and docs runs as it stands there."""

import re

import torch

from study import ROOT


def test_the_code_for_your_own_network_trains_packs_and_runs_on_bits():
    text = (ROOT / "README.md").read_text("utf-8")
    [code] = re.findall(r"```python\n(.*?)```", text, re.S)
    assert len(code.splitlines()) <= 25
    torch.manual_seed(0)
    images = torch.randint(256, (50, 28, 28), dtype=torch.uint8)
    labels = torch.randint(10, (50,))
    names = {"batches": [(images, labels)] * 30}
    exec(code, names)  # noqa: S102
    assert torch.equal(names["scores"], names["on_bits"](images))
    assert torch.allclose(names["scores"], names["network"](images), atol=1e-4)
    right = (names["scores"].argmax(1) == labels).float().mean()
    assert right > 0.5  # it has learned its only batch, where chance reads one in ten


def test_torchrun_on_one_machine_asks_no_name_server():
    """Where none knows the machine's name, it would wait for minutes."""
    pages = [ROOT / "README.md", *(ROOT / "docs").glob("*.md")]
    lines = [line for page in pages for line in page.read_text("utf-8").splitlines()]
    alone = [line for line in lines if "torchrun --standalone" in line]
    assert alone and all("--local-addr 127.0.0.1" in line for line in alone)
