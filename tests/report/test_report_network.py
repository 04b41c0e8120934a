"""Drawn graphs as inline SVG, with matplotlib and in words: what is drawn, where, and how kinds are told apart."""

from __future__ import annotations

import dataclasses
import re
from typing import ClassVar
from xml.etree import ElementTree

import pytest

from oracles.html_page import Page, problems
from rankdiag._document import Document, EdgeClass, Network, NodeClass, Plot, Series, count_classes
from rankdiag._html import render_fragment, render_page
from rankdiag._result import Result
from rankdiag._svg_network import render_network
from rankdiag._text import render_text
from rankdiag.report import Section, from_json, to_html, to_json, to_text

KINDS = (NodeClass(label="left"), NodeClass(label="right", shape="square", colour=1, filled=True, ring=True))
LINES = (EdgeClass(label="within"), EdgeClass(label="across", dash="dashed", colour=3, strong=True))


def _network(**changes: object) -> Network:
    plain: dict[str, object] = {
        "title": "Four",
        "x": [0.0, 1.0, 1.0, 0.25],
        "y": [0.0, 0.0, 1.0, 0.5],
        "names": ["0", "1", "2", "a longer one"],
        "node_class": [0, 0, 1, 1],
        "node_classes": KINDS,
        "edges": [(0, 1), (1, 2), (2, 3)],
        "edge_class": [0, 1, 0],
        "edge_classes": LINES,
        "description": "A path.",
    }
    return Network(**{**plain, **changes})  # type: ignore[arg-type]


def _figure(network: Network) -> ElementTree.Element:
    text = render_network(network, "g")
    assert problems(f"<h2>x</h2>{text}") == []
    return ElementTree.fromstring(text)


def _drawing(figure: ElementTree.Element) -> ElementTree.Element:
    return next(svg for svg in figure.iter("svg") if svg.get("role") == "img")


def _number(text: str | None) -> float:
    return float((text or "").rstrip("%"))


def test_vertices_and_edges_lie_where_their_places_say():
    network = _network()
    drawing = _drawing(_figure(network))
    height = _number(drawing.get("height"))
    places = {
        (svg.find("g/title").text or "").split(" (")[0]: (_number(svg.get("x")) / 100, _number(svg.get("y")) / height)
        for svg in drawing.findall("svg")
    }
    for name, x, y in zip(network.names, network.x, network.y, strict=True):
        assert places[name] == pytest.approx((x, 1 - y), abs=1e-3)  # up is up
    ends = {
        tuple(
            round(_number(line.get(side)) / (100 if side[0] == "x" else height), 3) for side in ("x1", "y1", "x2", "y2")
        )
        for line in drawing.iter("line")
    }
    assert ends == {(0, 1, 1, 1), (1, 1, 1, 0), (1, 0, 0.25, 0.5)}


def test_kinds_differ_without_colour():
    drawing = _drawing(_figure(_network()))
    left, _, right, _ = drawing.findall("svg")
    assert len(left.findall("g/path")) == 1
    assert len(right.findall("g/path")) == 2  # a ring around it
    shapes = [group.findall("g/path")[-1] for group in (left, right)]
    assert "a10 10" in shapes[0].get("d", "")
    assert re.fullmatch(r"M-9 -9h18v18h-18z", shapes[1].get("d", ""))
    assert "fill:var(--rankdiag-paper" in shapes[0].get("style", "")
    assert "fill:var(--rankdiag-2" in shapes[1].get("style", "")
    within, across = drawing.findall("g")
    assert "dasharray" not in within.get("style", "")
    assert "dasharray" in across.get("style", "")
    assert (len(within.findall("line")), len(across.findall("line"))) == (2, 1)


def test_only_kinds_that_occur_are_in_the_legend_and_counted():
    figure = _figure(_network(node_class=[0, 0, 0, 0]))
    legend = [(li.find("svg").tail or "").strip() for li in figure.iter("li")]
    assert legend == ["left", "within", "across"]
    assert count_classes(_network(node_class=[0, 0, 0, 0])) == "4 vertices (4 left), 3 edges (2 within; 1 across)"
    one = _network(x=[0.5], y=[0.5], names=["x"], node_class=[0], edges=[], edge_class=[], directed=True)
    assert count_classes(one) == "1 vertex (1 left), 0 directed edges"


def test_arrows_point_from_the_first_vertex_to_the_second():
    assert list(_figure(_network()).iter("marker")) == []
    drawing = _drawing(_figure(_network(directed=True)))
    heads = {marker.get("id") for marker in drawing.iter("marker")}
    used = {line.get("marker-end") for line in drawing.iter("line")}
    assert used == {f"url(#{head})" for head in heads}
    assert len(heads) == 2
    first = drawing.findall("g")[0].find("line")
    assert (_number(first.get("x1")), _number(first.get("x2"))) == (0, 100)


def test_those_who_cannot_see_it_read_the_same():
    figure = _figure(_network())
    assert figure.find(".//desc").text == "A path. 4 vertices (2 left; 2 right), 3 edges (2 within; 1 across)."
    words = {dt.text: dd.text for dt, dd in zip(figure.iter("dt"), figure.iter("dd"), strict=True)}
    assert words == {
        "left (2)": "0, 1",
        "right (2)": "2, a longer one",
        "within (2)": "0 - 1, 2 - a longer one",
        "across (1)": "1 - 2",
    }
    long = _network(edges=[(0, 1)] * 100, edge_class=[0] * 100)
    assert next(dd.text for dd in _figure(long).iter("dd") if "-" in (dd.text or "")).endswith(", and 20 more")


def _boxes(drawing: ElementTree.Element, width: float) -> list[tuple[float, float, float, float]]:
    """Boxes of labels at one width: letters taken as 6 px wide and 11 px high."""
    found = []
    for svg in drawing.findall("svg"):
        for text in svg.iter("text"):
            x, y, half = _number(svg.get("x")) / 100 * width, _number(svg.get("y")), 3 * len(text.text or "")
            found.append((x - half, x + half, y - 5, y + 5))
    for text in drawing.findall("text"):
        x, y, size = _number(text.get("x")) / 100 * width, _number(text.get("y")), 6 * len(text.text or "")
        x, y = x + _number(text.get("dx")), y + _number(text.get("dy"))
        start = x - {"start": 0.0, "middle": size / 2, "end": size}[text.get("text-anchor", "")]
        found.append((start, start + size, y - 8, y + 3))
    return found


@pytest.mark.parametrize("width", [280, 341, 500, 900])
def test_labels_stay_apart_at_any_width_or_are_left_out(networks, width):
    for network in networks[1:]:
        drawing = _drawing(_figure(network))
        boxes = _boxes(drawing, width)
        for n, (left, right, top, bottom) in enumerate(boxes):
            assert left >= -18
            assert right <= width + 18
            for other in boxes[n + 1 :]:
                assert right <= other[0] or other[1] <= left or bottom <= other[2] or other[3] <= top, network.title


def test_labels_that_are_left_out_are_counted(networks):
    many = networks[4]
    figure = _figure(many)
    written = len(_boxes(_drawing(figure), 280))
    assert 5 < written < 60
    note = next(p.text for p in figure.iter("p") if p.get("class") == "rankdiag-small")
    assert note == f"{written} of 60 labels are written; point at a vertex to read its label."
    assert [p for p in _figure(_network()).iter("p") if p.get("class") == "rankdiag-small"] == []


def test_every_vertex_is_named_when_pointed_at(networks):
    for network in networks:
        titles = [svg.find("g/title").text for svg in _drawing(_figure(network)).findall("svg")]
        kinds = [network.node_classes[kind].label for kind in network.node_class]
        assert titles == [f"{name} ({kind})" for name, kind in zip(network.names, kinds, strict=True)]


def test_a_page_and_a_fragment_with_graphs_are_sound(networks, hostile):
    document = Document(title="Graphs", networks=networks, sections=(Document(title="In it", networks=networks),))
    for text in (render_page(document), render_fragment(document), render_page([document, hostile])):
        assert problems(text if text.startswith("<!") else f"<h1>x</h1><h2>x</h2>{text}") == []
    page = Page(render_page(hostile))
    assert "<script>alert(1)</script>" in page.text
    assert page.count("script") == 0
    assert render_page(document) == render_page(document)


def test_text_says_that_there_is_a_drawing():
    text = render_text(Document(title="t", networks=(_network(),)), width=200)
    words = (
        "Four: a drawing of 4 vertices (2 left; 2 right), 3 edges (2 within; 1 across); see plot() or the HTML page."
    )
    assert words in text.splitlines()
    assert max(map(len, render_text(Document(title="t", networks=(_network(),)), width=40).splitlines())) <= 40


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"x": [0.0]}, r"`x`, `y` and `node_class` must have 4 entries"),
        ({"node_class": [0]}, r"must have 4 entries"),
        ({"edge_class": [0]}, r"`edge_class` must have 3 entries; got 1"),
        ({"x": [0.0, 1.0, 1.1, 0.0]}, "unit square"),
        ({"y": [0.0, 1.0, float("nan"), 0.0]}, "unit square"),
        ({"edges": [(0, 1), (1, 1), (2, 3)]}, "two different vertices below 4"),
        ({"edges": [(0, 1), (1, 4), (2, 3)]}, "two different vertices below 4"),
        ({"edges": [(0, 1), (1, -1), (2, 3)]}, "two different vertices below 4"),
        ({"node_class": [0, 0, 0, 2]}, "`node_class` must hold places in `node_classes`, below 2"),
        ({"edge_class": [0, 0, -1]}, "`edge_class` must hold places in `edge_classes`, below 2"),
    ],
)
def test_what_cannot_be_drawn_is_refused(changes, words):
    with pytest.raises(ValueError, match=words):
        _network(**changes)


# --- results -----------------------------------------------------------------------------------------------


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Map(Result):
    tag: ClassVar[str] = "networktest.Map"

    name: str = "x"
    plotted: bool = True

    def document(self):
        plot = Plot(title="Curve", x_label="x", y_label="y", series=(Series(label="s", x=(1.0,), y=(1.0,)),))
        network = _network(names=["0", "1", "2", self.name])
        base = super(Map, self).document()
        return dataclasses.replace(base, plots=(plot,) if self.plotted else (), networks=(network,))


def test_graphs_survive_reports_sections_and_json():
    result = Map(name="<b>&")
    section = Section(title="A part", results=[result, Map(name="other")])
    page = to_html([section, result])
    assert problems(page) == []
    assert Page(page).text.count("The same in words") == 3
    assert "<b>" not in page
    assert to_text(section).count("a drawing of 4 vertices") == 2
    again = from_json(to_json([section, result]))
    assert to_html(again) == page
    assert 'role="img"' in result._repr_html_()


def test_drawn_graphs_are_counted_after_the_plots():
    matplotlib = pytest.importorskip("matplotlib")
    from matplotlib.figure import Figure

    matplotlib.use("Agg")
    axes = Figure().subplots(1, 3)
    assert Map().plot(axes[0]).get_title() == "Curve"
    assert Map().plot(axes[1], which=1).get_title() == "Four"
    assert Map(plotted=False).plot(axes[2]).get_title() == "Four"
    with pytest.raises(ValueError, match="`which` must be below 2"):
        Map().plot(which=2)


def test_matplotlib_draws_kinds_edges_and_labels(networks):
    matplotlib = pytest.importorskip("matplotlib")
    from matplotlib import pyplot
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    from rankdiag._mpl import draw

    matplotlib.use("Agg")
    figure = Figure()
    FigureCanvasAgg(figure)
    ax = figure.subplots()
    name = r"$\frac{ _x"
    before = pyplot.get_fignums()
    assert draw(_network(names=["0", "1", "2", name], directed=True), ax) is ax
    assert pyplot.get_fignums() == before
    within, across, left, ring, right = ax.lines
    assert [line.get_label() for line in (within, across, left, right)] == ["within", "across", "left", "right"]
    assert across.get_linestyle() != within.get_linestyle()
    assert left.get_marker() != right.get_marker() == ring.get_marker()
    assert left.get_markerfacecolor() == "white" != right.get_markerfacecolor()
    assert list(left.get_xdata()) == [0.0, 1.0]
    texts = [text.get_text() for text in ax.texts]
    assert [text for text in texts if text] == ["0", "1", "2", name]
    assert texts.count("") == 3  # arrows
    assert [text.get_text() for text in ax.get_legend().get_texts()] == ["within", "across", "left", "right"]
    figure.canvas.draw()
    for network in networks:
        ax = figure.add_subplot()
        draw(network, ax)
        assert ax.get_title() == network.title
    figure.canvas.draw()
