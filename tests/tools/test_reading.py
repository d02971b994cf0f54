"""How long pages take to read, and that none takes too long."""

import nbformat
import pytest
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook, new_output

from study import ROOT
from tools import reading
from tools.run_notebooks import find

LONGEST = 12  # minutes that a page may take
EXECUTED = sorted((ROOT / "results").glob("[!l]*/[0-9][0-9]_*.ipynb"))


def shown(**data):
    return [new_output("display_data", data={k.replace("_", "/"): v for k, v in data.items()})]


def read(tmp_path, *cells):
    path = tmp_path / "04_mnist.ipynb"
    nbformat.write(new_notebook(cells=list(cells)), path)
    return reading.reading(path)


def test_words_are_counted_where_they_stand_open(tmp_path):
    found = read(
        tmp_path,
        new_markdown_cell(
            "One two $x^2 + y$ four.\n\n<details><summary>Five</summary>\n\nsix\n\n</details>"
        ),
        new_markdown_cell("**Figure 4.1.** Of it."),
        new_code_cell("report.conclude(told)", outputs=shown(text_markdown="It is 3.5 % here.")),
        new_code_cell("report.tell(told)", outputs=shown(text_markdown="- told")),
        new_code_cell("report.show(table)", outputs=shown(text_html="<table><tr>no</tr></table>")),
        new_markdown_cell("## References\n\nA book."),
    )
    assert found.words == 4 + 4 + 4 + 1
    assert found.folded_words == 2


def test_code_is_counted_where_it_stands_open(tmp_path):
    figure = shown(image_png="AAAA")
    listing = shown(text_markdown="```python\na = 1\n```")
    found = read(
        tmp_path,
        new_code_cell("train()"),
        new_code_cell("report.show_source(f)", outputs=listing),
        new_code_cell("draw()", outputs=figure),
        new_code_cell("setup()", metadata={"tags": ["hide-input"]}),
    )
    assert (found.cells, found.folded_cells) == (2, 2)
    assert found.words == 0


def test_minutes_are_of_words_and_code():
    assert reading.Reading(460, 6, 1000, 100).minutes == pytest.approx(3)


@pytest.mark.parametrize("path", [*find(), *EXECUTED], ids=lambda p: f"{p.parent.name}/{p.stem}")
def test_no_page_takes_longer_to_read_than_is_meant(path):
    assert reading.reading(path).minutes <= LONGEST
