"""Pages, index and tables, from notebooks and metrics made by hand."""

import json
import re
import tomllib
from collections import Counter

import nbformat
import pytest
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook, new_output

from study import ROOT, claims
from study.page import made_on
from tools import answers, drawings, pages, prose, site, summary
from tools.files import with_part
from tools.run_notebooks import find

SVG = "<svg xmlns='http://www.w3.org/2000/svg' width='10' height='10'><rect id='a'/></svg>"
# What would make a browser load something: everything else stands in the page itself.
LOADED = re.compile(
    r"""<(?:link|iframe)\b|(?:src|poster)=["'](?!data:)|@import|url\((?!data:)|\b(?:fetch|import)\("""
)
INDEX_BYTES, PAGE_BYTES = 1_500_000, 2 * 2**20  # at most
COMMITTED = sorted((ROOT / "results").glob("[!l]*/[0-9][0-9]_*.html"))


def stream(text):
    return new_output("stream", name="stdout", text=text)


def shown(**data):
    return new_output("display_data", data={k.replace("_", "/"): v for k, v in data.items()})


def toy():
    """A notebook with one of everything that a page treats in its own way."""
    code, markdown = new_code_cell, new_markdown_cell
    figure = new_output("display_data", data={"image/svg+xml": SVG, "text/plain": "<Figure>"})
    return new_notebook(
        cells=[
            markdown("# 04 · Is $x^b$ enough?"),
            markdown("## Claim\n\nA price of `$5`, code `$x$`; see [05](05_cifar10.ipynb#claim)."),
            code("seeds = 3  # runs", metadata={"tags": ["parameters"]}),
            code("# Parameters\nseeds = 7\n", metadata={"tags": ["injected-parameters"]}),
            markdown(
                "## Method\n\n$$x^b = \\begin{cases} +1 & x \\ge 0 \\\\ -1 & x < 0 \\end{cases}$$"
            ),
            code("train()", outputs=[stream("".join(f"epoch {i}\n" for i in range(30)))]),
            code("print()", outputs=[stream("10 %\r90 %\rdone\n")]),
            code("plot()", outputs=[figure]),
            markdown("*Figure 4.1. Error by epoch & seed.*"),
            code("table()", outputs=[shown(text_html="<table><tr><td>not run</td></tr></table>")]),
            code("setup()", metadata={"tags": ["hide-input"]}),
            markdown("## Claim\n\nAgain, with $|r| \\le 1$."),
        ],
        metadata={"execution": {"seconds": 72.0, "peak_memory_gb": 0.5}},
    )


def entry(claim, mean, **changes):
    """A claim's part of a metrics file."""
    return {
        "id": claim,
        "values": [mean, mean],
        "mean": mean,
        "std": 0.05,
        "n": 2,
        "reference": [],
        "grade": "working networks",
        "verdict": "not at the paper's settings",
        "device": "cpu",
        "device_name": "A processor",
        "date": "2026-11-23",
        "stand_in": False,
        "records": [],
    } | changes


def publish(results, profile, notebook, *entries):
    """A page's metrics, figure and executed notebook, as a run leaves them."""
    figure = f"{profile}/figures/{notebook}-curve.svg"
    metrics = {
        "schema": 1,
        "notebook": notebook,
        "profile": profile,
        "sources": "0" * 64,
        "claims": list(entries),
        "findings": {},
        "records": [],
        "figures": [figure],
    }
    path = results / profile / "metrics" / f"{notebook}.json"
    for folder in (path.parent, (results / figure).parent):
        folder.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(metrics))
    (results / figure).write_text(SVG)
    nbformat.write(toy(), results / profile / f"{notebook}.ipynb")


@pytest.fixture
def html(tmp_path):
    """The page of the toy, with siblings before and after it."""
    folder = tmp_path / "quick"
    folder.mkdir()
    siblings = [folder / f"{name}.ipynb" for name in ("02_gradients", "04_mnist", "05_cifar10")]
    for path in siblings:
        nbformat.write(toy(), path)
    return pages.page(siblings[1], siblings)


def test_links_lead_to_pages_that_there_are(tmp_path):
    for name in ("evening/04_mnist", "quick/05_cifar10", "quick/04_mnist"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        nbformat.write(toy(), tmp_path / f"{name}.ipynb")
    site.build(tmp_path)
    linked = (tmp_path / "evening" / "04_mnist.html").read_text()
    assert 'href="../quick/05_cifar10.html#claim"' in linked
    (tmp_path / "quick" / "05_cifar10.ipynb").unlink()
    site.build(tmp_path)
    assert "05_cifar10.html" not in (tmp_path / "evening" / "04_mnist.html").read_text()


def test_page_loads_nothing(html):
    assert not LOADED.search(html)
    for loading in ('<img src="https://example.org/a.png">', '<script src="a.js">', "fetch(a)"):
        assert LOADED.search(loading)


def test_formulas_are_mathml_and_code_keeps_its_dollars(html):
    assert html.count("<math") == 3 and "\\begin" not in html
    assert "<code>$5</code>" in html and "<code>$x$</code>" in html


def test_contents_have_distinct_working_anchors(html):
    targets = re.findall(r'<li class="level-2"><a href="#([^"]+)"', html)
    assert targets == ["claim", "method", "claim-3"] * 2  # beside the text, and folded above it
    assert all(f'id="{target}"' in html for target in targets)


def test_navigation_leads_to_neighbours_and_index(html):
    for target in (
        "02_gradients.html",
        "../index.html",
        "05_cifar10.html",
        "05_cifar10.html#claim",
    ):
        assert f'href="{target}"' in html


def test_long_logs_and_plotting_code_are_folded(html):
    assert "<summary>Log, 30 lines</summary>" in html
    assert "<pre>done</pre>" in html
    assert html.count("<summary>Code of this figure</summary>") == 1
    assert html.count("<summary>Code</summary>") == 1
    assert "<summary>The parameters&#39; defaults</summary>" in html
    assert "Parameters\n" not in html


def test_figure_is_inside_the_page_and_described_by_its_caption(html):
    assert 'src="data:image/svg+xml;base64,' in html
    assert 'alt="Figure 4.1. Error by epoch &amp; seed."' in html
    assert "<rect id=" not in html


def figure_then(*below, **metadata):
    """A notebook whose first cell draws, with cells below it."""
    drawn = shown(image_png="AAAA")
    return new_notebook(cells=[new_code_cell("plot()", outputs=[drawn], metadata=metadata), *below])


@pytest.mark.parametrize(
    ("notebook", "alternative"),
    [
        (
            figure_then(new_markdown_cell("*Figure 1.*\nSee [04](04_mnist.ipynb).")),
            "Figure 1. See 04.",
        ),
        (
            figure_then(new_code_cell("finish()"), new_markdown_cell("Figure 2. Late.")),
            "Figure 2. Late.",
        ),
        (figure_then(new_markdown_cell("Figure 3."), alt="What it shows."), "What it shows."),
        (figure_then(new_markdown_cell("Not a caption.")), ""),
        (figure_then(*figure_then(new_markdown_cell("Figure 4. Of the next.")).cells), ""),
        (figure_then(), ""),
    ],
)
def test_a_figure_is_told_by_its_own_words_or_by_its_caption(notebook, alternative):
    assert f'alt="{alternative}"' in pages.first_figure(notebook)


def test_without_a_figure_there_is_no_picture():
    assert pages.first_figure(new_notebook(cells=[new_markdown_cell("# 00 · Words")])) == ""


def test_a_finding_stands_above_its_caption_without_the_code_that_computes_it():
    finding = new_code_cell(
        "report.conclude(f'{share} %')", outputs=[shown(text_markdown="It is 5 % **here**.")]
    )
    below = new_markdown_cell("**Figure 1.1.** What is drawn.")
    pieces = pages.blocks(figure_then(finding, below), prose.Prose())
    assert [piece.kind for piece in pieces] == ["code", "figure", "finding", "caption"]
    assert "5\u00a0% <strong>here</strong>" in pieces[2].body
    assert 'alt="Figure 1.1. What is drawn."' in pieces[1].body


def test_tables_scroll_in_their_own_box_and_verdicts_are_marked(html):
    assert '<div class="scroll" tabindex="0"><table>' in html
    assert '<span class="verdict not-run">not run</span>' in html


def test_numbers_stay_with_their_units_in_prose_and_tables():
    assert prose.keep_units("n = 3: 2.1 % or 3 ×") == "n\u00a0=\u00a03: 2.1\u00a0% or 3\u00a0×"
    assert "2.1\u00a0%" in prose.to_html("## At *2.1 %*", prose.Prose())
    assert "<code>n = 3</code>" in prose.to_html("`n = 3`", prose.Prose())


def test_the_committed_index_is_light():
    assert (ROOT / "results" / "index.html").stat().st_size <= INDEX_BYTES


@pytest.mark.parametrize("path", COMMITTED, ids=lambda path: f"{path.parent.name}/{path.stem}")
def test_a_committed_page_is_light(path):
    assert path.stat().st_size <= PAGE_BYTES


def test_footer_says_what_the_page_took(html):
    assert "1 min 12 s" in html and "0.5 GB" in " ".join(html.split())


def test_signs_and_bars_are_set_as_prefixes_only_where_they_are():
    assert prose.formula("[-1, 1]", "inline").count('form="prefix"') == 1
    assert 'form="prefix"' not in prose.formula("(a) - [b] + |c| - 1", "inline")
    assert prose.formula("|r| = -1", "inline").count('lspace="0"') == 2


def test_a_formula_that_is_not_understood_stays_readable():
    assert prose.formula(r"\nosuchmacro < x", "inline") == r"<code>\nosuchmacro &lt; x</code>"


@pytest.mark.parametrize("path", find(), ids=lambda path: path.stem)
def test_every_formula_of_the_notebooks_is_understood(path, monkeypatch):
    refused = []
    understood = prose.formula

    def watch(latex, display):
        result = understood(latex, display)
        if result.startswith("<code>"):
            refused.append(latex)
        return result

    monkeypatch.setattr(prose, "formula", watch)
    pages.blocks(nbformat.read(path, as_version=4), prose.Prose())
    assert refused == []


def readme(results):
    """The README's table."""
    return answers.readme_table(summary.rows(summary.load(results)), results)


def row(results, claim):
    return next(row for row in summary.rows(summary.load(results)) if row.claim.id == claim)


def test_the_most_faithful_profile_is_shown_and_smoke_never(tmp_path):
    publish(tmp_path, "smoke", "04_mnist", entry("mnist_theano", 50.0))
    assert row(tmp_path, "mnist_theano").verdict == "not run"
    publish(tmp_path, "quick", "04_mnist", entry("mnist_theano", 1.9))
    assert row(tmp_path, "mnist_theano").ours == "1.90 ± 0.05 %"
    publish(tmp_path, "paper", "04_mnist", entry("mnist_theano", 0.97, verdict="reproduced"))
    best = row(tmp_path, "mnist_theano")
    assert (best.ours, best.page, best.profile) == ("0.97 ± 0.05 %", "paper/04_mnist", "paper")


def test_stand_in_data_give_no_number(tmp_path):
    stand_in = entry("mnist_theano", 9.0, stand_in=True, verdict="stand-in data")
    publish(tmp_path, "paper", "04_mnist", stand_in)
    assert (row(tmp_path, "mnist_theano").ours, row(tmp_path, "mnist_theano").verdict) == (
        "",
        "stand-in data",
    )
    publish(tmp_path, "quick", "04_mnist", entry("mnist_theano", 1.9))
    assert row(tmp_path, "mnist_theano").profile == "quick"


def test_runs_of_another_profile_than_the_page_are_named_by_theirs(tmp_path):
    records = ["mnist-theano-first-epoch/paper/cpu-seed0"]
    found = entry("first_epoch_validation_error", 6.9, std=None, n=1, records=records)
    publish(tmp_path, "quick", "04_mnist", found)
    first_epoch = row(tmp_path, "first_epoch_validation_error")
    assert (first_epoch.profile, first_epoch.ours) == ("paper", "6.90 %")


def test_two_groups_are_shown_by_their_difference(tmp_path):
    publish(tmp_path, "quick", "02_gradients", entry("cancellation", 2.5, reference=[2.0, 2.2]))
    shown = row(tmp_path, "cancellation")
    # Two values each, of variances 0 and 0.02: standard error 0.1, one degree of freedom.
    assert (shown.ours, shown.interval) == ("+0.40 points", "95 % interval -0.87 to +1.67")
    assert shown.interval in site.index(tmp_path)
    assert "| +0.40 points (95 %: -0.87 to +1.67) |" in readme(tmp_path)


def test_a_withheld_value_is_none_and_gives_way_to_one(tmp_path):
    withheld = {"values": [], "std": None, "n": 0, "grade": "", "verdict": "lengths differ"}
    publish(tmp_path, "evening", "05_cifar10", entry("figure1_gap_theano", None, **withheld))
    shown = row(tmp_path, "figure1_gap_theano")
    assert (shown.ours, shown.verdict) == ("", "lengths differ")
    assert "lengths differ" in summary.as_text([shown], [shown])
    publish(tmp_path, "quick", "05_cifar10", entry("figure1_gap_theano", 1.9))
    assert row(tmp_path, "figure1_gap_theano").ours == "1.9 ± 0.1 points"


def test_every_value_stands_beside_its_grade_of_evidence(tmp_path):
    publish(tmp_path, "quick", "04_mnist", entry("mnist_theano", 1.9))
    assert "working networks, quick profile" in site.index(tmp_path)


def test_verdicts_of_two_kinds_are_never_added_up(tmp_path):
    reproduced = {"verdict": "reproduced", "grade": ""}
    names = ("mnist_theano", "swar", "energy", "same_accuracy")
    publish(tmp_path, "quick", "04_mnist", *(entry(name, 1.0, **reproduced) for name in names))
    rows = summary.rows(summary.load(tmp_path))
    lines = summary.tally(rows)
    kinds = ["training", "speed", "arithmetic", "exactness"]
    assert [line.split(",")[0] for line in lines] == kinds
    assert [re.findall(r"(\d+) reproduced", line) for line in lines] == [["1"], [], ["2"], ["1"]]
    html = site.index(tmp_path)
    assert "2 reproduced" in html and "4 reproduced" not in html
    metrics = json.loads((tmp_path / "quick" / "metrics" / "04_mnist.json").read_text())
    assert summary.of_page(metrics) == (
        "training: 1 reproduced; arithmetic: 2 reproduced; exactness: 1 reproduced"
    )


def test_every_machine_that_was_timed_has_its_value_and_its_verdict(tmp_path):
    slow = {"device_name": "A(R) processor (Zen 3)", "verdict": "not reproduced", "std": None}
    fast = {"device_name": "A processor (Zen 4)", "verdict": "reproduced", "std": None}
    times = [entry("mlp_speed", 7.4, **fast), entry("mlp_speed", 2.4, **slow)]
    publish(tmp_path, "quick", "09_kernels", *times, entry("xnor_over_cublas", 5.0, **fast))
    shown = row(tmp_path, "mlp_speed")
    assert [machine.ours for machine in shown.machines] == ["7.4 ×", "2.4 ×"]
    assert shown.judged == "reproduced on 1 of 2 machines, not reproduced on 1 of 2 machines"
    assert summary.tally([shown]) == ["speed, 1 claims: 1 differs by machine"]
    assert row(tmp_path, "xnor_over_cublas").judged == "reproduced"
    for name in ("Zen 3", "Zen 4", "7.4", "2.4", "reproduced on 1 of 2 machines"):
        assert name in site.index(tmp_path), name
    new = fast | {"device_name": "A processor (Zen 5)"}
    values = ((4, new), (5, fast), (2, slow))
    named = [entry("xnor_over_cublas", value, **kind) for value, kind in values]
    publish(tmp_path, "quick", "09_kernels", *named)
    told = "4.0 × (Zen 5), 5.0 × (Zen 4) and 2.0 × (Zen 3) | reproduced on 2 of 3"
    assert told in readme(tmp_path)


def test_a_page_names_the_processor_s_generation_where_it_was_recorded():
    made = {"provenance": {"device_name": "AMD EPYC"}}
    told = [made | {"processor": {"model": model}} for model in ("znver3", "znver4", "later")]
    named = "AMD EPYC, AMD EPYC (Zen 3), AMD EPYC (Zen 4), AMD EPYC (later)"
    assert made_on([made, *told]) == named


def test_a_page_names_a_machine_without_what_its_vendor_adds():
    trained = {"provenance": {"device_name": "Intel(R) Xeon(R) Processor @ 2.80GHz"}}
    assert made_on([trained]) == "Intel Xeon"


def test_index_shows_every_claim_once_and_loads_nothing(tmp_path):
    publish(tmp_path, "quick", "04_mnist", entry("mnist_theano", 1.9))
    site.build(tmp_path)
    html = (tmp_path / "index.html").read_text()
    assert not LOADED.search(html)
    assert html.count('<th scope="row">') == len(claims.load())
    assert "1.90 ± 0.05 %" in html and 'href="quick/04_mnist.html"' in html
    assert 'href="quick/metrics/04_mnist.json"' in html
    assert ">1 not at the paper&#39;s settings</span>" in html
    assert html.count('alt="Figure 4.1. Error by epoch &amp; seed."') == 1
    assert (tmp_path / "quick" / "04_mnist.html").exists()


def test_the_index_answers_its_questions_with_numbers_that_lead_to_their_verdicts(tmp_path):
    found = entry("mnist_theano", 0.97, verdict="reproduced", std=None, n=1)
    publish(tmp_path, "paper", "04_mnist", found)
    html = " ".join(site.index(tmp_path).split())
    assert "On MNIST the test error is 0.97 % (n = 1; the paper: 0.96 % after 1000 epochs)" in html
    assert "on CIFAR-10 not run (n = 0; the paper: 11.40 % after 500)" in html
    assert 'href="paper/04_mnist.html#verdict-mnist_theano"' in html
    assert "only 0.0 minutes at the paper's settings" in html


def test_a_page_begins_with_its_answer_and_its_verdicts_can_be_linked(tmp_path):
    publish(tmp_path, "quick", "04_mnist", entry("mnist_theano", 1.9, std=None, n=1))
    path = tmp_path / "quick" / "04_mnist.ipynb"
    notebook = nbformat.read(path, 4)
    notebook.cells[0].source += "\n\nIntroduction.\n\n<div data-answer></div>\n"
    said = claims.load()["mnist_theano"].statement
    row = f"<tr>\n<td>{said}</td>\n<td>not at the paper's settings</td>\n</tr>"
    table = shown(text_html=f"<table>{row}{row}</table>")
    notebook.cells.append(new_code_cell("show()", outputs=[table]))
    nbformat.write(notebook, path)
    html = pages.page(path, [path])
    assert "Test error by the Theano recipe: 1.90 % (n = 1), where the paper has 0.96 %" in html
    assert html.index("answer-box") < html.index("Introduction.") + 200
    assert html.count('<tr id="verdict-mnist_theano">') == 1
    assert 'href="#verdict-mnist_theano"' in html


def test_every_answer_names_claims_and_is_filled_for_an_empty_folder():
    pages_told = {path.stem for path in find()}
    with_answers = answers._sentences()["pages"].keys()
    assert {claim.notebook for claim in claims.load().values()} <= with_answers <= pages_told
    for name in with_answers:
        empty = {"notebook": name, "profile": "quick", "claims": [], "findings": {}}
        assert "{" not in answers.of_page(empty, ROOT / "results")


@pytest.mark.parametrize(
    "path",
    sorted((ROOT / "results").glob("[!l]*/metrics/*.json")),
    ids=lambda path: f"{path.parts[-3]}/{path.stem}",
)
def test_every_finding_that_an_answer_tells_is_published(path):
    sentence = answers._sentences()["pages"].get(path.stem, "")
    told = re.findall(r"\{f\[([^]]+)\]", sentence)
    assert told or "f[" not in sentence
    assert set(told) <= json.loads(path.read_text())["findings"].keys()


def test_a_figure_is_drawn_in_the_page_s_colours_by_day_and_by_night():
    drawn = drawings.both_ways(
        '<svg xmlns="a"><metadata>x</metadata><g id="patch_1"> <path d="M" style="fill: #ffffff"/>'
        '</g><path style="stroke: #262626"/><path style="fill: #ffffff; stroke: #de8f05"/></svg>'
    )
    assert 'style="fill: none"' in drawn and "metadata" not in drawn
    assert "stroke: var(--ink)" in drawn and "fill: var(--paper); stroke: #de8f05" in drawn
    day, night = drawn.split("@media screen and (prefers-color-scheme:dark)")
    assert "--ink:#23272d" in day and "--ink:#d6dade" in night


def test_frequent_questions_lead_to_headings_that_there_are(tmp_path):
    questions = tomllib.loads((pages.TEMPLATES / "faq.toml").read_text())["question"]
    assert len(questions) == 10
    for question in questions:
        [path] = [path for path in find() if path.stem == question["link"]]
        headings = re.findall(r"^#+ (.+)$", "\n".join(c.source for c in cells_of(path)), re.M)
        assert question["heading"] in headings, question["ask"]
        assert question["answer"].count(". ") == 1 and question["answer"].endswith("."), question
    publish(tmp_path, "quick", "04_mnist", entry("mnist_theano", 1.9))
    html = site.faq(tmp_path)
    assert not LOADED.search(html) and 'href="quick/04_mnist.html#the-network"' in html


def cells_of(path):
    return [c for c in nbformat.read(path, 4).cells if c.cell_type == "markdown"]


def test_index_of_an_empty_folder_says_that_nothing_was_run(tmp_path):
    theirs = sum(claim.origin != "ours" for claim in claims.load().values())
    html = " ".join(site.index(tmp_path).split())
    assert f"make {theirs} claims" in html and f"We added {len(claims.load()) - theirs} <a" in html
    kinds = Counter(claim.category for claim in claims.load().values() if claim.origin != "ours")
    for number in kinds.values():
        assert f'<dt><span class="verdict not-run">{number} not run</span></dt>' in html
    assert html.count("<dt><span") == len(kinds) and "None has been executed yet." in html


def test_the_answer_lists_the_paper_s_claims_by_verdict_and_leads_to_their_rows(tmp_path):
    publish(tmp_path, "paper", "04_mnist", entry("mnist_theano", 0.97, verdict="reproduced"))
    html = " ".join(site.index(tmp_path).split())
    answer = html[html.index("<dl") : html.rindex("</dl>")]
    assert re.findall(r"<dt><span[^>]*>(\d+ [a-z ]+)<", answer)[0] == "1 reproduced"
    assert set(re.findall(r'href="#(\w+)"', answer)) == {
        claim.id for claim in claims.load().values() if claim.origin != "ours"
    }
    assert '<tr id="mnist_theano" data-kind="training"' in html


def test_readme_block_is_replaced_and_a_second_time_changes_nothing(tmp_path):
    publish(tmp_path, "quick", "04_mnist", entry("mnist_theano", 1.9))
    table = readme(tmp_path)
    assert "(results/quick/04_mnist.ipynb) | 0.96 % after 1000 epochs | 1.90 ± 0.05 % |" in table
    assert "| Test error on SVHN | 2.80 % after 200 epochs | not run | not run |" in table
    text = "before\n<!-- results:begin -->\nold\n<!-- results:end -->\nafter\n"
    once = with_part(text, "results", table)
    assert once.startswith("before\n") and once.endswith("after\n") and "old" not in once
    assert with_part(once, "results", table) == once
    with pytest.raises(ValueError, match="results:begin"):
        with_part("no markers", "results", table)


def test_terminal_table_has_paper_committed_and_yours_in_its_width(tmp_path, monkeypatch):
    monkeypatch.setenv("COLUMNS", "90")
    publish(tmp_path / "theirs", "quick", "04_mnist", entry("mnist_theano", 1.9))
    publish(tmp_path / "mine", "quick", "04_mnist", entry("mnist_theano", 2.0))
    mine, theirs = (summary.rows(summary.load(tmp_path / name)) for name in ("mine", "theirs"))
    lines = summary.as_text(mine, theirs).splitlines()
    assert len(lines) == 2 and max(map(len, lines)) <= 90
    for word in ("0.96 %", "1.90 ± 0.05 % (quick)", "2.00 ± 0.05 % (quick)"):
        assert word in lines[1]
