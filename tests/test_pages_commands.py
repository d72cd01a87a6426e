"""The commands of ``skdfb`` in the README and on every page of the documentation: each command and option exists."""

import re
import shlex

import pytest

from skdfb.cli import main
from tests.test_pages import PAGES, ROOT


def commands_of(page):
    """Return the words of each line of a shell block, or of code in a sentence, that runs skdfb."""
    text = (ROOT / page).read_text(encoding="utf-8").replace("\\\n", " ")
    lines = re.findall(r"^ *(skdfb [a-z].*)$", text, flags=re.MULTILINE) + re.findall(r"`(skdfb [a-z][^`]*)`", text)
    return [shlex.split(line, comments=True)[1:] for line in lines]


COMMANDS = [(page, words) for page in PAGES for words in commands_of(page)]


def test_the_commands_are_found():
    assert {words[0] for _, words in COMMANDS} >= {"fit", "score", "explain", "evaluate", "report", "info", "demo"}


@pytest.mark.parametrize(("page", "words"), COMMANDS, ids=lambda value: value if isinstance(value, str) else value[0])
def test_command(page, words, capsys):
    assert main([words[0], "--help"]) == 0, page
    known = set(re.findall(r"(?<![\w-])--?[a-z][a-z-]*", capsys.readouterr().out))
    assert {word for word in words if word.startswith("-")} <= known, page
