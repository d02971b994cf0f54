"""Figures inside a page: drawn on its own ground, by day and by night.

Matplotlib writes colours for white paper. Ink, ground and grid become variables here, for which the
figure has two values of the page's own style sheet; a browser chooses, also inside an <img>.
"""

import base64
import re
from functools import cache
from pathlib import Path

from markupsafe import Markup

STYLE = Path(__file__).parent / "templates" / "style.css"
IMAGES = {"image/svg+xml": "svg+xml", "image/png": "png", "image/jpeg": "jpeg"}
# Matplotlib's and Seaborn's colours of what is no data -> the style sheet's name for the same
GROUND = {"#262626": "ink", "#000000": "ink", "#555555": "soft", "#666666": "soft"}
GROUND |= {"#ffffff": "paper", "#e4e4e4": "rule", "#e6e6e6": "rule", "#cccccc": "rule"}
# Colours of data that can't be seen at night -> the same, lighter
LIGHTER = {"#0173b2": "#3f9fdb", "#440154": "#a06bbd", "#443983": "#8279cc", "#414487": "#7f86d3"}
LIGHTER |= {"#31688e": "#5b93bd", "#2a788e": "#4f9db4"}
COLOUR = re.compile(r"(?<=[: ])#[0-9a-f]{6}\b")


def image(data: str, kind: str, alternative: str) -> Markup:
    """An image inside the page. As a data address: ids of several inline SVGs would collide."""
    is_drawn = kind == "image/svg+xml"
    encoded = base64.b64encode(both_ways(data).encode()).decode() if is_drawn else data.strip()
    address = f"data:image/{IMAGES[kind]};base64,{encoded}"
    drawn = Markup(' class="drawn"') if is_drawn else ""
    return Markup('<img{} src="{}" alt="{}">').format(drawn, address, alternative)


def both_ways(svg: str) -> str:
    """A figure without a ground of its own, in the page's colours by day and by night."""
    whole = r'(<g id="patch_1">\s*<path[^>]*style=")fill: #ffffff'
    svg = re.sub(whole, r"\1fill: none", svg, count=1)
    svg = re.sub(r"<metadata>.*?</metadata>", "", svg, count=1, flags=re.S)
    svg = re.sub(r"<!--.*?-->|(?<=>)\s+(?=<)", "", svg, flags=re.S)  # lighter by a few percent
    svg = COLOUR.sub(_named, svg)
    start = re.search(r"<svg\b[^>]*>", svg)
    return f"{svg[: start.end()]}<style>{_colours()}</style>{svg[start.end() :]}"


def _named(found: re.Match) -> str:
    name = GROUND.get(found[0], found[0][1:] if found[0] in LIGHTER else "")
    return f"var(--{_name(name)})" if name else found[0]


def _name(word: str) -> str:
    """A variable's name may not begin with a digit."""
    return f"c{word}" if f"#{word}" in LIGHTER else word


@cache
def _colours() -> str:
    """The variables' values. Print is by day."""
    day, night = re.findall(r":root \{\n(.*?)\}", STYLE.read_text("utf-8"), re.S)[:2]
    values = [dict(re.findall(r"--(\w+): (#\w{6});", block)) for block in (day, night)]
    names = dict.fromkeys(GROUND.values())
    data = [(_name(dark[1:]), dark, light) for dark, light in LIGHTER.items()]
    rules = [
        "".join(f"--{name}:{value[name]};" for name in names)
        + "".join(f"--{name}:{pair[place]};" for name, *pair in data)
        for place, value in enumerate(values)
    ]
    return (
        f"svg{{{rules[0]}fill:var(--ink)}}"
        f"@media screen and (prefers-color-scheme:dark){{svg{{{rules[1]}}}}}"
    )
