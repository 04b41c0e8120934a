"""The task of two images: who stands where, how hard the graph makes it, and that pairs are what they claim."""

from __future__ import annotations

import networkx as nx
import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from rankdiag.graphs import make_same_class_task, same_class_graph, same_class_layout
from rankdiag.graphs import walk_index as ours

IMAGES = np.arange(10 * 8, dtype=float).reshape(10, 2, 4)  # every pixel has a value of its own
LABELS = np.array([0, 1, 2, 0, 1, 2, 0, 1, 2, 3])


def walk_index(columns, inside, depth):
    n = len(inside)
    a = np.eye(n, dtype=int)
    a[columns[0], columns[1]] = 1
    side = np.array(inside)
    boundary = np.array([any(a[j, i] and side[i] != side[j] for j in range(n)) for i in range(n)])
    return int(boundary @ np.linalg.matrix_power(a, depth - 1) @ np.ones(n, int))


@pytest.mark.parametrize(("layout", "values"), [("low", (2, 34, 548)), ("high", (32, 514, 8258))])
def test_walk_indices_of_the_partition_by_image(layout, values):
    inside = same_class_layout(16, layout)[:, 0] == 0
    found = tuple(walk_index(same_class_graph(16), inside, depth) for depth in (1, 2, 3))
    assert found == values
    assert tuple(ours(same_class_graph(16), inside, depth) for depth in (1, 2, 3)) == values


def test_the_worked_layouts():
    def words(layout):
        return " ".join("ab"[image] + str(chunk) for image, chunk in same_class_layout(4, layout).tolist())

    assert words("high") == "a0 b0 a1 b1 b2 a2 b3 a3"
    assert words("low") == "a0 a1 a2 a3 b0 b1 b2 b3"
    assert same_class_layout(2, "high").tolist() == [[0, 0], [1, 0], [1, 1], [0, 1]]


@given(st.integers(1, 10), st.sampled_from(["low", "high"]))
def test_every_chunk_of_both_images_stands_at_one_vertex(half, layout):
    rows = same_class_layout(2 * half, layout)
    assert rows.dtype == np.int64
    assert sorted(map(tuple, rows.tolist())) == [(image, chunk) for image in (0, 1) for chunk in range(2 * half)]


@pytest.mark.parametrize("patches", [2, 4, 16])
def test_the_graph_is_two_cliques_and_one_edge(patches):
    columns = same_class_graph(patches)
    assert columns.dtype == np.int64
    graph = nx.disjoint_union(nx.complete_graph(patches), nx.complete_graph(patches))
    graph.add_edge(0, patches)
    both = sorted([*graph.edges(), *((v, u) for u, v in graph.edges())])
    assert list(zip(*columns.tolist(), strict=True)) == both


@pytest.mark.parametrize("layout", ["low", "high"])
@pytest.mark.parametrize("n_pairs", [0, 1, 2, 41])
def test_pairs_are_two_whole_images_and_balanced(layout, n_pairs):
    x, y = make_same_class_task(IMAGES, LABELS, n_pairs, patches=4, layout=layout, rng=0)
    assert x.shape == (n_pairs, 8, 2)
    assert x.dtype == np.float64
    assert (y.dtype, y.sum()) == (np.int64, n_pairs // 2)
    rows = same_class_layout(4, layout)
    for features, label in zip(x, y, strict=True):
        pair = []
        for image in (0, 1):
            chunks = features[rows[:, 0] == image][np.argsort(rows[rows[:, 0] == image, 1])]
            which = int(chunks[0, 0]) // 8
            np.testing.assert_array_equal(chunks.ravel(), IMAGES[which].ravel())
            pair.append(which)
        assert pair[0] != pair[1]
        assert (LABELS[pair[0]] == LABELS[pair[1]]) == bool(label)


def test_every_pair_that_fits_is_drawn_about_as_often_as_it_should_be():
    x, y = make_same_class_task(IMAGES, LABELS, 40000, patches=2, layout="low", rng=1)
    first, second = (x[:, 0, 0] // 8).astype(int), (x[:, 2, 0] // 8).astype(int)
    counts = np.zeros((10, 10))
    np.add.at(counts, (first, second), 1)
    same = (LABELS[:, None] == LABELS) & ~np.eye(10, dtype=bool)
    expected = np.zeros((10, 10))
    expected[same] = 20000 / same.sum()  # three classes of three images: all ordered pairs alike
    other = LABELS[:, None] != LABELS
    expected += np.where(other, 2000 / other.sum(axis=1, keepdims=True), 0)
    assert (counts[expected == 0] == 0).all()
    keep = expected > 0
    statistic = ((counts[keep] - expected[keep]) ** 2 / expected[keep]).sum()
    assert keep.sum() == 90
    assert statistic < 135.0  # chi-square with 88 degrees of freedom, level 0.001
    assert 0.45 < y[:20000].mean() < 0.55  # mixed, not one kind after the other


def test_both_layouts_show_the_same_pairs_and_the_seed_repeats():
    low, y_low = make_same_class_task(IMAGES, LABELS, 20, patches=4, layout="low", rng=7)
    high, y_high = make_same_class_task(IMAGES, LABELS, 20, patches=4, layout="high", rng=7)
    assert y_low.tolist() == y_high.tolist()
    np.testing.assert_array_equal(np.sort(low.reshape(20, -1)), np.sort(high.reshape(20, -1)))
    again, _ = make_same_class_task(
        IMAGES.tolist(), [str(label) for label in LABELS], 20, patches=4, layout="low", rng=7
    )
    np.testing.assert_array_equal(again, low)
    assert not np.array_equal(make_same_class_task(IMAGES, LABELS, 20, patches=4, layout="low", rng=8)[0], low)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"patches": 3}, "`patches` must be even"),
        ({"patches": 6}, "`patches` must divide the number of pixels, 8; got 6"),
        ({"patches": 0}, "`patches` must be an integer >= 2"),
        ({"layout": "middle"}, "`layout` must be one of 'low', 'high'"),
        ({"labels": [0, 1]}, r"`labels` must hold one class for each of the 10 images; got shape \(2,\)"),
        ({"labels": [0] * 10}, "`labels` must name images of two classes"),
        ({"labels": list(range(10))}, "`labels` must name two images of one class"),
        ({"n_pairs": -1}, "`n_pairs`"),
        ({"n_pairs": 10**15}, "`n_pairs` of shape"),
        ({"images": np.full((10, 8), np.nan)}, "`images` has 80 non-finite"),
    ],
)
def test_refusals(change, message):
    arguments = {"images": IMAGES, "labels": LABELS, "n_pairs": 4, "patches": 4, "layout": "low", **change}
    with pytest.raises(ValueError, match=message):
        make_same_class_task(**arguments, rng=0)


def test_wrong_types():
    with pytest.raises(TypeError, match="`labels` must hold integers or names"):
        make_same_class_task(IMAGES, np.linspace(0, 1, 10), 4, patches=4, layout="low")
    with pytest.raises(TypeError, match="`patches`"):
        same_class_graph(4.0)
    with pytest.raises(ValueError, match="`patches`"):
        same_class_graph(10**6)
    with pytest.raises(ValueError, match="`patches`"):
        same_class_layout(2**60, "low")
    with pytest.raises(TypeError, match="`labels`"):
        make_same_class_task(IMAGES, torch.zeros(10, dtype=torch.int64, device="meta"), 4, patches=4, layout="low")


def test_tensors_are_taken():
    x, y = make_same_class_task(torch.tensor(IMAGES), torch.tensor(LABELS), 20, patches=4, layout="high", rng=7)
    expected = make_same_class_task(IMAGES, LABELS, 20, patches=4, layout="high", rng=7)
    np.testing.assert_array_equal(x, expected[0])
    np.testing.assert_array_equal(y, expected[1])
