"""The names of other projects that the documentation links to: all of them are used, and intersphinx reads them."""

import re
import subprocess
import sys
from pathlib import Path

import pytest
from sphinx.util.inventory import InventoryFile

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT / "docs"))

from inventories import FOREIGN_NAMES, read_projects, write_inventories  # noqa: E402

BUILT = {"_build", "auto_examples", "generated"}
PROJECTS = read_projects()
NAMES = [foreign for project in PROJECTS.values() for foreign in project.names]


@pytest.fixture(scope="module")
def sources() -> str:
    """Everything that Sphinx reads, and the comments around it."""
    pages = [page for page in (ROOT / "docs").rglob("*.rst") if not BUILT & {*page.parts}]
    files = [*pages, *(ROOT / "skdfb").rglob("*.py"), *(ROOT / "examples").rglob("*.py")]
    return "\n".join(file.read_text(encoding="utf-8") for file in files)


@pytest.mark.parametrize("project", PROJECTS)
def test_urls(project):
    url, names = PROJECTS[project]
    assert re.fullmatch(r"https://[\w./-]+/", url)
    assert names
    for foreign in names:
        assert foreign.name == project or foreign.name.startswith(f"{project}.")
        assert re.fullmatch(rf"[\w./-]+#{re.escape(foreign.name)}", foreign.page)


@pytest.mark.parametrize("foreign", NAMES, ids=[foreign.name for foreign in NAMES])
def test_each_name_is_used(sources, foreign):
    assert re.search(rf"(?<![\w.]){re.escape(foreign.name)}(?![\w.]*\w)", sources)


def test_no_name_stands_twice():
    names = [foreign.name for foreign in NAMES]
    assert len(set(names)) == len(names)


def test_names_are_in_order():
    text = FOREIGN_NAMES.read_text(encoding="utf-8")
    for table in re.split(r"^\[", text, flags=re.MULTILINE)[1:]:
        names = re.findall(r'^"(.+?)" =', table, flags=re.MULTILINE)
        assert names == sorted(names)


def test_a_name_that_stands_twice_in_a_table_is_refused(tmp_path):
    path = tmp_path / "names.toml"
    table = '[p]\nurl = "https://p.org/"\n[p.class]\n"p.A" = "a.html#$"\n"p.A" = "b.html#$"\n'
    path.write_text(table, encoding="utf-8")
    with pytest.raises(ValueError, match="Cannot overwrite a value"):
        read_projects(path)


def test_intersphinx_reads_the_inventories(tmp_path):
    mapping = write_inventories(tmp_path / "inventories")
    assert mapping.keys() == PROJECTS.keys()
    for project, (url, path) in mapping.items():
        inventory = InventoryFile.loads(Path(path).read_bytes(), uri=url)
        found = {
            (name, kind.removeprefix("py:"), item.uri)
            for kind, items in inventory.data.items()
            for name, item in items.items()
        }
        assert found == {(name, kind, url + page) for name, kind, page in PROJECTS[project].names}


@pytest.mark.slow
def test_every_reference_of_the_documentation_resolves(tmp_path):
    """Without the gallery, which takes minutes; a network is not needed."""
    command = [sys.executable, "-m", "sphinx", "-W", "--keep-going", "-q", "-E", "docs", str(tmp_path / "html")]
    environment = {"PATH": "", "PYTHONPATH": str(ROOT), "SKDFB_DOCS_GALLERY": "0", "MPLBACKEND": "agg"}
    built = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
    assert built.returncode == 0, built.stderr
