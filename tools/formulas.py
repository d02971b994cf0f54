"""Formulas that are readable offline: LaTeX as MathML."""

import html
import re

from latex2mathml.converter import convert as latex_to_mathml

# What latex2mathml leaves to the browser, which then sets it as if it stood between two things:
# the bars of |r|, the name in max(0, x), the sign in [-1, 1] or = -1.
SPACING = (
    (r'<mo(?: stretchy="false")?>(&#x0007C;)', r'<mo stretchy="false" lspace="0" rspace="0">\1'),
    (r"<mo>([A-Za-z]+)</mo>", r'<mo lspace="0" rspace="0">\1</mo>'),
    (
        r"(<mo[^>]*>(?!&#x00029;|&#x0007[CD];|\])[^<]*</mo>)<mo>(&#x02212;|&#x0002B;|&#x000B1;)</mo>",
        r'\1<mo form="prefix">\2</mo>',
    ),
)


def formula(latex: str, display: str) -> str:
    """LaTeX as MathML; as it stands, in a code element, if a part of it is not understood."""
    mathml = latex_to_mathml(latex.strip(), display=display)
    if re.search(r"\\[A-Za-z]|<mi>&</mi>", mathml):
        return f"<code>{html.escape(latex)}</code>"
    for pattern, better in SPACING:
        mathml = re.sub(pattern, better, mathml)
    return mathml
