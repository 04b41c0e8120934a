"""Pages in a real browser: nothing runs, nothing loads, nothing sticks out on a phone, both themes, paper."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from oracles.chromium import PROGRAM, Browser
from oracles.html_page import contrast
from rankdiag._document import Column, Document, Grid
from rankdiag._html import render_fragment, render_page

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(PROGRAM is None, reason="no chromium on PATH"),
]

PHONE, DESKTOP = 375, 1280


@pytest.fixture(scope="module")
def browser(tmp_path_factory):
    browser = Browser(tmp_path_factory.mktemp("profile"))
    yield browser
    browser.close()


@pytest.fixture(params=["weights", "hostile", "odd", "graphs", "many"])
def page(request, tmp_path, weights, hostile, odd_plots, networks):
    odd = Document(title="odd", plots=odd_plots)
    graphs = Document(title="graphs", networks=networks)
    page = {
        "weights": lambda: render_page(weights),
        "hostile": lambda: render_page(hostile),
        "odd": lambda: render_page(odd),
        "graphs": lambda: render_page(graphs),
        "many": lambda: render_page([weights, odd, hostile, weights], title="Many", intro="Four documents."),
    }[request.param]()
    path = tmp_path / f"{request.param}.html"
    path.write_text(page, encoding="utf-8")
    return path


def _keep(picture: bytes, name: str) -> None:
    """Keep pictures for a person to look at, where a folder for them is named."""
    folder = os.environ.get("RANKDIAG_PICTURES")
    if folder:
        (Path(folder) / name).write_bytes(picture)


@pytest.mark.parametrize("dark", [False, True])
@pytest.mark.parametrize("width", [PHONE, 640, DESKTOP])
def test_nothing_sticks_out_of_the_page(browser, page, width, dark, tmp_path):
    browser.open(page, width, dark=dark)
    assert browser.ask("innerWidth") == width
    assert browser.ask("document.documentElement.scrollWidth <= document.documentElement.clientWidth")
    # Whatever scrolls sideways does so in its own box, and all other text lies within the page.
    outside = browser.ask(
        """[...document.querySelectorAll('h1,h2,h3,h4,p,dt,dd,li,summary,svg text')]
        .filter(e => !e.closest('.rankdiag-scroll') && !e.matches('.rankdiag-skip'))
        .map(e => [e, e.getBoundingClientRect()])
        .filter(([e, b]) => b.width && (b.left < -1 || b.right > innerWidth + 1))
        .map(([e, b]) => e.textContent.slice(0, 60))"""
    )
    assert outside == []
    picture = browser.picture(tmp_path / "page.png")
    assert picture.startswith(b"\x89PNG")
    _keep(picture, f"{page.stem}-{width}-{'dark' if dark else 'light'}.png")


def test_nothing_runs_and_nothing_loads(browser, page):
    browser.open(page, DESKTOP)
    assert browser.ask("document.scripts.length + document.images.length") == 0
    requests = [e["params"]["request"]["url"] for e in browser.events if e["method"] == "Network.requestWillBeSent"]
    assert [url for url in requests if not url.startswith("data:")] == [page.as_uri()]
    bad = {"Log.entryAdded", "Runtime.exceptionThrown", "Runtime.consoleAPICalled", "Page.javascriptDialogOpening"}
    assert [event for event in browser.events if event["method"] in bad] == []


def test_the_policy_is_in_force(browser, tmp_path, weights):
    path = tmp_path / "page.html"
    page = render_page(weights).replace("</main>", "<script>document.title = 'ran'</script></main>")
    path.write_text(page, encoding="utf-8")
    browser.open(path, DESKTOP)
    assert browser.ask("document.title") == weights.title
    assert any(
        "Content Security Policy" in e["params"]["entry"]["text"] for e in browser.events if "entry" in e["params"]
    )


def test_a_hostile_name_is_text_on_the_screen(browser, tmp_path, hostile):
    path = tmp_path / "page.html"
    path.write_text(render_page(hostile), encoding="utf-8")
    for width in (PHONE, DESKTOP):
        browser.open(path, width)
        text = browser.ask("document.body.innerText")
        for name in ("<script>alert(1)</script>", '"><img src=x onerror=alert(1)>', "evil\\u202egnp.exe"):
            assert name in text
        assert browser.ask("document.querySelector('tbody th').innerText").startswith("<script>alert(1)</script>")
        assert browser.ask("document.title") == "<script>alert(1)</script>"


def test_labels_of_a_plot_lie_apart_on_a_phone_too(browser, page):
    for width in (PHONE, DESKTOP):
        browser.open(page, width)
        overlaps = browser.ask(
            """[...document.querySelectorAll('svg[role=img]')].flatMap(svg => {
            const boxes = [...svg.querySelectorAll('text')].map(t => [t.textContent, t.getBoundingClientRect()]);
            return boxes.flatMap(([a, p], i) => boxes.slice(i + 1).filter(([b, q]) =>
                p.left < q.right - 1 && q.left < p.right - 1 && p.top < q.bottom - 4 && q.top < p.bottom - 4)
                .map(([b]) => a + ' | ' + b)); })"""
        )
        assert overlaps == []


def _hexadecimal(colour: str) -> str:
    parts = [int(part) for part in colour[colour.index("(") + 1 : -1].split(",")[:3]]
    return "#" + "".join(f"{part:02x}" for part in parts)


def test_the_reader_chooses_the_theme(browser, tmp_path, weights):
    path = tmp_path / "page.html"
    path.write_text(render_page(weights), encoding="utf-8")
    seen = []
    for dark in (False, True):
        browser.open(path, DESKTOP, dark=dark)
        style = "getComputedStyle(document.body)"
        paper = _hexadecimal(browser.ask(f"{style}.backgroundColor"))
        ink = _hexadecimal(browser.ask(f"{style}.color"))
        line = _hexadecimal(browser.ask("getComputedStyle(document.querySelector('path[vector-effect]')).stroke"))
        assert contrast(ink, paper) > 7
        assert contrast(line, paper) > 3
        seen.append((paper, ink, line))
    assert all(a != b for a, b in zip(*seen, strict=True))


def test_names_stay_in_sight_while_a_table_scrolls(browser, tmp_path, weights):
    path = tmp_path / "page.html"
    path.write_text(render_page(weights), encoding="utf-8")
    browser.open(path, PHONE)
    box = "document.querySelector('.rankdiag-scroll')"
    assert browser.ask(f"{box}.scrollWidth > {box}.clientWidth && {box}.scrollHeight > {box}.clientHeight")
    browser.ask(f"{box}.scrollTo(300, 200)")
    assert browser.ask(f"{box}.scrollLeft") == 300
    corner = f"{box}.getBoundingClientRect()"
    assert abs(browser.ask(f"document.querySelector('tbody th').getBoundingClientRect().left - {corner}.left")) < 2
    assert abs(browser.ask(f"document.querySelector('thead th').getBoundingClientRect().top - {corner}.top")) < 2
    assert browser.ask(f"document.querySelector('tbody th').offsetWidth < 0.6 * {box}.clientWidth")


@pytest.mark.parametrize("host_is_dark", [False, True])
@pytest.mark.parametrize("system_is_dark", [False, True])
def test_a_fragment_takes_the_theme_of_the_notebook_and_leaves_it_alone(
    browser, tmp_path, weights, hostile, host_is_dark, system_is_dark
):
    host = "<p>before</p><table><tr><th>a</th></tr><tr><td>1</td></tr></table><details><summary>s</summary>x</details>"
    look = """[...document.querySelectorAll('.host, .host *')].map(e => [e, getComputedStyle(e)]).map(([e, style]) =>
        [...style].map(name => name + style.getPropertyValue(name)).join() + e.offsetWidth).join()"""
    seen = []
    for fragment in ("", render_fragment(weights) + render_fragment(hostile)):
        path = tmp_path / "notebook.html"
        attribute = f'data-jp-theme-light="{str(not host_is_dark).lower()}"'
        path.write_text(
            f"<!DOCTYPE html><html style='overflow-y:scroll'><body {attribute}>"
            f"<div class='host'>{host}</div>{fragment}</body></html>",
            encoding="utf-8",
        )
        browser.open(path, DESKTOP, dark=system_is_dark)
        seen.append(browser.ask(look))
    assert seen[0] == seen[1]
    paper = _hexadecimal(browser.ask("getComputedStyle(document.querySelector('.rankdiag')).backgroundColor"))
    assert (contrast(paper, "#000000") < 5) == host_is_dark
    assert browser.ask("document.documentElement.scrollWidth <= innerWidth")


def test_a_plot_has_a_name_and_a_description_for_a_screen_reader(browser, tmp_path, weights):
    path = tmp_path / "page.html"
    path.write_text(render_page(weights), encoding="utf-8")
    browser.open(path, DESKTOP)
    nodes = browser.call("Accessibility.getFullAXTree")["nodes"]
    images = [node["name"]["value"] for node in nodes if node.get("role", {}).get("value") in {"image", "img"}]
    named = [name for name in images if name]
    assert len(named) == 2
    assert named[0].startswith("Effective rank by layer effective rank / smaller side against layer. q_proj: 12 values")
    headers = [n["name"]["value"] for n in nodes if n.get("role", {}).get("value") == "columnheader"]
    assert headers[0].startswith("tensor")


def test_a_page_prints_on_paper(browser, tmp_path, weights):
    path = tmp_path / "page.html"
    path.write_text(render_page(weights), encoding="utf-8")
    browser.open(path, 1032, dark=True, media="print")  # A4 across, less its margins
    assert browser.ask("document.documentElement.scrollWidth") <= 1032
    assert browser.ask("getComputedStyle(document.body).backgroundColor") == "rgb(255, 255, 255)"
    box = "document.querySelector('.rankdiag-scroll')"
    assert browser.ask(f"{box}.scrollHeight == {box}.clientHeight && {box}.clientHeight > 800")
    assert browser.pdf().startswith(b"%PDF")


def test_ten_thousand_rows_stay_usable(browser, tmp_path):
    columns = tuple(Column(name=f"c{i}") for i in range(20))
    rows = tuple((f"layer.{i}", *(i * 0.5 + j for j in range(19))) for i in range(10_000))
    path = tmp_path / "page.html"
    page = render_page(Document(title="t", grids=(Grid(title="g", columns=columns, rows=rows),)))
    assert len(page) < 1_000_000
    path.write_text(page, encoding="utf-8")
    browser.open(path, PHONE)
    assert browser.ask("document.querySelectorAll('tbody tr').length") == 1000
    assert browser.ask("performance.getEntriesByType('navigation')[0].domComplete") < 5000
