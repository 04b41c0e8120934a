"""Ragged rows of real text for the engine, as bytes, and what carries them in and out."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Case:
    """Groups of rows ``(prompt, response, counted)``; `cut[g][slot]` prompt tokens are not fed in front of a row."""

    kind: str
    groups: tuple
    cut: dict | None = None
    status: dict | None = None

    def rows(self):
        """Rows of the groups that can be used, as ``(group, slot, (fed prompt, response, counted))``."""
        return [
            (group, slot, self.fed(group, slot))
            for group, rows in enumerate(self.groups)
            if (self.status or {}).get(group, "ok") == "ok"
            for slot in range(len(rows))
        ]

    def fed(self, group: int, slot: int):
        prompt, response, counted = self.groups[group][slot]
        return prompt[(self.cut or {}).get((group, slot), 0) :], response, counted

    def fed_group(self, group: int):
        return [self.fed(group, slot) for slot in range(len(self.groups[group]))]


def text(words: str) -> list[int]:
    return list(words.encode())


def _pair(prompt: str, chosen: str, rejected: str):
    return ((text(prompt), text(chosen), None), (text(prompt), text(rejected), None))


_CAPITAL = "The capital of France is"

PAIRS = Case(
    kind="pairs",
    groups=(
        _pair(_CAPITAL, " Paris, of course.", " Lyon."),
        _pair("Is it safe?", " No", " No, never."),  # the chosen one is a prefix of the rejected one
        _pair(_CAPITAL, " Paris.", " Paris, I think."),
        _pair("Same.", "twice", "twice"),  # cannot be used
        _pair("Is it safe?", " Sure, go ahead and try it.", " S"),  # and the other way round, one token against many
        _pair("Yes or no?", "Y", "N"),
        _pair("Q", "a single token of prompt", "another answer, shorter"),
        _pair("", "nothing in front", "of these"),  # cannot be used
        _pair(
            "def add(a, b):\n    return a + b\n\n\ndef test_add():\n    assert", " add(1, 2) == 3", " add(1, 2) == 4"
        ),
        _pair("Yes or no?", "N", "Never, and do not ask again, whatever they tell you about it."),
    ),
    status={3: "identical", 7: "empty_prompt"},
)

FEW_PAIRS = Case(kind="pairs", groups=PAIRS.groups[:3])

CUT_PAIRS = Case(
    kind="pairs",
    groups=(
        _pair("A long prompt that lost its start on one side.", " Good.", " Good, but longer than it was."),
        _pair("A prompt that lost as much on both sides.", " Fine.", " Fair."),
    ),
    cut={(0, 1): 9, (1, 0): 4, (1, 1): 4},
)

_ROLLOUTS = (
    " 4",
    " 4.",
    " four",
    " The answer is 4.",
    " The answer is four.",
    " The answer is 5, or so I was told.",
    " 4",
    "\n\nLet me think about it step by step.",
)

ROLLOUTS = Case(
    kind="responses",
    groups=(
        tuple((text("2 + 2 ="), text(words), None) for words in _ROLLOUTS),
        ((text("Alone:"), text(" one response only"), None),),
        tuple((text("Three of them, with masks"), text(words), None) for words in ("!", "? Yes.", "? No?")),
    ),
)

PREFIX_ROLLOUTS = Case(
    kind="responses",
    groups=(
        tuple((text("Count"), text(words), None) for words in (" 1 2 3 4", " 1 2 3", " 1 2", " 1 2 3 4 5 6")),
        tuple((text("Say it again"), text(words), None) for words in ("again", "again", "again")),
    ),
)


def _counted(words: str, off: str) -> list[bool]:
    """Which tokens of `words` count: those above a dot in `off`."""
    return [mark == "." for mark in off]


MULTI_TURN = Case(
    kind="ids",
    groups=(
        (
            (
                text("user: hi\nbot:"),
                text(" hello\nuser: how?\nbot: well"),
                _counted(" hello\nuser: how?\nbot: well", ".......          xxxxx....."),
            ),
        ),
        ((text("u"), text("ab"), [True, True]),),
        ((text("user: a longer prompt than before\nbot:"), text("x-y-z"), [True, False, True, False, True]),),
    ),
)

MASKED_PAIRS = Case(
    kind="pairs",
    groups=(
        (
            (text("Mask:"), text(" shared one"), [False, *[True] * 10]),
            (text("Mask:"), text(" shared two!"), [False, False, *[True] * 10]),
        ),
        (
            (text("Mask the end:"), text(" aaa bbb"), [True] * 4 + [False] * 4),
            (text("Mask the end:"), text(" aaa ccc"), None),
        ),
    ),
)

CASES = {
    "pairs": PAIRS,
    "cut_pairs": CUT_PAIRS,
    "rollouts": ROLLOUTS,
    "prefix_rollouts": PREFIX_ROLLOUTS,
    "multi_turn": MULTI_TURN,
    "masked_pairs": MASKED_PAIRS,
}


def as_encoded(case: Case, *, length: int | None = None, eos: int | None = None):
    """Build the engine's input by hand, from nothing but its documented fields."""
    from dataclasses import replace

    from rankdiag.language_models import Encoded, EncodedPreferences
    from rankdiag.language_models._encoded import fingerprint_of

    prompts: dict[tuple[int, ...], int] = {}
    rows = [(group, slot, *row) for group, members in enumerate(case.groups) for slot, row in enumerate(members)]
    prompt_id = [prompts.setdefault(tuple(prompt), len(prompts)) for _, _, prompt, _, _ in rows]
    kind = EncodedPreferences if case.kind == "pairs" else Encoded
    data = kind(
        kind=case.kind,
        keys=tuple(f"key-{group}" for group in range(len(case.groups))),
        status=tuple((case.status or {}).get(group, "ok") for group in range(len(case.groups))),
        prompts=tuple(np.array(prompt, dtype=np.int32) for prompt in prompts),
        group=np.array([row[0] for row in rows], dtype=np.int64),
        slot=np.array([row[1] for row in rows], dtype=np.int64),
        prompt_id=np.array(prompt_id, dtype=np.int64),
        prompt_start=np.array([(case.cut or {}).get((row[0], row[1]), 0) for row in rows], dtype=np.int64),
        response_ids=tuple(np.array(row[3], dtype=np.int32) for row in rows),
        loss_mask=tuple(None if row[4] is None else np.array(row[4], dtype=bool) for row in rows),
        tokenizer={"length": length, "hash": None, "eos": eos, "options": {}},
    )
    return replace(data, fingerprint=fingerprint_of(data))


def gather(stream) -> dict[str, dict[tuple[int, int], np.ndarray]]:
    """Collect a run: column -> (group, slot) -> value. Every row may come once, batches in any order."""
    found: dict[str, dict] = {}
    for columns in stream:
        assert len(columns.keys) == len(columns.group) == len(columns.slot) == len(columns.status)
        places = list(zip(map(int, columns.group), map(int, columns.slot), strict=True))
        assert all(key == f"key-{group}" for key, (group, _) in zip(columns.keys, places, strict=True))
        assert places == sorted(places), "rows stand in (group, slot) order inside a batch"
        for name, values in columns.values.items():
            assert len(values) == len(places), name
            column = found.setdefault(name, {})
            for place, value in zip(places, values, strict=True):
                assert place not in column, f"{name}: row {place} came twice"
                column[place] = np.array(value)
    return found


def together(*cases: Case) -> Case:
    """Put several cases into one of kind "responses"."""
    groups: list = []
    cut: dict = {}
    status: dict = {}
    for case in cases:
        start = len(groups)
        cut |= {(start + group, slot): number for (group, slot), number in (case.cut or {}).items()}
        status |= {
            start + group: word.replace("identical", "ok").replace("rejected", "response")
            for group, word in (case.status or {}).items()
        }
        groups.extend(case.groups)
    return Case(kind="responses", groups=tuple(groups), cut=cut, status=status)


EVERYTHING = together(PAIRS, CUT_PAIRS, ROLLOUTS, PREFIX_ROLLOUTS, MULTI_TURN, MASKED_PAIRS)

TWO_SLOTS = together(PAIRS, CUT_PAIRS, MASKED_PAIRS)
EIGHT_SLOTS = Case(kind="responses", groups=(ROLLOUTS.groups[0],))
FOUR_SLOTS = Case(kind="responses", groups=PREFIX_ROLLOUTS.groups[:1])
GRAM_CASES = {"two": TWO_SLOTS, "four": FOUR_SLOTS, "eight": EIGHT_SLOTS, "one": MULTI_TURN}
