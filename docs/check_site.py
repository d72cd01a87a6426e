"""Open the built documentation in a browser and report what is broken, one finding per line.

``python docs/check_site.py [SITE] [--screenshots DIR]`` looks, on every page, for links, anchors and pictures that lead
nowhere, for pages that are wider than a window of 1280 or 390 pixels, for text of low contrast in the light and in the
dark theme, for requests that leave the site, and for errors of scripts; it tries the search. The exit status is 1 if
there are findings. Without playwright or Chromium nothing is checked, and the exit status is 0.
"""

import argparse
import functools
import shutil
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from html.parser import HTMLParser
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

SITE = Path(__file__).parent / "_build" / "html"
WIDTHS = (1280, 390)
HEIGHT = 900
THEMES = ("light", "dark")
BROWSERS = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable", "chrome")
NO_PAGES = {"_static", "_sources", "_downloads", "_images"}  # folders without pages of their own
SEARCHES = {  # what is typed: pages of which one must come first
    "ViM": ["generated/skdfb.scorers.ViM.html"],
    "DFBDetector": ["generated/skdfb.detector.DFBDetector.html"],
    "folder": ["tutorial.html", "generated/skdfb.datasets.load_image_folder.html"],
}
PICTURED = (
    "index.html",
    "tutorial.html",
    "api.html",
    "measured/index.html",
    "generated/skdfb.detector.DFBDetector.html",
)
TIMEOUT = 20_000  # milliseconds
CONTRAST = 4.5  # the least of WCAG 2, level AA, for text of usual size

# All that the page still waits for: pictures that would load when scrolled to, fonts, formulas.
SETTLE = """async () => {
  const pictures = [...document.images];
  for (const picture of pictures) picture.loading = "eager";
  await Promise.all(pictures.map((picture) => picture.complete ? null : new Promise((done) => {
    picture.addEventListener("load", done);
    picture.addEventListener("error", done);
  })));
  await document.fonts.ready;
  if (window.MathJax?.startup?.promise) await window.MathJax.startup.promise;
}"""
BROKEN_PICTURES = """() => [...document.images].filter((picture) => picture.naturalWidth === 0)
  .map((picture) => picture.getAttribute("src"))"""
FORMULAS_NOT_DRAWN = """() => [...document.querySelectorAll("span.math, div.math")]
  .filter((formula) => !formula.querySelector("mjx-container, svg, math, img")).map((formula) => formula.textContent)"""
# Whether the page, or the column of its text, is wider than what shows of it, and what sticks out. Code, formulas and
# tables may scroll inside of boxes of their own.
TOO_WIDE = """() => {
  const outer = [document.scrollingElement, ...document.querySelectorAll("main, article, .bd-article-container")];
  const wide = outer.find((box) => box.scrollWidth > box.clientWidth + 1);
  if (!wide) return null;
  const scrolls = (element) => {
    for (let box = element.parentElement; box && !outer.includes(box) && box !== document.body; box = box.parentElement)
      if (getComputedStyle(box).overflowX !== "visible") return true;
    return false;
  };
  const edge = wide.getBoundingClientRect().left + wide.clientWidth;
  const outside = [...wide.querySelectorAll("*")].filter((element) => !outer.includes(element)
    && element.getBoundingClientRect().right > edge + 1 && !scrolls(element));
  const name = (element) => element.tagName.toLowerCase() + (element.id ? "#" + element.id : "")
    + [...element.classList].map((kind) => "." + kind).join("");
  const right = (element) => element.getBoundingClientRect().right;
  const first = outside.filter((element) => ![...element.children].some((child) => outside.includes(child)))
    .sort((one, other) => right(other) - right(one))[0];
  return [wide.scrollWidth, name(wide), wide.clientWidth,
    first ? `${name(first)} "${first.textContent.trim().replace(/\\s+/g, " ").slice(0, 40)}"` : "unknown element"];
}"""
# Texts whose contrast to the ground is too low, one per pair of colours. A ground with a picture is not judged,
# and neither are the diagrams of scikit-learn, which bring styles of their own.
LOW_CONTRAST = """(least) => {
  const parse = (colour) => { const parts = colour.match(/[\\d.]+/g).map(Number); return [...parts, 1].slice(0, 4); };
  const mix = (top, ground) => ground.map((value, i) => top[i] * top[3] + value * (1 - top[3]));
  const linear = (value) => value <= 10 ? value / 255 / 12.92 : ((value / 255 + 0.055) / 1.055) ** 2.4;
  const luminance = ([r, g, b]) => 0.2126 * linear(r) + 0.7152 * linear(g) + 0.0722 * linear(b);
  const groundOf = (element) => {
    const layers = [];
    for (let box = element; box; box = box.parentElement) {
      const style = getComputedStyle(box);
      if (style.backgroundImage !== "none") return null;
      layers.unshift(parse(style.backgroundColor));
      if (layers[0][3] === 1) break;
    }
    return layers.reduce((ground, layer) => mix(layer, ground), [255, 255, 255]);
  };
  const found = {};
  const texts = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
  while (texts.nextNode()) {
    const text = texts.currentNode.textContent.trim(), element = texts.currentNode.parentElement;
    if (!text || !element.checkVisibility({opacityProperty: true, visibilityProperty: true})) continue;
    const ground = element.closest("svg, mjx-container, script, style, .sk-top-container") ? null : groundOf(element);
    if (!ground) continue;
    const [dark, light] = [mix(parse(getComputedStyle(element).color), ground), ground]
      .map(luminance).sort((one, other) => one - other);
    const contrast = (light + 0.05) / (dark + 0.05);
    if (contrast < least) found[`${getComputedStyle(element).color} on ${ground}`] ??= [text.slice(0, 40), contrast];
  }
  return Object.values(found);
}"""
BRIGHTNESS = """() => {
  const colour = getComputedStyle(document.body).backgroundColor.match(/[\\d.]+/g).slice(0, 3).map(Number);
  return (0.299 * colour[0] + 0.587 * colour[1] + 0.114 * colour[2]) / 255;
}"""


@dataclass
class Page:
    """What a page says of itself: its anchors, and the addresses that it links to or loads."""

    anchors: set[str] = field(default_factory=set)
    links: list[str] = field(default_factory=list)
    loads: list[str] = field(default_factory=list)


class PageParser(HTMLParser):
    """Collects anchors and addresses."""

    def __init__(self) -> None:
        super().__init__()
        self.page = Page()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        values = {key: value for key, value in attrs if value is not None}
        self.page.anchors.update(values[key] for key in ("id", "name") if key in values)
        if tag == "a" and "href" in values:
            self.page.links.append(values["href"])
        elif tag == "link" and {"stylesheet", "icon", "preload"} & set(values.get("rel", "").split()):
            self.page.loads.append(values.get("href", ""))
        elif tag in ("script", "img", "iframe", "source", "video") and "src" in values:
            self.page.loads.append(values["src"])


def read_pages(site: Path) -> dict[str, Page]:
    """Return all pages by their path in the site."""
    pages = {}
    for path in sorted(site.rglob("*.html")):
        name = path.relative_to(site).as_posix()
        if name.split("/")[0] not in NO_PAGES:
            parser = PageParser()
            parser.feed(path.read_text(encoding="utf-8"))
            pages[name] = parser.page
    return pages


def check_addresses(site: Path, pages: dict[str, Page]) -> Iterator[str]:
    """Yield links and loaded files that lead nowhere, and files that are loaded from elsewhere."""
    for name, page in pages.items():
        for address in dict.fromkeys(page.loads):
            if urlsplit(address).netloc:
                yield f"{name}: leaves the site: {address}"
        for address in dict.fromkeys(page.links + page.loads):
            reason = dead_end(site, pages, name, address)
            if reason:
                yield f"{name}: {address}: {reason}"


def dead_end(site: Path, pages: dict[str, Page], name: str, address: str) -> str:
    """Return why an address of a page leads nowhere; an empty text if it is fine, or of another site."""
    parts = urlsplit(address)
    if parts.scheme or parts.netloc:
        return ""
    root = site.resolve()
    target = ((root / name).parent / unquote(parts.path) if parts.path else root / name).resolve()
    if not target.is_relative_to(root):
        return "outside of the site"
    if target.is_dir():
        target = target / "index.html"
    if not target.is_file():
        return "no such file"
    other = pages.get(target.relative_to(root).as_posix())
    anchor = unquote(parts.fragment)
    return f"no such anchor: {anchor}" if other and anchor and anchor not in other.anchors else ""


class QuietHandler(SimpleHTTPRequestHandler):
    """Serves files without a line for each."""

    def log_message(self, *args: Any) -> None:
        pass


@contextmanager
def served(site: Path) -> Iterator[str]:
    """Serve the site on this machine alone, and give its address."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(QuietHandler, directory=str(site)))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_port}/"
    finally:
        server.shutdown()
        server.server_close()


class Visitor:
    """A window of the browser, and what has gone wrong on the page that it shows."""

    def __init__(self, browser: Any, address: str, theme: str = "light") -> None:
        self.address, self.theme, self.problems = address, theme, list[str]()
        self.window = browser.new_page(color_scheme=theme, viewport={"width": WIDTHS[0], "height": HEIGHT})
        self.window.set_default_timeout(TIMEOUT)
        self.window.on("pageerror", lambda error: self.problems.append(f"error of a script: {error}"))
        self.window.on("request", self._note_request)
        self.window.on("response", self._note_response)

    def _note_request(self, request: Any) -> None:
        if not request.url.startswith((self.address, "data:", "blob:")):
            self.problems.append(f"leaves the site: {request.url}")

    def _note_response(self, response: Any) -> None:
        if response.status >= 400:
            self.problems.append(f"{response.url.removeprefix(self.address)} is not there ({response.status})")

    def open(self, name: str) -> Any:
        """Show a page, complete, in the widest window."""
        self.problems.clear()
        self.window.emulate_media(color_scheme=self.theme)
        self.resize(WIDTHS[0])
        self.window.goto(self.address + name, wait_until="load")
        self.window.evaluate(SETTLE)
        return self.window

    def resize(self, width: int) -> None:
        self.window.set_viewport_size({"width": width, "height": HEIGHT})


def check_page(visitor: Visitor, name: str) -> Iterator[str]:
    """Yield what is wrong with a page in the browser."""
    window = visitor.open(name)
    yield from (f"{name}: picture {source} is not shown" for source in window.evaluate(BROKEN_PICTURES))
    yield from (f"{name}: formula {text!r} is not drawn" for text in window.evaluate(FORMULAS_NOT_DRAWN))
    for width in WIDTHS:
        visitor.resize(width)
        found = window.evaluate(TOO_WIDE)
        if found:
            yield f"{name}: window of {width} pixels: {found[0]} pixels in {found[1]} with {found[2]}: {found[3]}"
    for theme in THEMES:
        window.emulate_media(color_scheme=theme)
        for text, contrast in window.evaluate(LOW_CONTRAST, CONTRAST):
            yield f"{name}: {theme} theme: {text!r} has contrast {contrast:.1f}, less than {CONTRAST}"
    yield from (f"{name}: {problem}" for problem in dict.fromkeys(visitor.problems))


def check_search(visitor: Visitor, text: str, expected: list[str]) -> Iterator[str]:
    """Yield whether the first result of a search is another page than one of those expected."""
    window = visitor.open(f"search.html?q={text}")
    first = window.locator("#search-results ul.search li a").first
    try:
        # Results come in order, but one after the other: the summary has a number when all are there.
        window.wait_for_selector("#search-results ul.search li a")
        window.wait_for_function("() => /\\d/.test(document.querySelector('.search-summary')?.textContent ?? '')")
        found = first.get_attribute("href").partition("#")[0].partition("?")[0]
    except Exception as error:  # playwright's own kinds of error
        yield f"search.html: no result for {text!r}: {str(error).splitlines()[0]}"
        return
    if found not in expected:
        yield f"search.html: the first result for {text!r} is {found}: expected {' or '.join(expected)}"


def check_theme(visitor: Visitor, theme: str) -> Iterator[str]:
    """Yield whether the first page is dark in the light theme, or the other way around."""
    brightness = visitor.open("index.html").evaluate(BRIGHTNESS)
    if (brightness > 0.5) != (theme == "light"):
        yield f"index.html: the background has brightness {brightness:.2f} in the {theme} theme"


def take_pictures(visitor: Visitor, theme: str, pages: dict[str, Page], folder: Path) -> None:
    """Write pictures of chosen pages in both widths."""
    for name in filter(pages.__contains__, PICTURED):
        window, stem = visitor.open(name), name.removesuffix(".html").replace("/", "-")
        for width in WIDTHS:
            visitor.resize(width)
            window.screenshot(path=folder / f"{stem}-{width}-{theme}.png")


def check(site: Path, browser: Any, searches: dict[str, list[str]], screenshots: Path | None) -> Iterator[str]:
    """Yield all findings."""
    pages = read_pages(site)
    yield from check_addresses(site, pages)
    with served(site) as address:
        visitor = Visitor(browser, address)
        for name in pages:
            yield from check_page(visitor, name)
        for text, expected in searches.items():
            if any(name in pages for name in expected):
                yield from check_search(visitor, text, expected)
            else:
                print(f"not checked: the search for {text!r}, as there is no page {' or '.join(expected)}")
        for theme in THEMES:
            visitor = Visitor(browser, address, theme)
            yield from check_theme(visitor, theme)
            if screenshots is not None:
                screenshots.mkdir(parents=True, exist_ok=True)
                take_pictures(visitor, theme, pages, screenshots)


@contextmanager
def opened_browser() -> Iterator[Any]:
    """Give a browser that resolves no other name; None, with the reason printed, if there is none."""
    try:
        from playwright.sync_api import sync_playwright
    except ImportError:
        print("check_site: skipped, playwright is not installed: pip install 'skdfb[docs]'")
        yield None
        return
    executable = next(filter(None, map(shutil.which, BROWSERS)), None)
    if executable is None:
        print(f"check_site: skipped, none of {', '.join(BROWSERS)} is installed")
        yield None
        return
    # Chromium does not run as root with its sandbox; what it shows is our own.
    options = ["--no-sandbox", "--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1"]
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=executable, args=options)
        try:
            yield browser
        finally:
            browser.close()


def main(argv: list[str] | None = None, searches: dict[str, list[str]] = SEARCHES) -> int:
    """Check a site and print the findings."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("site", type=Path, nargs="?", default=SITE, help="folder of the built pages")
    parser.add_argument("--screenshots", type=Path, help="folder for pictures of some pages")
    arguments = parser.parse_args(argv)
    if not (arguments.site / "index.html").is_file():
        parser.error(f"there is no {arguments.site / 'index.html'}: build the documentation first")
    n_findings = 0
    with opened_browser() as browser:
        if browser is None:
            return 0
        for finding in check(arguments.site, browser, searches, arguments.screenshots):
            print(finding, flush=True)
            n_findings += 1
    print(f"check_site: {n_findings} findings")
    return 1 if n_findings else 0


if __name__ == "__main__":
    sys.exit(main())
