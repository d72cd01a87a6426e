"""The check of the built documentation finds planted faults, and nothing on a site without faults."""

import importlib.util
import shutil
import sys
from pathlib import Path

import pytest
from PIL import Image

SCRIPT = Path(__file__).parents[1] / "docs" / "check_site.py"
SPECIFICATION = importlib.util.spec_from_file_location("check_site", SCRIPT)
check_site = importlib.util.module_from_spec(SPECIFICATION)
SPECIFICATION.loader.exec_module(check_site)

HEAD = """<!DOCTYPE html><html><head><meta charset="utf-8"><meta name="viewport" content="width=device-width">
<link rel="icon" href="data:,"><title>t</title>
<style>body {background: #fff}</style></head><body>"""
DARK = "<style>@media (prefers-color-scheme: dark) {body {background: #111; color: #eee} a {color: #8cf}}</style>"
FINE = f"""{HEAD}{DARK}<main><h1 id="top">Title</h1><a href="other.html#part">other</a> <a href="#top">up</a>
<a href="https://example.org/">elsewhere</a><img src="picture.png" alt="p" loading="lazy" style="margin-top: 4000px">
<pre style="overflow-x: auto">{"a long line " * 40}</pre></main></body></html>"""
OTHER = f"{HEAD}{DARK}<main><p id='part'>text</p><a href='./'>home</a></main></body></html>"
SEARCH = f"""{HEAD}{DARK}<main><div id="search-results"></div><script>
setTimeout(() => {{ document.getElementById("search-results").innerHTML =
  '<p class="search-summary">found 1 page</p><ul class="search"><li><a href="other.html?x#part">part</a></li></ul>';
}}, 20);</script></main></body></html>"""


@pytest.fixture
def site(tmp_path):
    folder = tmp_path / "site"
    folder.mkdir()
    Image.new("RGB", (8, 8)).save(folder / "picture.png")
    for name, content in (("index", FINE), ("other", OTHER), ("search", SEARCH)):
        (folder / f"{name}.html").write_text(content, encoding="utf-8")
    return folder


def planted(site, content):
    (site / "faulty.html").write_text(f"{HEAD}<main>{content}</main></body></html>", encoding="utf-8")
    return site


needs_browser = pytest.mark.skipif(
    importlib.util.find_spec("playwright") is None or not any(map(shutil.which, check_site.BROWSERS)),
    reason="playwright or Chromium is not installed",
)

ADDRESSES = [
    ('<a href="missing.html">x</a>', "faulty.html: missing.html: no such file"),
    ('<a href="other.html#nowhere">x</a>', "faulty.html: other.html#nowhere: no such anchor: nowhere"),
    ('<a href="#nowhere">x</a>', "faulty.html: #nowhere: no such anchor: nowhere"),
    ('<a href="../outside.txt">x</a>', "faulty.html: ../outside.txt: outside of the site"),
    ('<img src="missing.png">', "faulty.html: missing.png: no such file"),
    (
        '<script src="https://cdn.example.org/x.js"></script>',
        "faulty.html: leaves the site: https://cdn.example.org/x.js",
    ),
]
IN_THE_BROWSER = [
    ('<img src="text.png">', "faulty.html: picture text.png is not shown"),
    ('<script>fetch("https://example.org/x").catch(() => 0)</script>', "faulty.html: leaves the site: https://example.org/x"),
    ('<script>fetch("gone.json")</script>', "faulty.html: gone.json is not there (404)"),
    ("<script>undefined_name()</script>", "faulty.html: error of a script: undefined_name is not defined"),
    ('<div class="math">\\(x^2\\)</div>', "faulty.html: formula '\\\\(x^2\\\\)' is not drawn"),
    ('<p style="color: #777">faint</p>', "faulty.html: light theme: 'faint' has contrast 4.5, less than 4.5"),
    ('<p style="color: #0007">dim</p>', "faulty.html: light theme: 'dim' has contrast 3.5, less than 4.5"),
    (
        '<style>@media (prefers-color-scheme: dark) {.night {color: #ccc}}</style><p class="night">pale</p>',
        "faulty.html: dark theme: 'pale' has contrast 1.6, less than 4.5",
    ),
    (
        '<div id="wide" style="width: 600px">so wide</div>',
        "faulty.html: window of 390 pixels: 608 pixels in html with 390: div#wide \"so wide\"",
    ),
]  # fmt: skip


@pytest.mark.parametrize(("content", "finding"), ADDRESSES)
def test_addresses_that_lead_nowhere(site, content, finding):
    planted(site, content)
    assert list(check_site.check_addresses(site, check_site.read_pages(site))) == [finding]


def test_a_fine_site_has_no_dead_addresses(site):
    assert list(check_site.check_addresses(site, check_site.read_pages(site))) == []


@needs_browser
def test_a_fine_site_has_no_findings(site, capsys, tmp_path):
    pictures = tmp_path / "pictures"
    searches = {"part": ["other.html"], "unknown": ["no-page.html"]}
    assert check_site.main([str(site), "--screenshots", str(pictures)], searches) == 0
    printed = capsys.readouterr().out.splitlines()
    assert printed == [
        "not checked: the search for 'unknown', as there is no page no-page.html",
        "check_site: 0 findings",
    ]
    names = {f"index-{width}-{theme}.png" for width in (390, 1280) for theme in ("light", "dark")}
    assert {path.name for path in pictures.iterdir()} == names


@needs_browser
def test_planted_faults_are_found(site, capsys):
    (site / "text.png").write_bytes(b"no picture")
    planted(site, "".join(content for content, _ in [*ADDRESSES, *IN_THE_BROWSER]))
    (site / "index.html").write_text(FINE.replace(DARK, ""), encoding="utf-8")
    assert check_site.main([str(site)], {"part": ["index.html"]}) == 1
    printed = capsys.readouterr().out.splitlines()
    for _, finding in [*ADDRESSES, *IN_THE_BROWSER]:
        assert finding in printed
    assert "search.html: the first result for 'part' is other.html: expected index.html" in printed
    assert "index.html: the background has brightness 1.00 in the dark theme" in printed
    assert not any(line.startswith("other.html") for line in printed)


@pytest.mark.parametrize(
    ("missing", "reason"), [("browser", "none of chromium"), ("playwright", "playwright is not installed")]
)
def test_without_a_browser_the_check_is_skipped(site, capsys, monkeypatch, missing, reason):
    if missing == "browser":
        pytest.importorskip("playwright")
        monkeypatch.setattr(check_site.shutil, "which", lambda name: None)
    else:
        monkeypatch.setitem(sys.modules, "playwright.sync_api", None)
    assert check_site.main([str(planted(site, "<a href='missing.html'>x</a>"))]) == 0
    assert f"check_site: skipped, {reason}" in capsys.readouterr().out


def test_a_site_that_is_not_built_is_an_error(tmp_path, capsys):
    with pytest.raises(SystemExit):
        check_site.main([str(tmp_path)])
    assert "build the documentation first" in capsys.readouterr().err
