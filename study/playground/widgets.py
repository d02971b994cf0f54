"""Widgets in a notebook that is also read as a page, where nothing runs."""

import html

from IPython.display import display
from ipywidgets import DOMWidget


def show(widget: DOMWidget, otherwise: str) -> None:
    """Display a widget; wherever nothing runs it, such as on a page, a sentence in its place."""
    view = {"version_major": 2, "version_minor": 0, "model_id": widget.model_id}
    bundle = {
        "application/vnd.jupyter.widget-view+json": view,
        "text/html": f"<p>{html.escape(otherwise)}</p>",
        "text/plain": otherwise,
    }
    display(bundle, raw=True)
