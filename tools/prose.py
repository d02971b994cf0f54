"""Prose and tables of a page: Markdown as HTML, formulas as MathML, verdicts marked."""

import html
import re

from markupsafe import Markup
from nbconvert.filters.markdown_mistune import IPythonRenderer, MarkdownWithMath

from study.verdicts import VERDICTS
from tools.formulas import formula


class Prose(IPythonRenderer):
    """Markdown to HTML with formulas as MathML, and the headings it met."""

    def __init__(self, addresses: dict[str, str] | None = None):
        """addresses: notebook, such as "04_mnist" -> its page's, as seen from this one."""
        super().__init__(escape=False)
        self.addresses = addresses or {}
        self.headings: list[tuple[int, str, str]] = []  # level, id, text

    def block_math(self, body: str) -> str:
        return scrolling(formula(body, "block"))

    def inline_math(self, body: str) -> str:
        return formula(body, "inline")

    def latex_environment(self, name: str, body: str) -> str:
        return self.block_math(f"\\begin{{{name}}}{body}\\end{{{name}}}")

    def heading(self, text: str, level: int, **attributes) -> str:
        words = html.unescape(re.sub(r"<[^>]+>", "", text))
        slug = anchor(words)
        taken = [known for _, known, _ in self.headings]
        slug += f"-{len(taken)}" if slug in taken else ""
        self.headings.append((level, slug, words))
        return f'<h{level} id="{slug}">{text}</h{level}>\n'

    def text(self, text: str) -> str:
        return keep_units(super().text(text))

    def link(self, text: str, url: str, title: str | None = None) -> str:
        """A notebook's link leads to its page; where there is none, its text alone stands there."""
        if not (notebook := re.match(r"(\d\d_\w+)\.ipynb\b", url)):
            return super().link(text, url, title)
        address = self.addresses.get(notebook[1])
        return super().link(text, address + url[notebook.end() :], title) if address else text


def anchor(words: str) -> str:
    """The id of a heading with these words, the first of them on its page."""
    return re.sub(r"\W+", "-", words.lower()).strip("-")


def to_html(markdown: str, prose: Prose) -> Markup:
    """Markdown as HTML, its tables set as ours."""
    return with_tables(MarkdownWithMath(prose)(markdown))


def with_tables(fragment: str) -> Markup:
    """HTML with its tables set as ours."""
    fragment = re.sub(r"<style scoped>.*?</style>", "", fragment, flags=re.S)
    return with_code(re.sub(r"<table.*?</table>", _table, fragment, flags=re.S))


def with_code(fragment: str) -> Markup:
    """HTML whose code can be scrolled by keys: on a phone its lines don't wrap."""
    return Markup(re.sub(r'(<div class="highlight[^>]*>)<pre>', r'\1<pre tabindex="0">', fragment))


def _table(found: re.Match) -> str:
    """A table in a box that scrolls on its own; verdicts marked, numbers kept with their units."""
    table = keep_units(found[0]).replace("<th></th>", "<td></td>")  # a corner heads nothing
    verdict = f"<td>({'|'.join(VERDICTS)})</td>"
    return scrolling(re.sub(verdict, lambda match: f"<td>{chip(match[1])}</td>", table))


def keep_units(text: str) -> str:
    """Text in which no line breaks between a number and its unit, or within n = 3."""
    text = re.sub(r"(?<=\d) (?=[%×])", "\N{NO-BREAK SPACE}", text)
    return re.sub(r"\bn = (?=\d)", "n\N{NO-BREAK SPACE}=\N{NO-BREAK SPACE}", text)


def scrolling(content: str) -> str:
    """Put what may be wider than the page into a box that can be scrolled by keys too."""
    return f'<div class="scroll" tabindex="0">{content}</div>'


def chip(verdict: str, words: str = "") -> Markup:
    """A verdict as a marked and coloured word, or other words about it."""
    tone = re.sub(r"\W+", "-", verdict)
    return Markup('<span class="verdict {}">{}</span>').format(tone, words or verdict)
