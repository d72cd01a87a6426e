"""The directive ``changelog``, which shows ``CHANGELOG.md``: headings, lists, tables, code, bold text and links.

Sphinx reads no Markdown, and these few forms do not justify another dependency.
"""

import re
from pathlib import Path
from typing import Any

from docutils import nodes
from docutils.statemachine import StringList
from sphinx.util.docutils import SphinxDirective

UNDERLINES = {1: "=", 2: "-", 3: "~"}
LINK = r"\[([^\]]+)\]\((https?://[^)]+)\)"


def to_rst(markdown: str) -> list[str]:
    """Return the lines of a page in reStructuredText."""
    lines: list[str] = []
    table: list[list[str]] = []
    for line in [*markdown.splitlines(), ""]:
        if line.startswith("|"):
            table.append([cell.strip() for cell in re.split(r"(?<!\\)\|", line.strip("|"))])
            continue
        lines += as_table(table)
        table = []
        heading = re.fullmatch(r"(#{1,3}) (.+)", line)
        if heading:
            title = heading[2].strip("[]")
            lines += [title, UNDERLINES[len(heading[1])] * len(title), ""]
        else:
            lines.append(inline(line))
    return lines


def as_table(rows: list[list[str]]) -> list[str]:
    """Return a table of Markdown, whose second row divides the head from the rest, as a list-table."""
    if not rows:
        return []
    lines = ["", ".. list-table::", "   :header-rows: 1", ""]
    for row in [rows[0], *rows[2:]]:
        lines += [f"   {'* -' if i == 0 else '  -'} {inline(cell)}" for i, cell in enumerate(row)]
    return [*lines, ""]


def inline(text: str) -> str:
    """Return a line with code and links as reStructuredText has them. Text in code stays as it is."""
    # A backslash and a space end the code where a letter follows, as in `fit`s.
    pieces = re.split(r"(`[^`]+`)", text)
    pieces[::2] = [re.sub(LINK, r"`\1 <\2>`__", piece) for piece in pieces[::2]]
    pieces[1::2] = [f"`{piece}`\\ " for piece in pieces[1::2]]
    return re.sub(r"\\ (?=[\s.,;:!?)\]'\"-]|$)", "", "".join(pieces))


class Changelog(SphinxDirective):
    """Show a file of Markdown, given relative to the folder of the documentation."""

    required_arguments = 1

    def run(self) -> list[nodes.Node]:
        """Return the sections of the page."""
        path = Path(self.env.srcdir, self.arguments[0]).resolve()
        self.env.note_dependency(str(path))
        container: Any = nodes.Element()
        lines = to_rst(path.read_text(encoding="utf-8"))
        self.state.nested_parse(StringList(lines, str(path)), 0, container, match_titles=True)
        return list(container.children)


def setup(app: Any) -> dict[str, bool]:
    """Register the directive."""
    app.add_directive("changelog", Changelog)
    return {"parallel_read_safe": True}
