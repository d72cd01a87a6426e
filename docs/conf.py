"""Sphinx configuration."""

import os
import warnings

import skdfb

os.environ.setdefault("MPLBACKEND", "agg")
# Matplotlib tells that the agg backend shows nothing, which is as wanted here.
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
    "sphinx.ext.mathjax",
    "sphinx_gallery.gen_gallery",
]
templates_path = ["_templates"]
exclude_patterns = ["_build", "auto_examples/*.md5", "auto_examples/*.py.md5"]
extlinks = {"arxiv": ("https://arxiv.org/abs/%s", "arXiv:%s")}

autosummary_generate = True
numpydoc_class_members_toctree = False
numpydoc_show_class_members = False
autodoc_typehints = "none"  # the Parameters sections say it

html_theme = "pydata_sphinx_theme"
html_theme_options = {"show_toc_level": 2, "navigation_with_keys": False}
html_show_sourcelink = False

sphinx_gallery_conf = {
    "examples_dirs": "../examples",
    "gallery_dirs": "auto_examples",
    "filename_pattern": r"\.py$",
    "abort_on_example_error": True,
    "download_all_examples": False,
    "show_memory": False,
    "plot_gallery": os.environ.get("SKDFB_DOCS_GALLERY", "1") == "1",
}
