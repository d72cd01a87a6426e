"""Sphinx inventories of other projects, made from ``foreign_names.toml`` at each build."""

import tomllib
import zlib
from pathlib import Path
from typing import NamedTuple

FOREIGN_NAMES = Path(__file__).with_name("foreign_names.toml")


class ForeignName(NamedTuple):
    """A name of another project, its object type in Sphinx's Python domain, and its page below the project's url."""

    name: str
    kind: str
    page: str


class Project(NamedTuple):
    """Another project: the url of its documentation, and the names that are used here."""

    url: str
    names: list[ForeignName]


def read_projects(path: Path = FOREIGN_NAMES) -> dict[str, Project]:
    """Read the projects by name; ``tomllib`` refuses a name that stands twice in one table."""
    projects = {}
    for project, tables in tomllib.loads(path.read_text(encoding="utf-8")).items():
        url = tables.pop("url")
        names = [
            ForeignName(name, kind, page.replace("$", name))
            for kind, pages in tables.items()
            for name, page in pages.items()
        ]
        projects[project] = Project(url, names)
    return projects


def write_inventory(path: Path, project: str, names: list[ForeignName]) -> None:
    """Write an ``objects.inv`` of version 2: four lines of text, then the names, compressed with zlib."""
    header = f"# Sphinx inventory version 2\n# Project: {project}\n# Version: \n"
    header += "# The remainder of this file is compressed using zlib.\n"
    # "1" is the priority in searches, "-" says that a name is displayed as it is.
    lines = "".join(f"{name.name} py:{name.kind} 1 {name.page} -\n" for name in names)
    path.write_bytes(header.encode() + zlib.compress(lines.encode()))


def write_inventories(folder: Path) -> dict[str, tuple[str, str]]:
    """Write the inventory of each project into ``folder``; return the ``intersphinx_mapping`` to them."""
    folder.mkdir(parents=True, exist_ok=True)
    mapping = {}
    for name, project in read_projects().items():
        path = folder / f"{name}.inv"
        write_inventory(path, name, project.names)
        mapping[name] = (project.url, str(path))
    return mapping
