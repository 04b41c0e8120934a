"""CHES and its relatives in exact fractions, edit distance by the plain table, and filters by sorting lists."""

from __future__ import annotations

from fractions import Fraction


def exact(states):
    return [[Fraction(float(x)) for x in row] for row in states]


def total(states, width):
    return [sum((row[i] for row in states), Fraction(0)) for i in range(width)]


def dot(a, b):
    return sum((x * y for x, y in zip(a, b, strict=True)), Fraction(0))


def family(chosen, rejected):
    """Every column of one pair from its definition, as fractions; None where it is undefined."""
    plus, minus = exact(chosen), exact(rejected)
    width = len(plus[0])
    a, b = total(plus, width), total(minus, width)
    mean_a, mean_b = [x / len(plus) for x in a], [x / len(minus) for x in b]
    cross, own, other = dot(a, b), dot(a, a), dot(b, b)
    gap = [x - y for x, y in zip(a, b, strict=True)]
    score = cross - own
    return {
        "ches": score,
        "ln_ches": dot(mean_a, mean_b) - dot(mean_a, mean_a),
        "relative": score / dot(gap, gap) if dot(gap, gap) else None,
        "cross": cross,
        "chosen_sq": own,
        "rejected_sq": other,
        "swapped": cross - other,
        "cond": (abs(cross) + own) / abs(score) if score else None,
    }


def edit_table(a, b):
    """Unit-cost edit distance by the quadratic table."""
    row = list(range(len(b) + 1))
    for i, x in enumerate(a, 1):
        new = [i]
        for j, y in enumerate(b, 1):
            new.append(min(row[j] + 1, new[j - 1] + 1, row[j - 1] + (x != y)))
        row = new
    return row[-1]


def largest_fall(values):
    """(start, end, drop) over all s <= t: largest first, then earliest end, then earliest start."""
    best = (0, 0, 0.0)
    for end in range(len(values)):
        for start in range(end + 1):
            if values[start] - values[end] > best[2]:
                best = (start, end, values[start] - values[end])
    return best
