"""Executed notebooks without what belongs to one machine or one moment."""

import json
import re
import sys
from pathlib import Path

import nbformat
from nbconvert.preprocessors import CoalesceStreamsPreprocessor

from study import ROOT

WIDGET = "application/vnd.jupyter.widget-view+json"


def scrub(
    notebook: nbformat.NotebookNode, seconds: float, peak_memory: float
) -> nbformat.NotebookNode:
    """Take out what belongs to one machine or one moment; leave how long it took and its memory."""
    CoalesceStreamsPreprocessor(enabled=True)(notebook, {})  # a log is one output, not one a line
    metadata = {k: v for k, v in notebook.metadata.items() if k in ("kernelspec", "language_info")}
    cost = {"seconds": round(seconds, 1), "peak_memory_gb": round(peak_memory, 2)}
    notebook.metadata = nbformat.from_dict(metadata | {"execution": cost})
    for cell in notebook.cells:
        kept = {k: v for k, v in cell.metadata.items() if k in ("alt", "tags")}
        cell.metadata = nbformat.from_dict(kept)
        for output in cell.get("outputs", []):
            output.get("data", {}).pop(WIDGET, None)  # its id is random, and its kernel is gone
    text = nbformat.writes(notebook)
    for path, name in _machine_paths().items():
        text = text.replace(json.dumps(path, ensure_ascii=False)[1:-1], name)
    text = re.sub(r"/[^\s\"'\\]*/ipykernel_\d+/\d+\.py", "cell", text)  # IPython's name for a cell
    return nbformat.reads(text, as_version=4)


def _machine_paths() -> dict[str, str]:
    """Path of this machine -> what to say instead, the longest first."""
    paths = {str(Path.home()): "~", sys.base_prefix: "python", sys.prefix: "python", str(ROOT): "."}
    return {path: paths[path] for path in sorted(paths, key=len, reverse=True) if len(path) > 1}
