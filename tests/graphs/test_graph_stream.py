"""The queue against the greedy choice from its definition, recomputed on the graph as it stands after every call."""

from __future__ import annotations

import copy
import itertools
import pickle

import networkx as nx
import numpy as np
import pytest
import scipy.sparse
import torch
from hypothesis import given
from hypothesis import strategies as st

from rankdiag.graphs._stream import OneWISQueue, stream_sparsify


class Plain:
    """Edges in a list; leximin over the tuples of degree + 1 of all vertices that ever had an edge."""

    def __init__(self):
        self.edges = []
        self.seen = set()

    def add(self, u, v):
        edge = (min(u, v), max(u, v))
        self.seen |= set(edge)
        if edge not in self.edges:
            self.edges.append(edge)

    def remove(self, u, v):
        self.edges.remove((min(u, v), max(u, v)))

    def values_without(self, gone):
        rest = [edge for edge in self.edges if edge != gone]
        degree = {t: sum(t in edge for edge in rest) for t in self.seen}
        return sorted(d + 1 if d else 0 for d in degree.values())

    def choice(self):
        return max(self.edges, key=self.values_without)  # the first of several

    def pop(self):
        found = self.choice()
        self.edges.remove(found)
        return found


def run(operations, vertices):
    queue, plain = OneWISQueue(), Plain()
    for kind, u, v in operations:
        u, v = u % vertices, v % vertices
        if kind == "pop":
            if plain.edges:
                assert queue.peek() == plain.choice()
                assert queue.pop() == plain.pop()
            else:
                for call in (queue.pop, queue.peek):
                    with pytest.raises(IndexError, match="the queue has no edges"):
                        call()
        elif kind == "remove":
            if (min(u, v), max(u, v)) in plain.edges:
                queue.remove_edge(u, v)
                plain.remove(u, v)
            else:
                with pytest.raises(KeyError, match=rf"no edge \({u}, {v}\)"):
                    queue.remove_edge(u, v)
        elif u != v:
            queue.add_edge(u, v)
            plain.add(u, v)
        assert queue.edges() == plain.edges
        assert len(queue) == len(plain.edges)
    assert queue.degrees == {t: d for t in plain.seen if (d := sum(t in edge for edge in plain.edges))}
    assert [queue.pop() for _ in range(len(queue))] == [plain.pop() for _ in range(len(plain.edges))]


STEP = st.tuples(st.sampled_from(["add", "add", "add", "pop", "remove"]), st.integers(0, 7), st.integers(0, 7))


@given(st.lists(STEP, max_size=30), st.integers(2, 8))
def test_every_choice_is_greedy(operations, vertices):
    run(operations, vertices)


@pytest.mark.slow
def test_three_hundred_long_sequences():
    for seed in range(300):
        rng = np.random.default_rng(seed)
        kinds = rng.choice(["add", "pop", "remove"], size=80, p=[0.65, 0.2, 0.15]).tolist()
        ends = rng.integers(0, 12, (80, 2)).tolist()
        run([(kind, u, v) for kind, (u, v) in zip(kinds, ends, strict=True)], 4 + seed % 9)


def test_a_whole_order_is_that_of_the_degree_rule():
    figure = [(0, 1), (0, 2), (1, 3), (2, 4), (2, 5), (3, 5), (4, 6), (5, 6)]
    queue = OneWISQueue(figure)
    assert [queue.pop() for _ in range(8)] == [(2, 5), (0, 1), (2, 4), (3, 5), (4, 6), (0, 2), (1, 3), (5, 6)]
    five = list(itertools.combinations(range(5), 2))
    queue = OneWISQueue(five)
    order = [queue.pop() for _ in range(10)]
    assert order == [(0, 1), (2, 3), (0, 4), (1, 2), (3, 4), (0, 2), (1, 3), (1, 4), (0, 3), (2, 4)]


def test_numbers_decide_ties():
    queue = OneWISQueue([(0, 1), (2, 3), (4, 5)])
    queue.add_edge(1, 0)  # it is there: it keeps its number
    assert queue.peek() == (0, 1)
    queue.remove_edge(0, 1)
    queue.add_edge(0, 1)  # it comes again: it counts as new
    assert [queue.pop() for _ in range(3)] == [(2, 3), (4, 5), (0, 1)]


@given(
    st.lists(st.tuples(st.integers(0, 6), st.integers(0, 6)).filter(lambda e: e[0] != e[1]), max_size=25),
    st.integers(0, 8),
)
def test_a_stream_within_a_budget(edges, budget):
    plain, expected = Plain(), []
    for u, v in edges:
        plain.add(u, v)
        while len(plain.edges) > budget:
            expected.append(plain.pop())
    assert list(stream_sparsify(edges, budget)) == expected
    assert list(stream_sparsify(np.array(edges, np.int32).reshape(-1, 2), budget)) == expected
    assert list(stream_sparsify(torch.tensor(edges).reshape(-1, 2), budget)) == expected


def test_an_endless_stream_is_read_as_it_comes():
    arrived = []

    def endless():
        for k in itertools.count():
            arrived.append(k)
            yield k, k + 1

    drops = stream_sparsify(endless(), 3)
    assert not arrived
    assert next(drops) == (1, 2)
    assert len(arrived) == 4


def test_rows_of_an_array_are_read_as_they_come(tmp_path):
    beyond = np.broadcast_to(np.array([3, 5]), (2**40, 2))  # of no length that could be listed
    assert next(stream_sparsify(beyond, 0)) == (3, 5)
    with pytest.raises(ValueError, match=r"`edges` of shape \(1099511627776, 2\) needs"):
        OneWISQueue(beyond)
    rows = np.stack((np.arange(10_000), np.arange(10_000) + 1), axis=1)
    np.save(tmp_path / "rows.npy", rows)
    mapped = np.load(tmp_path / "rows.npy", mmap_mode="r")
    assert list(stream_sparsify(mapped, 9_990)) == list(stream_sparsify(iter(rows.tolist()), 9_990))


def test_an_error_of_the_source_is_not_hidden():
    def broken():
        yield 0, 1
        raise OSError("the file ends here")

    drops = stream_sparsify(broken(), 0)
    assert next(drops) == (0, 1)
    with pytest.raises(OSError, match="the file ends here"):
        next(drops)


class Sullen:
    """Every attribute that its class lacks raises something of its own."""

    def __getattr__(self, name):
        raise RuntimeError(name)


class Refusing:
    def __iter__(self):
        raise RuntimeError("not today")


@pytest.mark.parametrize(
    ("edges", "message"),
    [
        (np.zeros((0, 3), int), r"`edges` as an array must have shape \(E, 2\); got shape \(0, 3\)"),
        (np.ma.masked_array([[0, 1]], [[0, 1]]), "got a masked array"),
        (scipy.sparse.csr_array(np.eye(2, dtype=int)), "got csr_array of shape"),
        (scipy.sparse.coo_matrix(np.eye(3, dtype=int)), "got coo_matrix of shape"),
        (nx.path_graph([(0, 1), (1, 2)]), r"got Graph. Pass its .edges\(\)"),
        (torch.eye(2, dtype=torch.int64).to_sparse(), "no plain data"),
        (torch.zeros((1, 1), dtype=torch.int64).expand(2**34, 2), r"`edges` of shape \(17179869184, 2\) needs"),
        (Sullen, "`edges` must be an iterable of pairs of vertex ids; got Sullen"),
        (Refusing, r"got Refusing \(not today\)"),
    ],
)
def test_what_is_no_stream_is_refused_at_once(edges, message):
    edges = edges() if isinstance(edges, type) else edges  # some cannot stand in a list of cases
    for call in (OneWISQueue, lambda found: stream_sparsify(found, 2)):
        with pytest.raises((TypeError, ValueError), match=message):
            call(edges)


def test_memory_follows_the_edges_that_are_left():
    queue = OneWISQueue()
    largest = 0
    for k in range(6000):
        queue.add_edge(k % 13, 100 + (k * 7) % 101)
        if len(queue) > 40:
            queue.pop()
        largest = max(largest, len(queue._heap))
    assert len(queue) == 40
    assert largest <= 4 * 41 + 64
    assert sum(queue.degrees.values()) == 80
    for _ in range(6000):  # a present edge that goes and comes
        u, v = queue.edges()[0]
        queue.remove_edge(u, v)
        queue.add_edge(u, v)
        largest = max(largest, len(queue._heap))
    assert largest <= 4 * 41 + 64


def test_copies_and_text():
    queue = OneWISQueue([(3, 1), (1, 2)])
    assert repr(queue) == "OneWISQueue(3 vertices, 2 edges)"
    for twin in (copy.copy(queue), copy.deepcopy(queue), pickle.loads(pickle.dumps(queue))):
        assert twin.edges() == [(1, 3), (1, 2)]
        twin.pop()
        assert (len(queue), len(twin)) == (2, 1)
    queue.degrees[1] = 99  # a copy
    assert queue.degrees == {3: 1, 1: 2, 2: 1}


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda: OneWISQueue([(1, 1)]), ValueError, r"got the self-loop \(1, 1\)"),
        (lambda: OneWISQueue().add_edge(2, 2), ValueError, r"`v` must differ from `u`"),
        (lambda: OneWISQueue().add_edge(-1, 2), ValueError, "`u` must be an integer >= 0"),
        (lambda: OneWISQueue().add_edge(0, 1.0), TypeError, "`v` must be an integer"),
        (lambda: OneWISQueue([(0, 1, 2)]), TypeError, "`edges` must hold pairs of vertex ids; got tuple at place 0"),
        (
            lambda: OneWISQueue([(0, 1), (0, True)]),
            TypeError,
            "`edges` must hold pairs of vertex ids; got tuple at place 1",
        ),
        (lambda: OneWISQueue([(0, -1)]), ValueError, r"`edges` holds a negative vertex id, \(0, -1\) at place 0"),
        (lambda: OneWISQueue(np.zeros((2, 3), int)), ValueError, r"`edges` as an array must have shape \(E, 2\)"),
        (lambda: OneWISQueue(np.zeros((3, 2))), TypeError, "`edges` must hold pairs of vertex ids; got dtype float64"),
        (lambda: OneWISQueue(torch.zeros((2, 2), device="meta")), TypeError, "`edges` must be pairs of vertex ids"),
        (lambda: OneWISQueue(3), TypeError, "`edges` must be an iterable of pairs of vertex ids; got 3"),
        (lambda: OneWISQueue("ab"), TypeError, "`edges` must be an iterable of pairs"),
        (lambda: stream_sparsify([], -1), ValueError, "`budget` must be an integer >= 0; got -1"),
        (lambda: stream_sparsify([], None), TypeError, "`budget` must be an integer"),
        (lambda: stream_sparsify(None, 1), TypeError, "`edges` must be an iterable of pairs"),
        (lambda: OneWISQueue().remove_edge(0, 1), KeyError, r"no edge \(0, 1\) in the queue"),
        (lambda: OneWISQueue().pop(), IndexError, "the queue has no edges"),
        (lambda: OneWISQueue().peek(), IndexError, "the queue has no edges"),
    ],
)
def test_errors(call, error, message):
    with pytest.raises(error, match=message):
        call()
