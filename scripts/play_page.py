"""Write docs/play/index.html, the page on which the bundled model runs in the browser.

python scripts/play_page.py
"""

from pathlib import Path

from jaxconf.report.play.page import write_play_page

PAGE = Path(__file__).parents[1] / "docs" / "play" / "index.html"

if __name__ == "__main__":
    write_play_page(PAGE)
