"""How long each page takes to read: `python -m tools.reading [results]` prints an estimate.

Counted are words of prose, captions and told findings at WORDS_A_MINUTE, a formula as one word, and
CELL_SECONDS for each piece of code that stands open. What is folded away is counted apart, as
nobody has to read it; tables of numbers, logs, figures and references are not counted.
"""

import re
import sys
from dataclasses import dataclass
from pathlib import Path

import nbformat

from study import ROOT
from tools import pages, prose
from tools.run_notebooks import find

WORDS_A_MINUTE, CELL_SECONDS = 230, 10
PROSE = ("text", "caption", "finding")
FOLDED = re.compile(r"<details.*?</details>", re.S)
REFERENCES = re.compile(r'<h2 id="references">.*', re.S)


@dataclass(frozen=True)
class Reading:
    """Words and pieces of code that a page puts before its reader, open and folded."""

    words: int
    cells: int
    folded_words: int
    folded_cells: int

    @property
    def minutes(self) -> float:
        """Minutes that it takes to read what stands open."""
        return self.words / WORDS_A_MINUTE + self.cells * CELL_SECONDS / 60


def reading(path: Path) -> Reading:
    """Count what a notebook, executed or not, asks of its reader."""
    blocks = pages.blocks(nbformat.read(path, as_version=4), prose.Prose())
    code = [block for block in blocks if block.kind in ("code", "parameters") or _listing(block)]
    told = [str(block.body) for block in blocks if block.kind in PROSE or _sentences(block)]
    open_text = [REFERENCES.sub("", FOLDED.sub("", body)) for body in told]
    folded = [part for body in told for part in FOLDED.findall(body)]
    return Reading(
        words=sum(map(_words, open_text)),
        cells=sum(not block.fold for block in code),
        folded_words=sum(map(_words, folded)),
        folded_cells=sum(bool(block.fold) for block in code),
    )


def _listing(block: pages.Block) -> bool:
    return block.kind == "output" and 'class="highlight' in block.body


def _sentences(block: pages.Block) -> bool:
    """Whether an output is told in words: neither a table nor a listing."""
    return block.kind == "output" and "<table" not in block.body and not _listing(block)


def _words(body: str) -> int:
    """Words of HTML; code among them counts as it stands, a formula once, scripts not at all."""
    text = re.sub(r"<(script|style)\b.*?</\1>", " ", body, flags=re.S)
    text = re.sub(r"<math.*?</math>", " formula ", text, flags=re.S)
    return len(re.findall(r"\w[\w.,'’/-]*", re.sub(r"<[^>]*>", " ", text)))


def table(paths: list[Path]) -> str:
    """A line for each notebook."""
    lines = [f"{'notebook':<32}{'words':>7}{'code':>6}{'minutes':>9}   folded: words, code"]
    for path in paths:
        found = reading(path)
        lines.append(
            f"{path.parent.name + '/' + path.stem:<32}{found.words:>7,}{found.cells:>6}"
            f"{found.minutes:>9.1f}   {found.folded_words:,}, {found.folded_cells}"
        )
    return "\n".join(lines)


def main(arguments: list[str]) -> int:
    folder = Path(arguments[0]) if arguments else ROOT / "results"
    executed = sorted(folder.glob("[!l]*/[0-9][0-9]_*.ipynb"))
    print(table(executed or find()))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
