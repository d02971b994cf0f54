"""One executed notebook as an HTML page.

A page is one file that loads nothing: style, figures and scripts are inside, formulas are MathML.
"""

import json
import os
import re
from collections.abc import Iterable
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path

import jinja2
import nbformat
from markupsafe import Markup
from nbconvert.filters import strip_ansi
from nbformat import NotebookNode
from pygments import highlight
from pygments.formatters import HtmlFormatter
from pygments.lexers import PythonLexer

from tools import alive, answers, prose
from tools.drawings import IMAGES, image

TEMPLATES = Path(__file__).parent / "templates"
LONG_LOG = 12  # lines; a longer one is folded
ANSWER = '<div data-answer></div>'  # in a notebook, where its page has the answer
LISTING = re.compile(r"report\.show_source\([^()]*\)")
FINDING = re.compile(r"report\.conclude\(.*\)", re.S)
CAPTION = re.compile(r"[*_]*(Figure|Table) \d")


@dataclass
class Block:
    """One piece of a page, as the template lays it out."""

    kind: str  # "text", "caption", "finding", "code", "parameters", "output", "log" or "figure"
    body: Markup
    fold: str = ""  # what stands on the fold when the piece is folded away


def title(notebook: NotebookNode) -> str:
    """The notebook's first heading, as plain text."""
    for cell in notebook.cells:
        if cell.cell_type == "markdown" and (found := re.search(r"^# (.+)$", cell.source, re.M)):
            return found[1].strip()
    return "Untitled"


def blocks(notebook: NotebookNode, markdown: prose.Prose) -> list[Block]:
    """The page's pieces, in order."""
    pieces = []
    injected = any("injected-parameters" in _tags(cell) for cell in notebook.cells)
    for index, cell in enumerate(notebook.cells):
        if cell.cell_type == "markdown":
            kind = "caption" if CAPTION.match(cell.source) else "text"
            body = alive.insert(prose.to_html(cell.source, markdown))
            pieces.append(Block(kind, body))
        elif cell.cell_type == "code" and cell.source.strip():
            pieces += _code_cell(notebook, index, injected, markdown)
    return pieces


def _code_cell(
    notebook: NotebookNode, index: int, injected: bool, markdown: prose.Prose
) -> list[Block]:
    """A code cell and its outputs; without its source where the output says all there is."""
    cell, alternative = notebook.cells[index], _alternative(notebook, index)
    outputs = [_output(output, alternative, markdown) for output in cell.outputs]
    if LISTING.fullmatch(cell.source.strip()):
        return outputs
    if FINDING.fullmatch(cell.source.strip()):
        return [replace(output, kind="finding") for output in outputs]
    return [_source(cell, injected), *outputs]


def _tags(cell: NotebookNode) -> list[str]:
    return cell.metadata.get("tags", [])


def _source(cell: NotebookNode, injected: bool) -> Block:
    """A code cell's source; folded if it only draws, or holds parameters that were replaced."""
    tags, source = _tags(cell), cell.source
    if "injected-parameters" in tags:
        return Block("parameters", code(source.removeprefix("# Parameters\n")))
    if "parameters" in tags:
        return Block("parameters", code(source), "The parameters' defaults" if injected else "")
    fold = "Code of this figure" if _draws(cell) else "Code" if "hide-input" in tags else ""
    return Block("code", code(source), fold)


def code(source: str) -> Markup:
    """Python source, highlighted."""
    return prose.with_code(highlight(source, PythonLexer(), HtmlFormatter()))


def _draws(cell: NotebookNode) -> bool:
    """Whether a cell left an image."""
    return any(map(_image_kind, cell.get("outputs", ())))


def _image_kind(output: NotebookNode) -> str:
    """The kind of image that an output is; empty if it is none."""
    return next((kind for kind in IMAGES if kind in output.get("data", ())), "")


def _alternative(notebook: NotebookNode, index: int) -> str:
    """Text for those who can't see a cell's figure: its own, else the caption below.

    Between a figure and its caption there may be code that draws no other.
    """
    if own := notebook.cells[index].metadata.get("alt"):
        return own
    below = notebook.cells[index + 1 :]
    caption = next((cell for cell in below if cell.cell_type != "code" or _draws(cell)), None)
    if caption is None or not CAPTION.match(caption.source):
        return ""
    words = re.sub(r"\[([^]]*)\]\([^)]*\)", r"\1", caption.source.split("\n\n")[0])
    return " ".join(re.sub(r"[*_`$\\]", "", words).split())


def first_figure(notebook: NotebookNode) -> Markup:
    """The first image that a notebook shows; empty if there is none."""
    for index, cell in enumerate(notebook.cells):
        for output in cell.get("outputs", ()):
            if kind := _image_kind(output):
                return image(output.data[kind], kind, _alternative(notebook, index))
    return Markup("")


def _output(output: NotebookNode, alternative: str, markdown: prose.Prose) -> Block:
    """One output of a cell: a log, a figure, a table, text."""
    if output.output_type == "stream":
        return log(output.text)
    if output.output_type == "error":
        return log("\n".join(output.traceback))
    if kind := _image_kind(output):
        return Block("figure", image(output.data[kind], kind, alternative))
    if "text/html" in output.data:
        return Block("output", prose.with_tables(output.data["text/html"]))
    if "text/markdown" in output.data:
        return Block("output", prose.to_html(output.data["text/markdown"], markdown))
    return log(output.data.get("text/plain", ""))


def log(text: str) -> Block:
    """Printed text, as a terminal would leave it; a long one is folded away."""
    lines = [line.rstrip("\r").split("\r")[-1] for line in strip_ansi(text).strip("\n").split("\n")]
    fold = f"Log, {len(lines)} lines" if len(lines) > LONG_LOG else ""
    return Block("log", Markup("<pre>{}</pre>").format("\n".join(lines)), fold)


@cache
def _templates() -> jinja2.Environment:
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(TEMPLATES),
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
        undefined=jinja2.StrictUndefined,
    )
    environment.filters |= {"chip": prose.chip, "minutes": minutes}
    environment.globals["style"] = Markup((TEMPLATES / "style.css").read_text("utf-8"))
    return environment


def minutes(seconds: float) -> str:
    """A duration for reading."""
    whole = round(seconds)
    return f"{whole // 60} min {whole % 60} s" if whole >= 60 else f"{whole} s"


def render(template: str, **values) -> str:
    """A template of ours, filled."""
    return _templates().get_template(template).render(**values)


def _seen(notebook: Path, path: Path) -> str:
    """The address of a notebook's page, as seen from the page at another path."""
    return os.path.relpath(notebook.with_suffix(".html"), path.parent).replace(os.sep, "/")


def page(path: Path, siblings: list[Path], others: Iterable[Path] = ()) -> str:
    """The HTML of one executed notebook, <results>/<profile>/NN_name.ipynb.

    siblings: all of its profile, in order; others: of other profiles, to which links lead where the
    profile has none of that name. Previous and next are those that come before and after by number,
    at the most faithful profile that others name.
    """
    notebook = nbformat.read(path, as_version=4)
    linked = {each.stem: _seen(each, path) for each in (*others, *siblings)}
    steps = {each.stem: _seen(each, path) for each in (*siblings, *others)}
    markdown = prose.Prose(linked)
    body = blocks(notebook, markdown)
    order = sorted(steps)
    place = order.index(path.stem)
    file = path.parent / "metrics" / f"{path.stem}.json"
    metrics = json.loads(file.read_bytes()) if file.exists() else None
    answer = answers.of_page(metrics, path.parents[1])
    whole = render(
        "page.html.j2",
        title=title(notebook),
        name=path.stem,
        profile=path.parent.name,
        blocks=body,
        contents=[heading for heading in markdown.headings if heading[0] in (2, 3)],
        steps=steps,
        previous=order[place - 1] if place else "",
        next=order[place + 1] if place + 1 < len(order) else "",
        execution=notebook.metadata.get("execution", {}),
        metrics=metrics,
    )
    box = Markup('<p class="answer-box"><strong>Answer.</strong> {}</p>').format(answer)
    return answers.anchored(whole.replace(ANSWER, box if answer else ""))
