"""Strategies: what they draw is what they say."""

import numpy as np
import pytest
from hypothesis import HealthCheck, Phase, find, given, settings
from hypothesis import strategies as st

from rankdiag.testing.strategies import (
    PrescribedMatrix,
    bad_arrays,
    layouts,
    matrices,
    orthogonal,
    scales,
    spectra,
)

EPS = np.finfo(np.float64).eps
KINDS = ["any", "flat", "steep", "clustered", "deficient", "power", "zero"]
# Finding an extreme value takes as many draws as it takes.
SEARCH = settings(
    max_examples=5000,
    database=None,
    derandomize=True,
    suppress_health_check=list(HealthCheck),
    phases=[Phase.generate],
)
SHRINK = settings(SEARCH, max_examples=50, phases=[Phase.generate, Phase.shrink])


@given(st.data(), st.sampled_from(KINDS), st.integers(1, 5), st.integers(0, 4))
def test_spectra_are_descending_and_not_negative(data, kind, low, more):
    values = data.draw(spectra(min_size=low, max_size=low + more, kinds=[kind]))
    assert low <= values.size <= low + more
    assert values.dtype == np.float64
    assert not values.flags.writeable
    assert np.isfinite(values).all()
    assert (values >= 0).all()
    assert (np.diff(values) <= 0).all()
    if kind == "flat":
        assert (values == values[0]).all()
        assert values[0] > 0
    if kind == "zero":
        assert not values.any()
    if kind == "deficient":
        assert values[-1] == 0
    if kind in {"steep", "power", "clustered"}:
        assert values[0] > 0


@given(spectra(min_scale=2.0, max_scale=3.0, kinds=["flat"]))
def test_scales_of_spectra_are_kept(values):
    assert (values >= 2.0).all()
    assert (values <= 3.0).all()


@pytest.mark.parametrize(
    "wanted",
    [
        lambda values: values[0] > 1e290,
        lambda values: 0 < values[0] < 1e-290,
        lambda values: values.size > 3 and values[-1] > 0 and values[0] / values[-1] > 1e14,
        lambda values: values.size > 2 and 0 < values[0] - values[1] < 1e-15 * values[0],
        lambda values: values.size > 3 and 0 < (values > 0).sum() < values.size - 1,
        lambda values: values.size == 8 and (values > 0).all(),
        lambda values: not values.any(),
    ],
    ids=["huge", "tiny", "steep", "clustered", "deficient", "full", "zero"],
)
def test_every_adversarial_kind_is_reached(wanted):
    assert find(spectra(), wanted, settings=SEARCH) is not None


@given(st.data(), st.integers(1, 9), st.integers(1, 9))
def test_factors_are_orthonormal(data, a, b):
    rows, columns = max(a, b), min(a, b)
    q = data.draw(orthogonal(rows, columns))
    assert q.shape == (rows, columns)
    assert np.abs(q.T @ q - np.eye(columns)).max() <= 20 * rows * EPS


@given(matrices())
def test_matrices_have_the_prescribed_spectrum(drawn):
    assert isinstance(drawn, PrescribedMatrix)
    m, n = drawn.matrix.shape
    assert drawn.values.shape == (min(m, n),)
    assert np.isfinite(drawn.matrix).all()
    assert not drawn.matrix.flags.writeable
    assert not drawn.values.flags.writeable
    top = np.abs(drawn.matrix).max()
    if top == 0:
        return  # all zeros, or all below the smallest number
    scale = 2.0 ** -np.frexp(top)[1] if top > 1e-290 else 2.0**900
    computed = np.linalg.svd(drawn.matrix * scale, compute_uv=False)
    bound = 8 * max(m, n) * EPS * computed[0] + 1e-320 * scale * m * n
    assert np.abs(computed - drawn.values * scale).max() <= bound


@pytest.mark.parametrize("kind", KINDS)
@given(data=st.data())
def test_matrices_of_one_kind(kind, data):
    drawn = data.draw(matrices(kinds=[kind], min_scale=1e-3, max_scale=1e3, square=True))
    assert drawn.kind == kind
    assert drawn.matrix.shape[0] == drawn.matrix.shape[1]
    rank = int((np.linalg.svd(drawn.matrix, compute_uv=False) > 1e-9 * max(drawn.values[0], 1e-300)).sum())
    if kind == "zero":
        assert rank == 0
    if kind == "deficient":
        assert rank < drawn.matrix.shape[0]
    if kind in {"flat", "power"}:
        assert rank == drawn.matrix.shape[0]


@pytest.mark.parametrize("wanted", ["tall", "wide", "square", "single"])
def test_every_shape_is_reached(wanted):
    tests = {
        "tall": lambda d: d.matrix.shape[0] > 2 * d.matrix.shape[1],
        "wide": lambda d: d.matrix.shape[1] > 2 * d.matrix.shape[0],
        "square": lambda d: d.matrix.shape[0] == d.matrix.shape[1] > 2,
        "single": lambda d: d.matrix.shape == (1, 1),
    }
    assert find(matrices(), tests[wanted], settings=SEARCH) is not None


def test_matrices_shrink_to_something_readable():
    drawn = find(matrices(kinds=["any"]), lambda d: d.values[0] > 0.5, settings=SHRINK)
    assert drawn.matrix.tolist() == [[1.0]]


@given(scales())
def test_scales(scale):
    assert 1e-300 <= scale <= 1e300
    assert type(scale) is float


def test_extreme_scales_are_reached():
    assert find(scales(), lambda scale: scale > 1e295, settings=SEARCH)
    assert find(scales(), lambda scale: scale < 1e-295, settings=SEARCH)
    assert find(scales(low=2.0, high=2.0), lambda scale: True, settings=SEARCH) == 2.0


@given(st.data(), st.sampled_from([[[1.0, 2.0, 3.0], [4.0, 5.0, 6.0]], [1.0, -0.5], 3.0, [[]], [[[1.0]]]]))
def test_layouts_hold_the_same_numbers(data, values):
    array = data.draw(layouts(values))
    np.testing.assert_array_equal(array, values)
    assert array.dtype == np.float64


@pytest.mark.parametrize(
    "wanted",
    [
        lambda a: a.flags.c_contiguous and a.flags.writeable and a.flags.aligned,
        lambda a: a.flags.f_contiguous and not a.flags.c_contiguous,
        lambda a: not a.flags.f_contiguous and not a.flags.c_contiguous and min(a.strides) > 0,
        lambda a: min(a.strides) < 0,
        lambda a: not a.flags.writeable and a.base is None,
        lambda a: not a.flags.aligned,
        lambda a: isinstance(a, np.memmap),
    ],
    ids=["C", "Fortran", "strided", "negative", "read-only", "not aligned", "memory-mapped"],
)
def test_every_layout_is_reached(wanted):
    assert find(layouts([[1.0, 2.0], [3.0, 4.0]]), wanted, settings=SEARCH) is not None


def test_layouts_do_not_touch_their_source():
    source = np.array([[1.0, 2.0], [3.0, 4.0]])
    array = find(layouts(source), lambda a: a.flags.writeable, settings=SEARCH)
    array[:] = 0
    assert source.tolist() == [[1.0, 2.0], [3.0, 4.0]]


@given(bad_arrays(groups=["shape", "scale"]))
def test_bad_arrays_of_some_groups(value):
    assert isinstance(value, np.ndarray)
    assert np.isfinite(value).all()


@given(bad_arrays(skip=["size", "torch"]))
def test_bad_arrays_can_be_left_out(value):
    assert "torch" not in type(value).__module__
    assert getattr(value, "size", 0) != 1 << 30


def test_bad_arrays_reach_the_worst():
    for wanted in (
        lambda v: isinstance(v, np.ma.MaskedArray),
        lambda v: isinstance(v, list),
        lambda v: getattr(v, "size", 0) == 0 and getattr(v, "shape", None) == (0, 3),
        lambda v: isinstance(v, np.ndarray) and v.dtype.kind == "M",
    ):
        assert find(bad_arrays(), wanted, settings=SEARCH) is not None


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda: scales(low=0.0), "`low`"),
        (lambda: scales(low=2.0, high=1.0), "`low` must be at most `high`"),
        (lambda: scales(high="x"), "`high`"),
        (lambda: spectra(min_size=0), "`min_size`"),
        (lambda: spectra(min_size=3, max_size=2), "`max_size`"),
        (lambda: spectra(kinds="flat"), "`kinds` must be a list of names"),
        (lambda: spectra(kinds=["fat"]), "`kinds` must hold names among any, flat"),
        (lambda: spectra(kinds=[]), "`kinds` must not be empty"),
        (lambda: spectra(min_scale=-1.0), "`min_scale`"),
        (lambda: orthogonal(2, 3), "`columns` must be at most `rows` = 2; got 3"),
        (lambda: orthogonal(0, 0), "`rows`"),
        (lambda: matrices(min_side=0), "`min_side`"),
        (lambda: matrices(square="yes"), "`square`"),
        (lambda: layouts("x"), "`values`"),
        (lambda: layouts([[1.0], [1.0, 2.0]]), "`values`"),
        (lambda: bad_arrays(groups=["shapes"]), "`groups` must hold names among"),
        (lambda: bad_arrays(groups=["shape"], skip=["shape"]), "`skip` must leave something"),
    ],
)
def test_options_are_checked(call, words):
    with pytest.raises((TypeError, ValueError), match=words):
        call()
