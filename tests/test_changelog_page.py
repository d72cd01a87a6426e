"""The page of the changelog: the forms of Markdown that ``CHANGELOG.md`` uses become reStructuredText."""

import sys
from pathlib import Path

import pytest
from docutils.core import publish_doctree
from docutils.nodes import reference, table, title

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT / "docs"))

from changelog_page import inline, to_rst  # noqa: E402


@pytest.mark.parametrize(
    ("markdown", "expected"),
    [
        ("plain text", "plain text"),
        ("`fit` and `X`: both", "``fit`` and ``X``: both"),
        ("`fit`s", "``fit``\\ s"),
        ("(`a`)", "(``a``)"),
        ("[SemVer](https://semver.org/).", "`SemVer <https://semver.org/>`__."),
        ("`[a](https://b.org)`", "``[a](https://b.org)``"),
    ],
)
def test_inline(markdown, expected):
    assert inline(markdown) == expected


def test_headings():
    assert to_rst("# A\n## [Unreleased]\n")[:6] == ["A", "=", "", "Unreleased", "----------", ""]


def test_table():
    lines = to_rst("| before | now |\n|---|---|\n| `a` | b |\n\nend")
    assert [line for line in lines if line] == [
        ".. list-table::", "   :header-rows: 1", "   * - before", "     - now", "   * - ``a``", "     - b", "end",
    ]  # fmt: skip


def test_the_changelog_is_read_without_a_message():
    text = (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")
    tree = publish_doctree("\n".join(to_rst(text)), settings_overrides={"halt_level": 2, "report_level": 2})
    titles = [node.astext() for node in tree.findall(title)]
    assert {"Changelog", "Unreleased", "Added"} <= set(titles)
    assert list(tree.findall(table))
    assert list(tree.findall(reference))
