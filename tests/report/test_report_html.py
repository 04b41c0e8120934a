"""Pages and notebook fragments: well-formed, inert, escaped, accessible, and the same bytes every time."""

from __future__ import annotations

import html
import re
from dataclasses import replace
from xml.etree import ElementTree

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from oracles.html_page import Page, contrast, problems, rules
from rankdiag._document import Column, Document, Grid, KeyNumber, Plot, ReferenceLine, Series, clean
from rankdiag._html import render_fragment, render_page
from rankdiag._style import PAGE, VIEW


def _everywhere(text: str) -> Document:
    """A document with one text in every place."""
    column = Column(name=text or "c", label=text, unit=text, doc=text)
    series = tuple(Series(label=text, x=[1.0], y=[1.0], kind=k, names=[text]) for k in ("line", "points", "bars"))
    plot = Plot(
        title=text,
        x_label=text,
        y_label=text,
        series=series,
        lines=(ReferenceLine(axis="x", value=1.0, label=text), ReferenceLine(axis="y", value=1.0, label=text)),
        description=text,
    )
    return Document(
        title=text,
        verdict="alert",
        explanation=text,
        key_numbers=(KeyNumber(label=text, value=text, unit=text, doc=text),),
        grids=(Grid(title=text, columns=(column, column), rows=((text, text),), levels=("warn",), note=text),),
        plots=(plot,),
        notes=(text,),
        sections=(Document(title=text, explanation=text),),
    )


def test_a_page_is_sound_and_well_formed_xml_too(weights, hostile, odd_plots):
    many = Document(title="many", plots=odd_plots)
    for documents in (weights, hostile, [weights, hostile, many, weights], Document(title="")):
        page = render_page(documents, title="Report" if isinstance(documents, list) else None)
        assert problems(page) == []
        ElementTree.fromstring(page.partition("\n")[2])
        page.encode("utf-8")


def test_a_fragment_is_sound(weights, hostile):
    for document in (weights, hostile, Document(title="empty")):
        fragment = render_fragment(document)
        assert problems(f"<h1>n</h1><h2>n</h2>{fragment}") == []
        ElementTree.fromstring(fragment)


def test_two_fragments_of_one_notebook_do_not_share_ids(weights, hostile):
    assert problems(f"<h1>n</h1><h2>n</h2>{render_fragment(weights)}{render_fragment(hostile)}") == []


@given(st.text(max_size=40))
@settings(max_examples=40)
def test_any_text_in_any_place_is_only_text(text):
    document = _everywhere(text)
    for written in (render_page(document), f"<h1>n</h1><h2>n</h2>{render_fragment(document)}"):
        assert problems(written) == []
        written.encode("utf-8")
    assert Page(render_page(document)).cells[-1] == ("td", clean(text))


def test_hostile_names_show_as_text(hostile, hostile_names):
    page = Page(render_page(hostile))
    cells = [text for tag, text in page.cells if tag == "td"][::2]
    for name, cell in zip(hostile_names, cells, strict=True):
        if len(name) < 100:
            assert cell == clean(name)
    assert "(2880 characters)" in cells[8]
    hints = [attributes.get("title") for _, attributes in page.tags]
    assert hostile_names[8] in hints  # all of it, where a pointer rests
    assert page.count("script") == page.count("img") == 0


def test_the_policy_forbids_everything_but_our_own_styles(weights):
    page = Page(render_page(weights))
    policies = [a["content"] or "" for tag, a in page.tags if a.get("http-equiv") == "Content-Security-Policy"]
    assert len(policies) == 1
    directives = dict(part.strip().split(" ", 1) for part in policies[0].split(";"))
    assert directives.pop("default-src") == "'none'"
    assert directives.pop("style-src") == "'unsafe-inline'"
    assert directives.pop("img-src") == "data:"
    assert set(directives.values()) == {"'none'"}
    assert not re.search(r"https?:", render_page(weights))


def test_the_page_tells_machines_what_it_is(weights):
    page = Page(render_page(weights))
    tags = dict(reversed(page.tags))
    assert tags["html"] == {"lang": "en"}
    assert ("meta", {"charset": "utf-8"}) in page.tags
    assert any(a.get("name") == "viewport" and "width=device-width" in (a["content"] or "") for _, a in page.tags)
    assert page.headings[0] == 1
    assert page.headings.count(1) == 1
    assert {"header", "main", "footer"} <= set(tags)
    regions = [a for tag, a in page.tags if a.get("role") == "region"]
    assert all(a.get("tabindex") == "0" for a in regions)
    assert len(regions) == 1


def test_the_same_document_gives_the_same_bytes(weights, hostile):
    for document in (weights, hostile):
        assert render_page(document) == render_page(document)
        assert render_fragment(document) == render_fragment(document)


def test_verdicts_are_words(weights):
    for verdict, word in {"ok": "ok", "warn": "warning", "alert": "alert", "unknown": "no verdict"}.items():
        assert word in Page(render_page(replace(weights, verdict=verdict, grids=()))).text
    text = Page(render_page(weights)).cells
    assert [cell for tag, cell in text if tag == "th" and "■ alert" in cell] == [
        "model.layers.3.self_attn.k_proj.weight■ alert"
    ]
    assert sum("▲ warning" in cell for _, cell in text) == 1


def test_several_documents_keep_their_order_and_get_a_table_of_contents(weights, hostile):
    parts = [replace(weights, title=f"part {i}") for i in range(4)]
    page = Page(render_page(parts, title="All", intro="First words."))
    links = [a["href"] for tag, a in page.tags if tag == "a" and a["href"] != "#main"]
    assert links == ["#s1", "#s2", "#s3", "#s4"]
    places = [page.text.rindex(f"part {i}") for i in range(4)]
    assert places == sorted(places)
    assert page.text.index("All") < page.text.index("First words.") < places[0]
    assert page.headings[:2] == [1, 2]
    assert Page(render_page(weights)).count("nav") == 0
    nested = Document(title="All", sections=(Document(title="a", sections=(weights, hostile)), weights))
    links = [a["href"] for tag, a in Page(render_page(nested)).tags if tag == "a"][1:]
    assert links == ["#s1", "#s1-1", "#s1-2", "#s2"]


def test_columns_are_explained_to_every_reader(weights):
    page = Page(render_page(weights))
    hints = [a.get("title") for tag, a in page.tags if tag == "th" and a.get("scope") == "col"]
    assert hints[0] == "Name in the checkpoint."
    assert "What the columns mean" in page.text
    assert page.text.count("How many directions carry it.") == 1  # in the list; the hint is an attribute


def test_long_tables_are_cut_in_the_open():
    count = 3000
    levels = tuple("alert" if i == 2500 else "unknown" for i in range(count))
    grid = Grid(title="g", columns=(Column(name="n"),), rows=tuple((f"row {i}",) for i in range(count)), levels=levels)
    page = Page(render_page(Document(title="t", grids=(grid,))))
    assert sum(tag == "th" for tag, _ in page.cells) == 1 + 1000
    assert "row 2500■ alert" in [cell for _, cell in page.cells]
    assert (
        "1000 of 3000 rows are shown, all with an alert or a warning among them; the result itself holds them"
        in page.text
    )
    page = Page(render_page(Document(title="t", grids=(replace(grid, levels=("warn",) * count),)), max_rows=10))
    assert "10 of 3000 rows are shown, 2990 of the others with an alert or a warning;" in page.text
    page = Page(render_page(Document(title="t", grids=(replace(grid, levels=()),)), max_rows=10))
    assert "10 of 3000 rows are shown; the result itself" in page.text


def test_digits_of_large_integers_are_grouped_and_copied_as_they_are():
    document = Document(
        title="t",
        key_numbers=(KeyNumber(label="n", value=1100048384), KeyNumber(label="m", value=-12345)),
        grids=(Grid(title="", columns=(Column(name="a"), Column(name="b")), rows=(("x", 4194304), ("y", 999))),),
    )
    written = render_page(document)
    assert "1<i>100</i><i>048</i><i>384</i>" in written
    assert "-12<i>345</i>" in written
    assert [text for tag, text in Page(written).cells if tag == "td"] == ["4194304", "999"]


def test_every_rule_of_a_fragment_holds_inside_it_only():
    selectors = [part.strip() for selector, _ in rules(VIEW) for part in selector.split(",")]
    assert len(selectors) > 50
    host = r'(body\[data-jp-theme-light="(true|false)"\] |body\.vscode-(dark|light) |html\[theme="(dark|light)"\] )?'
    for selector in selectors:
        assert re.match(host + r"\.rankdiag(-view)?\.rankdiag", selector), selector
        classes = re.findall(r"\.([a-z][\w-]*)", re.sub(host, "", selector))
        assert all(name.startswith("rankdiag") for name in classes), selector
    names = {name for _, pairs in rules(VIEW) for name in pairs if name.startswith("--")}
    assert all(name.startswith("--rankdiag-") for name in names)
    fragment = Page(render_fragment(_everywhere("x")))
    used = {c for _, a in fragment.tags for c in (a.get("class") or "").split()}
    assert all(name.startswith("rankdiag") for name in used)
    assert all((i or "").startswith("rankdiag-") for i in fragment.ids)


def test_every_class_in_use_has_a_rule_and_the_other_way_round(weights, hostile):
    styled = set(re.findall(r"\.(rankdiag[\w-]*)", VIEW + PAGE))
    written = render_page([weights, hostile], title="t") + render_fragment(weights)
    used = {c for _, a in Page(written).tags for c in (a.get("class") or "").split()}
    neutral = {"rankdiag-frame"}
    assert used - styled <= neutral
    assert styled - used <= {"rankdiag-ok", "rankdiag-skip"}


_THEME = [pairs for _, pairs in rules(VIEW) if "--rankdiag-paper" in pairs]


@pytest.mark.parametrize("theme", _THEME)
def test_text_and_lines_stand_out_in_both_themes(theme):
    paper, wash = theme["--rankdiag-paper"], theme["--rankdiag-wash"]
    for name in ("ink", "muted", "link"):
        assert contrast(theme[f"--rankdiag-{name}"], paper) >= 4.5, name
        assert contrast(theme[f"--rankdiag-{name}"], wash) >= 4.5, name
    for name in ("ok", "warn", "alert"):
        assert contrast(theme[f"--rankdiag-{name}"], theme[f"--rankdiag-{name}-wash"]) >= 4.5, name
        assert contrast(theme["--rankdiag-ink"], theme[f"--rankdiag-{name}-wash"]) >= 4.5, name
    for number in range(1, 7):
        assert contrast(theme[f"--rankdiag-{number}"], paper) >= 3, number


def test_both_themes_exist_and_the_notebook_decides_before_the_system():
    assert len({theme["--rankdiag-paper"] for theme in _THEME}) == 2
    assert len({theme["color-scheme"] for theme in _THEME}) == 2
    themes = {selector: pairs["color-scheme"] for selector, pairs in rules(VIEW) if "color-scheme" in pairs}
    for selector, scheme in themes.items():
        for part in selector.split(","):
            if 'light="true"' in part or "vscode-light" in part or 'theme="light"' in part:
                assert scheme == "light", part
            if 'light="false"' in part or "vscode-dark" in part or 'theme="dark"' in part:
                assert scheme == "dark", part


def test_a_text_that_is_already_escaped_is_escaped_again():
    page = render_page(Document(title="a &amp; <b>"))
    assert html.escape("a &amp; <b>") in page
    assert "a &amp; <b>" in Page(page).text
