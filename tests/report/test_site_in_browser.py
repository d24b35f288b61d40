"""The site in a real browser, as a reader uses it: by pointer, by keyboard alone, and by links."""

import functools
import threading
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer

import numpy as np
import pytest
from browser import Browser, browser
from planted_pages import HOSTILE, planted_run
from planted_table import planted_table

from jaxconf.report.passages.passage import visible
from jaxconf.report.site.data import INDEX
from jaxconf.report.site.write import write_site
from jaxconf.results.words import number

pytestmark = pytest.mark.command
LAYER = "some/model, layer 3"
CELLS = "return [...document.querySelectorAll('tbody tr')].map(row => [...row.cells].map(each => each.textContent))"
SHADES = (
    "return [...document.querySelector('.passage').children].map(c => parseFloat(c.style.getPropertyValue('--shade')))"
)


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    """The pages of a run, its table and the first page of its site."""
    folder = tmp_path_factory.mktemp("site")
    table = planted_table()
    table.frame.loc[0, "loss_delta"] = np.nan
    table.frame.loc[1, ["rho", "w_norm", "loss_delta"]] = [0.0, 12345.0, -1.25e-7]
    pages = planted_run(folder / "run", table)
    return pages, table, write_site([folder / "run"], folder / "site")


@pytest.fixture(scope="module")
def page():
    with browser() as found:
        yield found


def rows(page: Browser) -> list[str]:
    return page.texts("tbody th")


def test_a_reader_searches_opens_goes_on_and_comes_back(site, page):
    pages, table, index = site
    page.open(index)
    page.heading(LAYER)
    frame = table.to_pandas().loc[pages.names].sort_values("loss_abs_delta", ascending=False)
    assert rows(page) == frame.index.tolist()
    page.click("#search")
    page.press("3.17")
    page.until("return document.querySelectorAll('tbody tr').length === 1")
    page.click("tbody a")
    page.heading("Neuron 3.17")
    assert "3.17 is an entropy neuron" in page.text(".verdict")
    page.driver.back()
    page.heading(LAYER)
    assert rows(page) == ["3.17"]  # the search is as it was left
    page.run("const box = document.querySelector('#search'); box.value = ''; box.dispatchEvent(new Event('input'))")
    page.click("tbody tr:nth-child(2) a")
    page.heading(f"Neuron {frame.index[1]}")
    page.click("#next")
    page.heading(f"Neuron {frame.index[2]}")
    page.click("#previous")
    page.heading(f"Neuron {frame.index[1]}")


def test_a_point_opens_its_neuron_and_a_link_leads_to_it(site, page):
    _, _, index = site
    page.open(index)
    page.until("return document.querySelector('circle[data-name=\"3.5\"]')")
    page.click("circle[data-name='3.5']")
    page.heading("Neuron 3.5")
    assert page.driver.current_url.endswith("#/run/3.5")
    page.open(index, "#/run/3.8")
    page.heading("Neuron 3.8")
    assert "a token-frequency neuron" in page.text(".verdict")
    page.open(index, "#/run/9.9")
    page.heading("Not found")
    assert "9.9 has no page" in page.text("main")


def test_the_keyboard_alone_is_enough(site, page):
    from selenium.webdriver.common.keys import Keys

    pages, table, index = site
    page.open(index)
    page.heading(LAYER)
    order = rows(page)

    def tab_to(selector: str) -> None:
        for _ in range(60):
            page.press(Keys.TAB)
            if page.run("return document.activeElement.matches(arguments[0])", selector):
                return
        raise AssertionError(f"{selector} is not reached")

    tab_to("#search")
    tab_to("thead th:nth-child(2) button")
    page.press(Keys.ENTER)
    assert rows(page) == table.to_pandas().loc[pages.names].sort_values("rho", ascending=False).index.tolist()
    page.press(Keys.ENTER)
    assert page.run("return document.querySelector('[aria-sort]').getAttribute('aria-sort')") == "ascending"
    tab_to("tbody a")
    first = page.run("return document.activeElement.textContent")
    page.press(Keys.ENTER)
    page.heading(f"Neuron {first}")
    page.press(Keys.ARROW_RIGHT)
    page.until("return document.querySelector('#heading').lastChild.textContent !== arguments[0]", f"Neuron {first}")
    page.press(Keys.ARROW_LEFT)
    page.heading(f"Neuron {first}")
    tab_to("#next")
    for _ in range(2):  # the link keeps the focus
        before = page.text("#heading")
        page.press(Keys.ENTER)
        page.until("return document.querySelector('#heading').textContent !== arguments[0]", before)
        page.until("return document.activeElement.id === 'next'")
    for _ in range(2):
        before = page.text("#heading")
        page.press(Keys.ARROW_LEFT)
        page.until("return document.querySelector('#heading').textContent !== arguments[0]", before)
    page.heading(f"Neuron {first}")
    tab_to(".passage button")
    page.press(Keys.HOME)
    page.press(Keys.ARROW_RIGHT, Keys.ARROW_RIGHT)
    assert page.run("return [...document.activeElement.parentNode.children].indexOf(document.activeElement)") == 2
    page.heading(f"Neuron {first}")  # arrow keys in a passage do not leave the page
    assert page.text(".reading b") == visible(HOSTILE[2])
    page.press(Keys.TAB)
    page.press(Keys.ESCAPE)
    page.until("return document.querySelector('.passage')")  # Escape in a passage is the passage's
    page.run("document.activeElement.blur()")
    page.press(Keys.ESCAPE)
    page.heading(LAYER)
    assert sorted(rows(page)) == sorted(order)
    page.click("thead th:nth-child(7) button")  # without it the window has no focus in the next test


def test_shown_numbers_are_those_of_the_table(site, page):
    pages, table, index = site
    frame = table.to_pandas()
    page.open(index)
    page.heading(LAYER)
    columns = page.texts("thead th")[1:-1]
    assert set(columns) <= set(INDEX)
    for row in page.run(CELLS):
        assert row[1:-1] == [number(frame.loc[row[0], column]) for column in columns]
        promoted = pages.neurons.set_index("name").loc[row[0], "promoted"]
        assert row[-1] == "".join(f"{visible(token)} " for token in promoted[:5])
    page.open(index, f"#/run/{pages.names[0]}")
    page.heading(f"Neuron {pages.names[0]}")
    page.run("document.querySelectorAll('details').forEach(each => { each.open = true; })")
    own, seen = frame.loc[pages.names[0]], 0
    for name, value, interval, *_ in page.run(CELLS):
        assert value == number(own[name])
        if f"{name}_lo" in frame:
            assert interval == f"{number(own[f'{name}_lo'])} to {number(own[f'{name}_hi'])}"
        seen += 1
    assert seen > 40
    page.until("return document.querySelectorAll('.story').length === 15")
    shown = pages.passages[pages.passages["neuron"] == pages.names[0]]
    page.run("document.querySelectorAll('.passage')[0].children[3].focus()")
    expected = shown.iloc[3]
    told = page.text(".reading")
    for part in (
        f"activation {number(expected['activation'])}.",
        f"loss {number(expected['loss'])} → {number(expected['loss_ablated'])}",
        f"entropy {number(expected['entropy'])} → {number(expected['entropy_ablated'])} nats",
    ):
        assert part in told
    shades = page.run(SHADES)
    most = max(abs(pages.neurons["low"][0]), abs(pages.neurons["high"][0]))
    np.testing.assert_allclose(shades, 100 * shown["activation"][:10].abs() / most, atol=0.51)


def test_tokens_are_text_and_nothing_leaves_the_page(site, page):
    pages, _, index = site
    page.requests(), page.errors()
    for width in (380, 800, 1600):
        for theme in ("light", "dark"):
            page.looks(width, theme)
            for place in ("", f"#/run/{pages.names[0]}"):
                page.open(index, place)
                page.until("return document.querySelector('.chart svg')")
                assert page.run("return document.documentElement.scrollWidth <= document.documentElement.clientWidth")
                assert page.barriers() == []
    assert page.texts(".passage")[0] == "".join(visible(token) for token in HOSTILE)
    assert page.driver.title != "taken"
    assert page.run("return document.querySelectorAll('main img, main script').length") == 0
    requests = page.requests()
    assert any(url.endswith("/site.js") for url in requests)
    assert all(url.startswith(("file:", "data:", "about:")) for url in requests)
    assert page.errors() == []


def test_a_web_server_shows_what_the_disk_shows(site, page):
    pages, _, index = site
    served = functools.partial(SimpleHTTPRequestHandler, directory=index.parent)
    with ThreadingHTTPServer(("127.0.0.1", 0), served) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        address = f"http://127.0.0.1:{server.server_port}/"
        page.requests(), page.errors()
        page.driver.get(address)
        page.heading(LAYER)
        assert sorted(rows(page)) == sorted(pages.names)
        page.run("location.hash = arguments[0]", f"#/run/{pages.names[0]}")
        page.until("return document.querySelector('.passage')")
        requests = page.requests()
        assert f"{address}site.js" in requests
        assert all(url.startswith(address) for url in requests)
        assert page.errors() == []
        server.shutdown()


def test_a_missing_file_is_told_each_time_and_many_values_have_an_axis(site, page):
    pages, _, index = site
    (index.parent / "data/run/0.js").rename(index.parent / "data/run/away")
    page.open(index, "#/run")
    for _ in range(2):
        page.heading(LAYER)
        page.run("location.hash = arguments[0]", f"#/run/{pages.names[0]}")
        page.until("return document.querySelector('[role=alert]')")
        assert "data/run/0.js is missing" in page.text("[role=alert]")
        page.run("location.hash = '#/run'")
    (index.parent / "data/run/away").rename(index.parent / "data/run/0.js")
    page.errors()
    assert page.run("return axisOf('', Array.from({length: 200000}, (_, i) => i)).domain") == [-7999.96, 207998.96]
