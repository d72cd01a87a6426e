"""HTML from Python, in which every text is escaped unless it was made here."""

import base64
import html
from typing import Any

__all__ = ["Html", "data_uri", "element", "joined", "table"]

_VOID = {"img", "meta", "source"}
_SPACES = "\n\u00a0"  # a new line, and a space that keeps a number beside its unit


class Html(str):
    """A text that is HTML already; any other text is escaped when it becomes part of a page."""


def element(name: str, /, *children: Any, **attributes: str | None) -> Html:
    """Return an element; ``class_`` is the attribute class, and an attribute that is None is left out."""
    given = {key.rstrip("_").replace("_", "-"): value for key, value in attributes.items() if value is not None}
    inside = "".join(f' {key}="{_escaped(value)}"' for key, value in given.items())
    return Html(f"<{name}{inside}>" if name in _VOID else f"<{name}{inside}>{joined(*children)}</{name}>")


def joined(*children: Any) -> Html:
    """Return children one after the other."""
    return Html("".join(child if isinstance(child, Html) else _escaped(child) for child in children))


def table(head: list[Any], rows: list[list[Any]]) -> Html:
    """Return a table whose first column names the rows; on a narrow page it scrolls on its own."""
    first = element("tr", *(element("th", cell, scope="col") for cell in head))
    others = [
        element("tr", element("th", cells[0], scope="row"), *(element("td", cell) for cell in cells[1:]))
        for cells in rows
    ]
    whole = element("table", element("thead", first), element("tbody", *others))
    return element("div", whole, class_="scroll", tabindex="0")


def data_uri(content: bytes, kind: str) -> str:
    """Return an image as a URL that holds it."""
    return f"data:image/{kind};base64,{base64.b64encode(content).decode()}"


def _escaped(value: Any) -> str:
    # Names of files may hold bytes that are no text, and characters that turn the direction of what follows.
    text = str(value).encode("utf-8", "backslashreplace").decode()
    return html.escape("".join(letter if letter.isprintable() or letter in _SPACES else "\ufffd" for letter in text))
