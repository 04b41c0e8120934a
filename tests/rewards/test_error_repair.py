"""Effects and repairs of reward errors against a flow solved with its integral, and the whole decision table."""

from __future__ import annotations

import copy
import itertools
import pickle

import numpy as np
import pytest
from scipy.integrate import solve_ivp

from oracles.rewards_flow import velocity
from rankdiag import result_from_json
from rankdiag.rewards import categorize_errors, repair_errors

KERNEL = np.array([[1.0, 0.6, 0.0, 0.0], [0.6, 1.0, 0.0, 0.1], [0.0, 0.0, 1.0, -0.3], [0.0, 0.1, -0.3, 1.0]])
START, GOLD = [0.05, 0.5, 0.15, 0.3], [1.0, 0.8, -1.0, -0.5]


def integral(start, proxy, gold, horizon, kernel=None):
    """The true reward integrated over time as one more coordinate of the flow, by an explicit method of order 8."""

    def move(_, state):
        z = state[:-1]
        p = np.exp(z - z.max())
        return np.append(velocity(z, proxy, kernel), p @ gold / p.sum())

    found = solve_ivp(move, (0, horizon), [*np.log(start), 0.0], method="DOP853", rtol=1e-10, atol=1e-12)
    return float(found.y[-1, -1])


@pytest.mark.parametrize("kernel", [None, KERNEL])
@pytest.mark.parametrize("proxy", [[1.0, -1.0, -1.0, 0.9], [-0.5, 0.8, 1.0, -0.5]])
def test_effects_are_integrals_of_the_true_reward(kernel, proxy):
    found = categorize_errors(START, proxy, GOLD, kernel=kernel, verify="flow", horizon=60.0)
    whole = integral(START, proxy, GOLD, 60.0, kernel)
    assert [record.index for record in found] == np.flatnonzero(np.not_equal(proxy, GOLD)).tolist()
    for record in found:
        mended = list(proxy)
        mended[record.index] = GOLD[record.index]
        assert record.effect == pytest.approx(whole - integral(START, mended, GOLD, 60.0, kernel), abs=1e-5)
        assert record.sign == np.sign(record.effect) != 0
        (alone,) = repair_errors(START, proxy, GOLD, outputs=[record.index], kernel=kernel, horizon=60.0).gains
        assert alone == pytest.approx(-record.effect / 60.0, abs=1e-9)


def test_greedy_takes_the_best_of_what_is_left_and_leaves_an_error_that_helps():
    proxy = [1.0, -1.0, 0.6, 0.9]
    wrong = [1, 2, 3]

    def value(mended):
        reward = [GOLD[y] if y in mended else proxy[y] for y in range(4)]
        return integral(START, reward, GOLD, 200.0) / 200.0

    order, values = [], [value(())]
    while True:
        best = max((y for y in wrong if y not in order), key=lambda y: value({*order, y}), default=None)
        if best is None or value({*order, best}) <= values[-1]:
            break
        order.append(best)
        values.append(value(order))
    found = repair_errors(START, proxy, GOLD, horizon=200.0)
    assert found.order.tolist() == order
    assert found.left.tolist() == [y for y in wrong if y not in order] == [1]
    np.testing.assert_allclose(found.values, values, atol=1e-6)
    np.testing.assert_allclose(found.gains, np.diff(values), atol=1e-6)
    assert found.all_repaired == pytest.approx(value(wrong), abs=1e-6)
    assert found.all_repaired < found.values[-1]
    assert "Errors that were left help" in found.explanation
    one = repair_errors(START, proxy, GOLD, horizon=200.0, most=1)
    assert one.order.tolist() == order[:1]
    none = repair_errors(START, proxy, GOLD, horizon=200.0, most=0)
    assert none.values.tolist() == [found.values[0]]
    assert none.left.tolist() == wrong


def test_given_repairs_are_made_in_their_order():
    proxy = [1.0, -1.0, 0.6, 0.9]
    sets = {order: repair_errors(START, proxy, GOLD, outputs=order, horizon=30.0) for order in ((1, 3), (3, 1), ())}
    assert sets[1, 3].order.tolist() == [1, 3]
    assert sets[1, 3].values[-1] == sets[3, 1].values[-1]  # the same set
    assert sets[1, 3].values[1] != sets[3, 1].values[1]
    assert sets[()].values.tolist() == [sets[1, 3].values[0]]
    whole = repair_errors(START, proxy, GOLD, outputs=np.array([3, 2, 1]), horizon=30.0)
    assert whole.all_repaired == whole.values[-1]
    assert whole.left.tolist() == []


def test_without_errors_or_effects_nothing_is_repaired():
    found = repair_errors(START, GOLD, GOLD, horizon=10.0)
    assert found.order.tolist() == found.left.tolist() == []
    assert "nothing to repair" in found.explanation
    rare = [1e-14, 0.5, 0.2, 0.3 - 1e-14]
    found = repair_errors(rare, [0.9, 0.8, -1.0, -0.5], GOLD, horizon=10.0)
    assert found.order.tolist() == []
    assert found.left.tolist() == [0]
    assert repair_errors(START, [1.0, 0.8, -1.0, -0.4], GOLD, tol=0.1, horizon=10.0).left.tolist() == []


def test_repairs_travel_and_show():
    found = repair_errors(START, [1.0, -1.0, 0.6, 0.9], GOLD, horizon=200.0)
    for twin in (result_from_json(found.to_json()), pickle.loads(pickle.dumps(found)), copy.deepcopy(found)):
        assert twin == found
        assert not twin.values.flags.writeable
        assert twin.order.dtype == np.int64
    page = found.document()
    assert [row[1] for row in page.grids[0].rows] == found.order.tolist()
    assert page.plots[0].lines[0].value == found.all_repaired
    assert "Not repaired: 1." in page.grids[0].note


@pytest.mark.parametrize(
    ("change", "kind", "word"),
    [
        ({"pi0": [0.0, 0.5, 0.2, 0.3]}, ValueError, "pi0"),
        ({"pi0": [0.3, 0.5, 0.2, 0.3]}, ValueError, "pi0"),
        ({"r_gold": GOLD[:3]}, ValueError, "r_gold"),
        ({"r_proxy": [np.nan, 0, 0, 0]}, ValueError, "r_proxy"),
        ({"outputs": "best"}, ValueError, "outputs"),
        ({"outputs": [0]}, ValueError, "0 is no error"),
        ({"outputs": [1, 1]}, ValueError, "named twice"),
        ({"outputs": [7]}, ValueError, "outputs"),
        ({"outputs": 1}, TypeError, "outputs"),
        ({"most": -1}, ValueError, "most"),
        ({"horizon": 0.0}, ValueError, "horizon"),
        ({"kernel": np.eye(3)}, ValueError, "kernel"),
        ({"tol": -1.0}, ValueError, "tol"),
    ],
)
def test_repairs_refuse_by_name(change, kind, word):
    arguments = {"pi0": START, "r_proxy": [1.0, -1.0, -1.0, 0.9], "r_gold": GOLD, **change}
    with pytest.raises(kind, match=word):
        repair_errors(arguments.pop("pi0"), arguments.pop("r_proxy"), arguments.pop("r_gold"), **arguments)


def stated_category(y, start, proxy, gold, floor, top):
    """The rule, in the order in which it is stated."""
    start, proxy, gold = (np.asarray(v, dtype=float) for v in (start, proxy, gold))
    band = top * (gold.max() - gold.min())
    proxy_mean, gold_mean = start @ proxy, start @ gold
    quality = "bad" if gold[y] <= gold_mean else "top" if gold[y] >= gold.max() - band else "mediocre"
    over = proxy[y] > gold[y]
    if start[y] < floor:
        return "benign_II"
    if proxy[y] <= proxy_mean:
        if quality == "bad":
            return "benign_I"
        if quality == "mediocre" and not over:
            return "beneficial_I"
        return "benign_I" if over else "harmful_missed"
    if quality == "bad" and over:
        return "harmful_I" if proxy[y] >= proxy.max() - band else "harmful_II"
    return "unclassified"


def test_every_branch_of_the_decision_table_is_reached():
    """Outputs of four qualities and five proxy rewards each, every combination, against the rule as it is stated."""
    start = np.array([0.0625, 0.1875, 0.4375, 0.3120, 0.0005])  # sums to 1; products with the rewards are exact
    gold = np.array([1.0, 0.5, -0.5, -1.0, 0.875])
    seen = set()
    for proxy in itertools.product((-2.0, -0.5, 0.5, 0.9375, 3.0), repeat=5):
        for record in categorize_errors(start, proxy, gold, top_tol=0.0625, prob_floor=0.001):
            y = record.index
            wanted = stated_category(y, start, proxy, gold, 0.001, 0.0625)
            assert record.category == wanted, (proxy, y)
            side = "over" if proxy[y] > gold[y] else "under"
            seen.add((wanted, y, side))
    kinds = {(category, side) for category, _, side in seen}
    assert kinds >= {
        ("benign_II", "over"),
        ("benign_I", "over"),  # of a bad output, and of one above the mean
        ("benign_I", "under"),
        ("beneficial_I", "under"),
        ("harmful_missed", "under"),
        ("harmful_I", "over"),
        ("harmful_II", "over"),
        ("unclassified", "over"),
        ("unclassified", "under"),
    }
    assert ("benign_I", 1, "over") in seen  # mediocre, over-rated, and still below the mean of the proxy
    assert not any(category == "harmful_I" and side == "under" for category, _, side in seen)


@pytest.mark.parametrize(
    ("start", "proxy", "gold", "options", "categories"),
    [
        # equal to the mean of the proxy: does not attract
        ([0.5, 0.5], [1.0, 1.0], [1.0, 0.0], {}, ["benign_I"]),
        # equal to the mean of the true reward: bad
        ([0.25, 0.5, 0.25], [-1.0, 2.0, 1.0], [-1.0, 0.0, 1.0], {}, ["harmful_I"]),
        # exactly at the floor is not below it
        ([0.25, 0.75], [1.0, 0.0], [0.0, 1.0], {"prob_floor": 0.25}, ["harmful_I", "harmful_missed"]),
        # top_tol and tol count in units of the range of the true reward, here 4
        ([0.25] * 4, [-2.0, 0.5, -2.0, 2.0], [-2.0, -2.0, -2.0, 2.0], {"top_tol": 0.375}, ["harmful_I"]),
        ([0.25] * 4, [-2.0, 0.5, -2.0, 2.0], [-2.0, -2.0, -2.0, 2.0], {"top_tol": 0.374}, ["harmful_II"]),
        ([0.25] * 4, [-2.0, -2.0, -2.0, 2.0], [-2.0, 1.0, -2.0, 2.0], {"top_tol": 0.25}, ["harmful_missed"]),
        ([0.25] * 4, [-2.0, -2.0, -2.0, 2.0], [-2.0, 1.0, -2.0, 2.0], {"top_tol": 0.249}, ["beneficial_I"]),
        ([0.5, 0.5], [-2.0, 1.0], [-2.0, 2.0], {"tol": 0.25}, []),
        ([0.5, 0.5], [-2.0, 0.999], [-2.0, 2.0], {"tol": 0.25}, ["unclassified"]),
    ],
)
def test_boundaries_of_the_decision_table(start, proxy, gold, options, categories):
    assert [record.category for record in categorize_errors(start, proxy, gold, **options)] == categories


def test_an_unclassified_error_is_read_by_its_sign():
    (over,) = categorize_errors([0.2, 0.5, 0.3], [1.0, 0.9, -1.0], [1.0, 0.8, -1.0])
    assert over.category == "unclassified"
    assert over.sign == np.sign(over.attribution) != 0
