"""A spectrum as a result: JSON and back, copies, text, plots; and randomness that leaves no trace."""

from __future__ import annotations

import copy
import json
import math
import pickle
import random
import re
import subprocess
import sys

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

import rankdiag.spectral as sp
from oracles.spectral_cases import cases, spectra
from rankdiag._result import Result, result_from_dict, result_from_json

MATRIX = np.random.default_rng(3).standard_normal((9, 6))
MAKERS = {
    "svd": lambda: sp.spectrum(MATRIX, method="svd"),
    "qr_svd": lambda: sp.spectrum(MATRIX, method="qr_svd"),
    "gram": lambda: sp.spectrum(MATRIX, method="gram"),
    "topk": lambda: sp.spectrum(MATRIX, method="topk", k=2, rng=5),
    "slq": lambda: sp.spectrum(MATRIX, method="slq", rng=5),
    "values": lambda: sp.Spectrum.from_values([3.0, 1.0, 0.0]),
    "batch": lambda: sp.spectrum(np.stack([MATRIX, 0 * MATRIX])),
    "bfloat16": lambda: sp.spectrum(torch.tensor(MATRIX).bfloat16()),
    "zero": lambda: sp.spectrum(np.zeros((2, 2))),
}
each = pytest.mark.parametrize("make", list(MAKERS.values()), ids=list(MAKERS))


def through_json(s):
    return json.loads(json.dumps(s.to_dict(), allow_nan=False))


@each
def test_json_round_trip(make):
    s = make()
    data = through_json(s)
    assert data["type"] == "spectral.Spectrum"
    back = result_from_dict(data)
    assert isinstance(back, sp.Spectrum)
    assert isinstance(back, Result)
    assert back == s
    np.testing.assert_array_equal(back.values, s.values)
    np.testing.assert_array_equal(back.error_bound, s.error_bound)
    np.testing.assert_array_equal(back.frobenius, s.frobenius)
    assert back.shape == s.shape == tuple(back.shape)
    assert (back.method, back.input_dtype) == (s.method, s.input_dtype)
    assert not back.values.flags.writeable
    assert result_from_json(s.to_json()) == s
    assert sp.Spectrum.from_dict(data) == s
    if s.method not in {"slq", "topk"}:
        np.testing.assert_array_equal(back.effective_rank(), s.effective_rank())
        np.testing.assert_array_equal(back.distance_to_rank(1), s.distance_to_rank(1))
    if s.method == "slq":
        assert back.effective_rank() == s.effective_rank()


@given(spectra(), st.sampled_from([0.0, 1e-300, math.inf]))
def test_json_round_trip_of_any_values(values, bound):
    try:
        s = sp.Spectrum.from_values(values, error_bound=bound)
    except ValueError:
        assert math.isinf(bound)
        return
    back = result_from_dict(through_json(s))
    assert back == s
    assert back.values.tolist() == s.values.tolist()
    assert back.error_bound == bound


def test_a_broken_dictionary_is_refused():
    data = through_json(MAKERS["svd"]())
    for path, value in (("values", "x"), ("shape", [1]), ("method", 3), ("frobenius", "big")):
        broken = copy.deepcopy(data)
        broken["fields"][path] = value
        with pytest.raises(ValueError, match="data"):
            result_from_dict(broken)


@each
def test_pickle_and_copies(make):
    s = make()
    for twin in (pickle.loads(pickle.dumps(s)), copy.copy(s), copy.deepcopy(s)):
        assert twin == s
        assert hash(twin) == hash(s)
        np.testing.assert_array_equal(twin.values, s.values)
        assert not twin.values.flags.writeable


@each
def test_a_spectrum_is_frozen(make):
    s = make()
    for name in ("values", "method", "error_bound", "new"):
        with pytest.raises((AttributeError, TypeError)):
            setattr(s, name, 1)


def test_spectra_compare_by_what_they_hold():
    assert MAKERS["svd"]() == MAKERS["svd"]()
    assert MAKERS["svd"]() != MAKERS["gram"]()
    assert MAKERS["svd"]() != sp.spectrum(2 * MATRIX, method="svd")
    assert MAKERS["svd"]() != "a spectrum"


@each
def test_text_and_html(make):
    s = make()
    text = s.summary()
    assert text == str(s)
    assert "nan" not in text.lower()
    assert s.method in text
    assert max(map(len, s.summary(width=60).splitlines())) <= 100
    html = s._repr_html_()
    assert "<script" not in html
    assert "http" not in re.sub(r"http://www\.w3\.org/\S+", "", html)
    assert len(s.explanation) > 20


def test_summary_prints_tolerances_beside_the_counts():
    # eps_rank, numerical_rank and effective_rank must be told apart: the tolerance stands beside the number.
    text = MAKERS["svd"]().summary()
    assert re.search(r"numerical.rank", text, re.I)
    tolerance = 9 * 2.0**-52 * np.linalg.norm(MATRIX, 2)
    shown = [float(x) for x in re.findall(r"\d+(?:\.\d+)?e-\d+", text)]
    assert any(abs(x - tolerance) <= 0.01 * tolerance for x in shown), text
    coarse = MAKERS["bfloat16"]().summary()
    tolerance = 2.0**-7 * np.linalg.norm(MATRIX, 2)  # 0.038
    assert f"{tolerance:.2g}"[:5] in coarse, coarse
    assert re.search(r"effective.rank", text, re.I)
    assert "sigma" in text


def test_meta_says_how_it_was_made():
    s = MAKERS["svd"]()
    assert s.meta.dtype == "float64"
    assert s.meta.base == "e"
    assert s.meta.definition
    assert s.verdict == "unknown"  # no threshold with a source exists for a bare spectrum
    assert MAKERS["bfloat16"]().meta.dtype == "bfloat16"
    assert MAKERS["slq"]().meta.seed == 5


@pytest.mark.parametrize("name", [n for n in MAKERS if n != "slq"])
def test_plot_on_given_axes(name):
    matplotlib = pytest.importorskip("matplotlib")
    matplotlib.use("Agg")
    from matplotlib import pyplot

    s = MAKERS[name]()
    figure, ax = pyplot.subplots()
    try:
        count = len(pyplot.get_fignums())
        assert s.plot(ax) is ax
        assert len(pyplot.get_fignums()) == count
        assert ax.get_xlabel()
        assert ax.get_ylabel()
        assert ax.lines or ax.collections or ax.patches
    finally:
        pyplot.close(figure)


def test_plot_shows_the_values():
    matplotlib = pytest.importorskip("matplotlib")
    matplotlib.use("Agg")
    from matplotlib import pyplot

    s = MAKERS["svd"]()
    figure, ax = pyplot.subplots()
    try:
        s.plot(ax)
        drawn = [np.asarray(line.get_ydata(), float) for line in ax.lines]
        drawn += [np.asarray(c.get_offsets(), float)[:, 1] for c in ax.collections if len(c.get_offsets())]
        assert any(d.size == s.values.size and np.allclose(d, s.values) for d in drawn)
    finally:
        pyplot.close(figure)


# --- randomness --------------------------------------------------------------------------------------------


def global_states():
    kind, keys, *rest = np.random.get_state()  # noqa: NPY002 - the global state is what must not move
    return (random.getstate(), kind, keys.tobytes(), tuple(rest), torch.get_rng_state().numpy().tobytes())


@pytest.mark.parametrize("rng", [None, 7, "generator"])
@pytest.mark.parametrize("method", ["topk", "slq"])
def test_global_random_states_are_not_touched(method, rng):
    before = global_states()
    options = {"k": 2} if method == "topk" else {}
    sp.spectrum(MATRIX, method=method, rng=np.random.default_rng(1) if rng == "generator" else rng, **options)
    sp.effective_rank(MATRIX)
    sp.stable_rank(MATRIX)
    assert global_states() == before


@pytest.mark.parametrize("method", ["topk", "slq"])
def test_same_seed_same_result(method):
    options = {"k": 2} if method == "topk" else {}
    one = sp.spectrum(MATRIX, method=method, rng=11, **options)
    two = sp.spectrum(MATRIX, method=method, rng=11, **options)
    assert one == two
    assert one.seed == one.meta.seed == 11
    drawn = sp.spectrum(MATRIX, method=method, **options)
    assert isinstance(drawn.seed, int)
    assert sp.spectrum(MATRIX, method=method, rng=drawn.meta.seed, **options) == drawn
    generator = sp.spectrum(MATRIX, method=method, rng=np.random.default_rng(11), **options)
    np.testing.assert_array_equal(generator.values, one.values)
    np.testing.assert_array_equal(generator.error_bound, one.error_bound)
    assert generator.meta.seed is None


def test_exact_methods_draw_nothing():
    generator = np.random.default_rng(0)
    before = generator.bit_generator.state
    for method in ("svd", "qr_svd", "gram", "auto"):
        assert sp.spectrum(MATRIX, method=method, rng=generator).meta.seed is None
    assert generator.bit_generator.state == before
    for method in ("svd", "qr_svd", "gram"):
        assert sp.spectrum(MATRIX, method=method) == sp.spectrum(MATRIX, method=method)


@given(cases(max_side=10, kinds=("gaussian", "deficient", "clustered")))
def test_dtype_defaults_and_warning_filters_survive(case):
    import warnings

    before = torch.get_default_dtype(), list(warnings.filters), np.geterr()
    sp.effective_rank(case.matrix)
    sp.spectrum(case.matrix, method="topk", k=1, rng=0)
    sp.spectrum(case.matrix, method="slq", rng=0)
    assert (torch.get_default_dtype(), list(warnings.filters), np.geterr()) == before


@pytest.mark.parametrize("method", ["svd", "qr_svd", "gram", "topk", "slq"])
def test_threads_and_blocking_change_nothing(method):
    threadpoolctl = pytest.importorskip("threadpoolctl")
    matrix = np.random.default_rng(9).standard_normal((1000, 40))
    options = {"k": 3, "rng": 0} if method == "topk" else {"rng": 0}
    found = []
    for threads in (1, 2):
        with threadpoolctl.threadpool_limits(threads):
            found.append(sp.spectrum(matrix, method=method, **options))
    one, two = found
    np.testing.assert_allclose(one.values, two.values, rtol=1e-12)
    assert one.frobenius == pytest.approx(two.frobenius, rel=1e-14)
    if method == "slq":
        assert one.effective_rank() == pytest.approx(two.effective_rank(), rel=1e-10)


def test_concurrent_calls_give_the_same():
    from concurrent.futures import ThreadPoolExecutor

    batch = np.random.default_rng(0).standard_normal((16, 30, 20))
    serial = [sp.spectrum(m).values for m in batch]
    with ThreadPoolExecutor(4) as pool:
        threaded = list(pool.map(lambda m: sp.spectrum(m).values, batch))
    for one, two in zip(serial, threaded, strict=True):
        np.testing.assert_array_equal(one, two)


def test_numpy_work_loads_nothing_heavy():
    code = (
        "import sys, rankdiag.spectral as sp; sp.Spectrum; "
        "print(sorted({'torch', 'scipy', 'matplotlib'} & {*sys.modules})); "
        "sp.effective_rank([[3.0, 0.0], [0.0, 1.0]]); "
        "print(sorted({'torch', 'scipy.stats', 'scipy.sparse', 'matplotlib', 'pandas'} & {*sys.modules}))"
    )
    found = subprocess.run([sys.executable, "-W", "error", "-c", code], capture_output=True, text=True, check=True)
    assert found.stdout.split() == ["[]", "[]"]
