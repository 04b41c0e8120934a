"""Documents and results that the tests of the report show."""

from __future__ import annotations

import math
import random
from dataclasses import dataclass
from typing import ClassVar

import pytest

from rankdiag._document import (
    Column,
    Document,
    EdgeClass,
    Grid,
    KeyNumber,
    Network,
    NodeClass,
    Plot,
    ReferenceLine,
    Series,
    Verdict,
)
from rankdiag._result import Meta, Table

_HOSTILE = (
    "<script>alert(1)</script>",
    '"><img src=x onerror=alert(1)>',
    "' onmouseover='alert(1)",
    "</style></title><h1>x",
    "--><!-- ]]>",
    "tab\tand\nnewline \x00\x1b[31mred\x7f\x85",
    "evil\u202egnp.exe \u2066x\u2069 \u200bzero\ufeff",
    "&amp; &lt;script&gt; {{x}} ${y} $\\frac{",
    "x" * 3000,
    "層の重み.0 ñandú Ω é",
    "\u05e9\u05dc\u05d5\u05dd.weight",
    "\ud800 lone surrogate",
    "_hidden",
)


@pytest.fixture
def hostile_names() -> tuple[str, ...]:
    return _HOSTILE


@pytest.fixture
def hostile() -> Document:
    """A document in which every text comes from somebody who means ill."""
    kinds = ("line", "points", "bars", "steps")
    first, second = _HOSTILE[:2]
    return Document(
        title=first,
        verdict="warn",
        explanation=f"{second} {_HOSTILE[8]}",
        key_numbers=tuple(KeyNumber(label=name, value=name, unit=name, doc=name) for name in _HOSTILE),
        grids=(
            Grid(
                title=first,
                columns=(
                    Column(name=second, label=first, unit=second, doc=second),
                    Column(name=first, doc=first),
                    Column(name="value", unit=first),
                ),
                rows=tuple((name, name, float(i)) for i, name in enumerate(_HOSTILE)),
                levels=("warn", "alert", *("ok",) * (len(_HOSTILE) - 2)),
                note=second,
            ),
        ),
        plots=(
            Plot(
                title=first,
                x_label=second,
                y_label=first,
                series=tuple(
                    Series(label=name, x=[i, i + 1], y=[i, 2], names=(name, name), kind=kinds[i % 4])
                    for i, name in enumerate(_HOSTILE)
                ),
                lines=tuple(ReferenceLine(axis="y", value=2 + i / 5, label=name) for i, name in enumerate(_HOSTILE)),
                description=second,
            ),
        ),
        notes=_HOSTILE,
        networks=(
            Network(
                title=first,
                x=[i / 20 for i in range(len(_HOSTILE))],
                y=[(7 * i % 13) / 12 for i in range(len(_HOSTILE))],
                names=_HOSTILE,
                node_class=[i % 4 for i in range(len(_HOSTILE))],
                node_classes=tuple(NodeClass(label=name) for name in _HOSTILE),
                edges=[(i, i + 1) for i in range(12)],
                edge_class=list(range(12)),
                edge_classes=tuple(EdgeClass(label=name) for name in _HOSTILE),
                directed=True,
                description=second,
            ),
        ),
        sections=(Document(title=second, explanation=first, sections=(Document(title=first),)),),
    )


@pytest.fixture
def weights() -> Document:
    """A document of the size and kind that a report of a checkpoint is."""
    draw = random.Random(7)
    names = [
        f"model.layers.{layer}.{part}.weight"
        for layer in range(12)
        for part in ("self_attn.q_proj", "self_attn.k_proj", "mlp.up_proj", "mlp.down_proj")
    ]
    ratios = [draw.uniform(0.2, 0.9) for _ in names]
    ratios[13], ratios[30] = 0.02, 0.07
    levels: tuple[Verdict, ...] = tuple("alert" if r < 0.05 else "warn" if r < 0.1 else "unknown" for r in ratios)
    measures = ("stable rank", "spectral norm", "Frobenius norm", "nuclear norm", "tail alpha", "tail distance")
    columns = (
        Column(name="name", label="tensor", doc="Name in the checkpoint."),
        Column(name="kind"),
        Column(name="shape"),
        Column(name="effective_rank", label="effective rank", unit="directions", doc="How many directions carry it."),
        Column(name="effective_rank_ratio", doc="Effective rank over the smaller side."),
        *(Column(name=m.replace(" ", "_"), label=m, doc=f"The {m}.") for m in measures),
        Column(name="parameters"),
        Column(name="reason"),
    )
    rows = tuple(
        (n, "linear", (2048, 2048), 2048 * r, r, *(draw.uniform(1, 90) for _ in measures), 2048**2, "")
        for n, r in zip(names, ratios, strict=True)
    )
    index = list(range(1, 513))
    layer = [float(i // 4) for i in range(len(names))]
    return Document(
        title="Weights of a small model",
        verdict="alert",
        explanation="Two of 48 matrices use less than a tenth of their directions.",
        key_numbers=(
            KeyNumber(label="parameters", value=201326592),
            KeyNumber(label="mean effective rank", value=0.6123, unit="of the side", doc="Weighted by parameters."),
        ),
        grids=(Grid(title="Matrices", columns=columns, rows=rows, levels=levels, note="A note."),),
        plots=(
            Plot(
                title="Effective rank by layer",
                x_label="layer",
                y_label="effective rank / smaller side",
                series=tuple(
                    Series(label=kind, x=layer[k::4], y=ratios[k::4], names=names[k::4], kind="points")
                    for k, kind in enumerate(("q_proj", "k_proj", "up_proj", "down_proj"))
                ),
                lines=(
                    ReferenceLine(axis="y", value=0.9, label="Marchenko-Pastur"),
                    ReferenceLine(axis="y", value=0.3, label="strongly low rank"),
                ),
            ),
            Plot(
                title="Singular values",
                x_label="index",
                y_label="singular value",
                x_scale="log",
                y_scale="log",
                series=(Series(label="trained", x=index, y=[30 * i**-0.7 for i in index]),),
                lines=(
                    ReferenceLine(axis="x", value=37, label="effective rank"),
                    ReferenceLine(axis="x", value=60, label="participation ratio"),
                    ReferenceLine(axis="y", value=3.2, label="Marchenko-Pastur edge"),
                ),
            ),
        ),
        notes=("Definition: readings of the singular values.", "Skipped model.norm.weight: 1-D, no matrix."),
    )


@pytest.fixture
def odd_plots() -> tuple[Plot, ...]:
    """Plots with nothing, one, constant, missing or extreme values."""

    def plot(title: str, x: list[float], y: list[float], **options: object) -> Plot:
        series = (Series(label="s", x=x, y=y, kind=options.pop("kind", "line")),)  # type: ignore[arg-type]
        return Plot(title=title, x_label="x", y_label="y", series=series, **options)  # type: ignore[arg-type]

    nan, inf = math.nan, math.inf
    return (
        Plot(title="no series", x_label="x", y_label="y", series=()),
        plot("empty series", [], []),
        plot("one point", [3.0], [4.0]),
        plot("one bar", [3.0], [4.0], kind="bars"),
        plot("one step", [3.0], [4.0], kind="steps"),
        plot("constant", [1.0, 2.0, 3.0], [7.0, 7.0, 7.0]),
        plot("all zero", [0.0, 1.0], [0.0, 0.0], kind="bars"),
        plot("nothing finite", [1.0, 2.0], [nan, inf]),
        plot("nothing positive", [1.0, 2.0], [0.0, -1.0], y_scale="log", x_scale="log"),
        plot("gaps", [0.0, 1, 2, 3, 4, 5, 6], [1.0, 2, nan, 4, inf, 5, 6]),
        plot("largest floats", [0.0, 1, 2], [-1.7e308, 0, 1.7e308]),
        plot("all magnitudes", [1e-300, 1, 1e300], [5e-324, 1, 1.7e308], x_scale="log", y_scale="log"),
        plot("subnormal", [0.0, 5e-324], [5e-324, 1e-320]),
        plot("close together", [1e15, 1e15 + 1], [1.0, 1.0 + 1e-15]),
        plot("negative bars", [1.0, 2, 3], [-2.0, 3, -1], kind="bars"),
        plot("bars on a log axis", [1.0, 10, 100], [1.0, 20, 0], kind="bars", x_scale="log", y_scale="log"),
        Plot(
            title="only a line",
            x_label="x",
            y_label="y",
            series=(),
            lines=(
                ReferenceLine(axis="y", value=3.0, label="threshold"),
                ReferenceLine(axis="x", value=inf, label="no"),
            ),
        ),
    )


@pytest.fixture
def networks() -> tuple[Network, ...]:
    """Drawn graphs: none, one and two vertices, a directed one, sixty with long names, vertices on one spot."""
    kinds = (
        NodeClass(label="in"),
        NodeClass(label="in, edge", shape="square", colour=1, filled=True),
        NodeClass(label="hub", shape="diamond", colour=2, ring=True),
        NodeClass(label="rest", shape="triangle", colour=9, filled=True, ring=True),
    )
    lines = (EdgeClass(label="within"), EdgeClass(label="across", dash="dashed", colour=3, strong=True))

    def network(title: str, count: int, names: list[str], step: int, **options: object) -> Network:
        draw = random.Random(count)
        edges = [(i, (i + step) % count) for i in range(count) if (i + step) % count != i]
        return Network(
            title=title,
            x=[draw.random() for _ in range(count)],
            y=[draw.random() for _ in range(count)],
            names=names,
            node_class=[i % 4 for i in range(count)],
            node_classes=kinds,
            edges=edges,
            edge_class=[i % 2 for i in range(len(edges))],
            edge_classes=lines,
            **options,  # type: ignore[arg-type]
        )

    long = [f"number {i}" for i in range(60)]
    spot = Network(title="spot", x=[0.5] * 4, y=[0.5] * 4, names=list("abcd"), node_class=[0] * 4, node_classes=kinds)
    return (
        network("nothing", 0, [], 1),
        network("one", 1, ["alone"], 1),
        network("two", 2, ["0", "1"], 1, directed=True, description="Two of them."),
        network("ring", 12, [str(i) for i in range(12)], 1, directed=True),
        network("many", 60, long, 7),
        spot,
        Network(
            title="corners", x=[0, 1, 1, 0], y=[0, 0, 1, 1], names=long[:4], node_class=[0] * 4, node_classes=kinds
        ),
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class SampleRow:
    name: str
    rank: float | None
    count: int


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Sample(Table[SampleRow]):
    tag: ClassVar[str] = "report_test.Sample"
    columns: ClassVar[tuple[Column, ...]] = (
        Column(name="name", doc="Which."),
        Column(name="rank", unit="directions", doc="How many."),
        Column(name="count"),
    )
    rows: tuple[SampleRow, ...] = ()


@pytest.fixture
def sample() -> Sample:
    rows = tuple(SampleRow(name=f"layer.{i}", rank=None if i == 2 else 1.5 * i, count=10**i) for i in range(5))
    return Sample(rows=rows, explanation="Five layers.", verdict="ok", meta=Meta(definition="a sample", n=5, seed=3))


@pytest.fixture
def other() -> Sample:
    row = SampleRow(name="<script>alert(1)</script> \ud800", rank=math.inf, count=1)
    return Sample(rows=(row,), verdict="warn", explanation="One hostile layer.")
