"""Sphinx configuration."""

import os
import sys
import warnings
from pathlib import Path
from typing import Any

import skdfb

sys.path.insert(0, str(Path(__file__).parent))
from inventories import write_inventories

os.environ.setdefault("MPLBACKEND", "agg")
# Matplotlib warns that the agg backend opens no window. The gallery saves its figures instead.
warnings.filterwarnings("ignore", message=".*FigureCanvasAgg is non-interactive.*")

project = "skdfb"
author = "The skdfb developers"
copyright = f"2026, {author}"
release = version = skdfb.__version__

extensions = [
    "numpydoc",
    "sphinx.ext.autodoc",
    "sphinx.ext.autosummary",
    "sphinx.ext.extlinks",
    "sphinx.ext.intersphinx",
    "sphinx.ext.mathjax",
    "sphinx_design",
    "changelog_page",
    "sphinx_gallery.gen_gallery",
    "sphinx-mathjax-offline",  # formulas without a network; after sphinx.ext.mathjax, whose address it sets
]
templates_path = ["_templates"]
exclude_patterns = ["_build", "auto_examples/*.md5", "auto_examples/*.py.md5"]
extlinks = {"arxiv": ("https://arxiv.org/abs/%s", "arXiv:%s")}

autosummary_generate = True
numpydoc_class_members_toctree = False
numpydoc_show_class_members = False
autodoc_typehints = "none"  # the Parameters sections have them

nitpicky = True  # a reference to a name that does not exist is an error

html_theme = "pydata_sphinx_theme"
html_theme_options = {"show_toc_level": 2, "navigation_with_keys": False}
# These pages have no pages below them, so there is nothing to list beside them.
SINGLE_PAGES = ("install", "tutorial", "choosing_a_scorer", "when_it_helps", "changelog", "citing", "contributing")
# These need the width for their tables and programs. The page above them lists them.
WIDE_PAGES = ("measured/photographs", "measured/random_weights", "auto_examples/*/*")
html_sidebars: dict[str, list[str]] = {page: [] for page in SINGLE_PAGES + WIDE_PAGES}
html_show_sourcelink = False
html_title = project  # with "0.1.0 documentation" the head of the page is too wide for a phone
html_static_path = ["_static"]
html_css_files = ["custom.css"]
html_search_scorer = str(Path(__file__).parent / "search_scorer.js")
toc_object_entries_show_parents = "hide"  # fit() and not DFBDetector.fit(): the column is narrow

sphinx_gallery_conf = {
    "examples_dirs": "../examples",
    "gallery_dirs": "auto_examples",
    "filename_pattern": r"\.py$",
    "subsection_order": "gallery_order.by_folder",
    "within_subsection_order": "gallery_order.by_name",
    "doc_module": "skdfb",  # pages of the reference list the examples that use them
    "backreferences_dir": "generated/backreferences",
    "abort_on_example_error": True,
    "download_all_examples": False,
    "show_memory": False,
    "parallel": 2,  # examples at a time
    "write_computation_times": False,  # its page loads scripts from other sites
    "plot_gallery": os.environ.get("SKDFB_DOCS_GALLERY", "1") == "1",
}


def link_to_projects(app: Any, config: Any) -> None:
    """Give intersphinx local inventories of the other projects: the build needs no network."""
    config.intersphinx_mapping = write_inventories(Path(app.doctreedir, "inventories"))


def resolve_short_name(app: Any, env: Any, node: Any, contnode: Any) -> Any:
    """Link ``skdfb.DFBDetector`` to its page, which has the name of its package: ``skdfb.detector.DFBDetector``."""
    package, _, rest = node.get("reftarget", "").partition(".")
    name, *members = rest.split(".")
    if node.get("refdomain") != "py" or package != "skdfb" or name not in skdfb.__all__:
        return None
    # Private modules define the names, packages document them: skdfb.detector._dfb is documented as skdfb.detector.
    package = ".".join(getattr(getattr(skdfb, name), "__module__", "").split(".")[:2])
    target = ".".join([package, name, *members])
    domain = env.domains.python_domain
    return domain.resolve_xref(env, node["refdoc"], app.builder, node["reftype"], target, node, contnode)


def setup(app: Any) -> None:
    """Connect what has to run during the build."""
    app.connect("config-inited", link_to_projects)  # before intersphinx checks its mapping
    app.connect("missing-reference", resolve_short_name)
