"""The documentation site that `make docs` has built: it is whole, and works from disk without asking for anything."""

import re
from html import unescape
from pathlib import Path

import pytest
from page_scripts import found_in_chromium, needs_chromium

SITE = Path(__file__).parents[2] / "build" / "site"
pytestmark = pytest.mark.skipif(not SITE.is_dir(), reason="`make docs` has not built the site")
SEARCH = """
<script>
(async () => {
  const query = document.querySelector("[data-md-component=search-query]");
  query.focus();
  query.value = "null space";
  query.dispatchEvent(new KeyboardEvent("keyup", { bubbles: true }));
  query.dispatchEvent(new Event("input", { bubbles: true }));
  const results = () => [...document.querySelectorAll(".md-search-result__item a")].map(link => link.href);
  for (let i = 0; i < 100 && !results().length; i++) await new Promise(resolve => setTimeout(resolve, 100));
  const found = {
    results: results(),
    equations: document.querySelectorAll("mjx-container").length,
    shrunk: [...document.querySelectorAll("mjx-container > svg")].filter(svg => svg.clientWidth < 5).length,
    refused: document.querySelectorAll("[data-mjx-error]").length,
    requested: performance.getEntriesByType("resource").map(entry => entry.name).filter(name => !/^file:/.test(name)),
    marked: document.querySelectorAll(".arithmatex").length,
  };
  const shown = document.createElement("pre");
  document.body.append(Object.assign(shown, { id: "found", textContent: JSON.stringify(found) }));
})();
</script>
"""


def pages() -> list[Path]:
    return [page for page in SITE.rglob("*.html") if page.parent.name != "play"]


def test_no_page_loads_anything_from_elsewhere():
    loads = re.compile(
        r"<(?:script|img|iframe|source)[^>]*\ssrc=\"?([^\">\s]+)|<link(?![^>]*canonical)[^>]*\shref=\"?([^\">\s]+)"
    )
    for page in pages():
        of = [first or second for first, second in loads.findall(page.read_text("utf-8"))]
        assert of
        assert not [address for address in of if re.match(r"(https?:)?//", address)], page
    for style in SITE.rglob("*.css"):
        assert not re.search(r"(url\([\"']?|@import [\"'])(https?:)?//", style.read_text("utf-8")), style


def test_every_link_and_picture_of_a_page_is_there():
    for page in pages():
        for address in re.findall(r"\s(?:href|src)=\"?([^\">\s]+)", page.read_text("utf-8")):
            file = unescape(address).partition("#")[0]
            if file and not re.match(r"[a-z]+:", file):
                assert (SITE / file.lstrip("/") if file.startswith("/") else page.parent / file).exists(), (page, file)


@needs_chromium
def test_from_disk_equations_are_set_and_the_search_finds(tmp_path: Path):
    page = SITE / "measures_searched.html"
    page.write_text((SITE / "measures.html").read_text("utf-8").replace("</body>", f"{SEARCH}</body>"), "utf-8")
    try:
        found = found_in_chromium(page, tmp_path)
    finally:
        page.unlink()
    assert found["equations"] == found["marked"] > 20
    assert found["refused"] == found["shrunk"] == 0
    assert any("concepts.html" in address or "measures.html" in address for address in found["results"])
    assert found["requested"] == []
