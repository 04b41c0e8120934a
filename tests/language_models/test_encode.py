"""Encoding of text: modes, EOS, boundaries, truncation and statuses, against the plainest oracle."""

from __future__ import annotations

import itertools
import subprocess
import sys

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from oracles.encoding import agreement, data_file, pair_of, rows_of, shrink, tokens_of
from oracles.tiny_tokenizer import BOS, EOS, KINDS, TEMPLATE, tiny_tokenizer
from rankdiag._validate import RankdiagWarning
from rankdiag.language_models import (
    Encoded,
    EncodedPreferences,
    JointSplit,
    encode,
    encode_preferences,
    extract_prompt,
    split_joint,
    truncate_row,
)

few = settings(max_examples=15)
ids = st.lists(st.integers(0, 3), max_size=8)


@pytest.fixture(scope="module")
def tokenizer():
    return tiny_tokenizer()


def user(text):
    return {"role": "user", "content": text}


def bot(text):
    return {"role": "assistant", "content": text}


STRINGS = [
    {"prompt": "The sky is", "chosen": " blue.", "rejected": " a green cheese."},
    {"prompt": "Yes or no?\n", "chosen": "Yes", "rejected": "No"},
    {"prompt": "def f(x):\n", "chosen": "    return x + 1\n", "rejected": "    return x - 1\n"},
    {"prompt": "Ends", "chosen": " with it</s>", "rejected": " without"},
    {"prompt": "Привет, 世界 \x00 🙂", "chosen": " да", "rejected": " 不"},
]
CHAT = [
    {"prompt": [user("Hi")], "chosen": [bot("Hello.")], "rejected": [bot("Go away.")]},
    {
        "prompt": [{"role": "system", "content": "Be brief."}, user("2+2?"), bot("4"), user("3+3?")],
        "chosen": [bot("6")],
        "rejected": [bot("It depends."), user("on what?"), bot("nothing")],
    },
]


def expect(data, records, tokenizer, **options):
    """Compare encoded pairs with the oracle, record by record."""
    assert isinstance(data, EncodedPreferences)
    assert len(data) == len(records)
    for i, record in enumerate(records):
        status, prompt, rows = pair_of(tokenizer, record, **options)
        assert data.status[i] == status, (i, status)
        if rows is None:
            continue
        assert data.prompt_ids[i].tolist() == list(prompt)
        assert data.chosen_ids[i].tolist() == list(rows[0][1])
        assert data.rejected_ids[i].tolist() == list(rows[1][1])
        assert [data.chosen_start[i], data.rejected_start[i]] == [rows[0][0], rows[1][0]]


# --- split_joint and truncate_row ----------------------------------------------------------------------------------


@settings(max_examples=150)
@given(ids, ids, ids)
def test_the_split_is_the_longest_start_that_all_agree_on(prompt, chosen, rejected):
    split = split_joint(prompt, chosen, rejected)
    k = agreement(prompt, [chosen, rejected])
    assert isinstance(split, JointSplit)
    assert split == (prompt[:k], chosen[k:], rejected[k:], k == len(prompt))
    assert split.prompt_ids + split.chosen_ids == chosen  # nothing of a joint sequence is lost
    assert split.prompt_ids + split.rejected_ids == rejected
    assert split_joint(prompt, rejected, chosen) == (split[0], split[2], split[1], split[3])


def test_the_split_of_the_example_in_the_text():
    assert split_joint([1, 5, 6], [1, 5, 9, 7], [1, 5, 6, 8]) == ([1, 5], [9, 7], [6, 8], False)
    assert split_joint(np.array([1, 5]), (1, 5, 7), [1, 5]) == ([1, 5], [7], [], True)


@settings(max_examples=150)
@given(ids, ids, st.integers(1, 18), st.sampled_from(["keep_start", "keep_end"]))
def test_truncation_takes_tokens_off_one_end(prompt, response, limit, keep):
    left, right = truncate_row(prompt, response, max_length=limit, truncation=keep)
    assert (left, right) == shrink(prompt, response, limit, keep)
    assert truncate_row(left, right, max_length=limit, truncation=keep) == (left, right)


def test_truncation_without_a_limit_keeps_all():
    assert truncate_row([1], [2, 3], max_length=None) == ([1], [2, 3])


@pytest.mark.parametrize(
    ("call", "kind", "words"),
    [
        (lambda: truncate_row([1], [2], max_length=0), ValueError, "max_length"),
        (lambda: truncate_row([1], [2], max_length=2.0), TypeError, "max_length"),
        (lambda: truncate_row([1], [2], max_length=2, truncation="start"), ValueError, "keep_start"),
        (lambda: truncate_row("ab", [2], max_length=2), TypeError, "prompt_ids"),
        (lambda: split_joint([1], [1.5], [1]), TypeError, "prompt_chosen_ids"),
        (lambda: split_joint([1], None, [1]), TypeError, "prompt_chosen_ids"),
        (lambda: split_joint([1], [1], [-1]), ValueError, "prompt_rejected_ids"),
    ],
)
def test_wrong_arguments_are_named(call, kind, words):
    with pytest.raises(kind, match=words):
        call()


# --- modes and EOS --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("mode", ["joint", "separate"])
@pytest.mark.parametrize("add_eos", ["auto", "never"])
def test_strings_agree_with_the_oracle(kind, mode, add_eos):
    tok = tiny_tokenizer(kind=kind)
    data = encode_preferences(STRINGS, tok, mode=mode, add_eos=add_eos)
    expect(data, STRINGS, tok, mode=mode, add_eos=add_eos)
    assert data.status_counts == {"ok": len(STRINGS)}
    assert data.tokenizer["eos"] == tok.eos_token_id
    assert data.tokenizer["length"] == len(tok)


@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind != "no_template"])
@pytest.mark.parametrize("mode", ["joint", "separate", "offset"])
def test_conversations_agree_with_the_oracle(kind, mode):
    tok = tiny_tokenizer(kind=kind)
    if kind == "no_eos":
        tok.chat_template = TEMPLATE.replace("{{ eos_token }}", "")
    data = encode_preferences(CHAT, tok, mode=mode)
    expect(data, CHAT, tok, mode=mode)
    assert data.n_boundary_merges == 0


@pytest.mark.parametrize("kind", ["plain", "bos_is_eos", "appends_eos", "no_bos"])
def test_every_string_response_ends_in_exactly_one_eos(kind):
    tok = tiny_tokenizer(kind=kind)
    rows = [*STRINGS, {"prompt": "Twice", "chosen": " a</s></s>", "rejected": " b</s></s></s>"}]
    data = encode_preferences(rows, tok)
    for response in data.response_ids:
        assert response[-1] == EOS
        assert (response == EOS).sum() == 1
    assert "2 responses ended in several EOS" in " ".join(data.notes)
    assert all(EOS not in prompt[1:] for prompt in data.prompts)
    assert data.n_boundary_merges == 1  # the newline and the spaces of the code; an EOS behind the prompt is no merge


@pytest.mark.parametrize("kind", ["plain", "appends_eos", "no_eos"])
def test_never_appends_nothing_and_takes_off_what_the_tokenizer_adds(kind):
    tok = tiny_tokenizer(kind=kind)
    data = encode_preferences(STRINGS[:3], tok, add_eos="never")
    assert all(EOS not in response for response in data.response_ids)


@pytest.mark.filterwarnings("error")
def test_a_tokenizer_written_in_python():
    from transformers import ByT5Tokenizer

    tok = ByT5Tokenizer()  # bytes as ids + 3, no BOS, EOS (id 1) behind every text that does not end with it
    rows = [
        {"prompt": "ab</s>", "chosen": "c", "rejected": "d</s>"},
        {"prompt": "é", "chosen": "c</s></s>", "rejected": "</s>"},
    ]

    def ids(text):
        return [byte + 3 for byte in text.encode()]

    for mode in ("joint", "separate"):
        data = encode_preferences(rows, tok, mode=mode)
        assert [prompt.tolist() for prompt in data.prompts] == [[*ids("ab"), 1], ids("é")]
        assert [r.tolist() for r in data.response_ids] == [[*ids("c"), 1], [*ids("d"), 1], [*ids("c"), 1], [1]]
        assert data.n_boundary_merges == 0
        data = encode_preferences(rows, tok, mode=mode, add_eos="never")
        assert [r.tolist() for r in data.response_ids] == [ids("c"), [*ids("d"), 1], [*ids("c"), 1], [1]]
    assert data.tokenizer["hash"] == encode_preferences(rows, ByT5Tokenizer()).tokenizer["hash"]
    assert data.tokenizer["hash"] != encode_preferences(rows, ByT5Tokenizer(extra_ids=7)).tokenizer["hash"]


def test_bos_comes_once_and_a_second_one_is_refused(tokenizer):
    data = encode_preferences(STRINGS, tokenizer)
    assert all(prompt[0] == BOS and BOS not in prompt[1:] for prompt in data.prompts)
    with pytest.raises(ValueError, match=r"record 1: the sequence starts with two BOS"):
        encode_preferences([STRINGS[0], {**STRINGS[1], "prompt": "<s>Yes?"}], tokenizer)
    chat = encode_preferences(CHAT, tokenizer)
    assert all(prompt[0] == BOS and BOS not in prompt[1:] for prompt in chat.prompts)
    doubled = tiny_tokenizer()
    doubled.chat_template = "{{ bos_token }}" + TEMPLATE
    with pytest.raises(ValueError, match=r"record 0: the sequence starts with two BOS"):
        encode_preferences(CHAT, doubled)


def test_a_newline_after_eos_is_part_of_the_response(tokenizer):
    data = encode_preferences(CHAT[:1], tokenizer)
    newline = tokenizer("\n", add_special_tokens=False)["input_ids"]
    assert data.chosen_ids[0].tolist()[-2:] == [EOS, *newline]


# --- boundaries -----------------------------------------------------------------------------------------------------


def merging_pair(tokenizer, prompt_first=True):
    """A prompt that ends inside a word which is one token together with the start of a response."""
    word = next(
        text
        for text in (" class", " object", " statement", " method", " value", " name", " the", "ing")
        if len(tokenizer(text, add_special_tokens=False)["input_ids"]) == 1
    )
    return {"prompt": "One" + word[:-2], "chosen": word[-2:] + " and more", "rejected": "!? nothing"}


def test_merged_boundaries_shorten_the_prompt_for_both(tokenizer):
    row = merging_pair(tokenizer)
    records = [STRINGS[0], {**row, "key": "m"}]
    with pytest.raises(ValueError, match="no key"):
        encode_preferences(records[::-1], tokenizer)
    records[0] = {**records[0], "key": "s"}
    data = encode_preferences(records, tokenizer)
    expect(data, records, tokenizer)
    assert data.n_boundary_merges == 1
    alone = tokenizer(row["prompt"])["input_ids"]
    joint = tokenizer(row["prompt"] + row["rejected"] + "</s>")["input_ids"]
    assert len(data.prompt_ids[1]) < len(alone)
    assert [*data.prompt_ids[1], *data.rejected_ids[1]] == joint
    note = next(note for note in data.notes if "boundary" in note)
    assert "1 of 2 groups (50.0%)" in note
    assert "key 'm'" in note
    assert f"token {len(data.prompt_ids[1])}" in note
    with pytest.raises(ValueError, match=rf"record 1 \(key 'm'\).*from token {len(data.prompt_ids[1])} on"):
        encode_preferences(records, tokenizer, on_boundary="raise")
    clean = encode_preferences(records[:1], tokenizer, on_boundary="raise")
    assert clean.n_boundary_merges == 0


def test_offset_cuts_by_count_and_warns(tokenizer):
    row = merging_pair(tokenizer)
    with pytest.warns(RankdiagWarning, match="1 of 2 groups") as caught:
        data = encode_preferences([STRINGS[0], row], tokenizer, mode="offset")
    assert caught[0].filename == __file__
    expect(data, [STRINGS[0], row], tokenizer, mode="offset")
    alone, joint = (tokenizer(text)["input_ids"] for text in (row["prompt"], row["prompt"] + row["chosen"] + "</s>"))
    assert data.chosen_ids[1].tolist() == joint[len(alone) :]
    with pytest.warns(RankdiagWarning) as caught:
        encode([row], tokenizer, mode="offset")
    assert caught[0].filename == __file__
    with pytest.raises(ValueError, match="must be a start"):
        encode([row], tokenizer, mode="offset", on_boundary="raise")


def test_separate_never_merges(tokenizer):
    row = merging_pair(tokenizer)
    data = encode_preferences([row], tokenizer, mode="separate", on_boundary="raise")
    assert data.n_boundary_merges == 0
    assert data.prompt_ids[0].tolist() == tokenizer(row["prompt"])["input_ids"]
    expect(data, [row], tokenizer, mode="separate")


def test_separate_needs_a_template_that_goes_on():
    tok = tiny_tokenizer()
    tok.chat_template = "{% for m in messages %}[{{ messages|length }}]{{ m['content'] }}{% endfor %}"
    with pytest.raises(ValueError, match=r'record 0: .*use mode="joint"'):
        encode_preferences(CHAT, tok, mode="separate")
    data = encode_preferences(CHAT, tok)
    assert data.n_boundary_merges == 2


def test_a_boundary_that_eats_the_whole_prompt_leaves_an_empty_prompt():
    tok = tiny_tokenizer(kind="no_bos")
    row = {"prompt": "i", "chosen": "n the", "rejected": "s it"}
    assert len(tok("in")["input_ids"]) == len(tok("is")["input_ids"]) == 1
    data = encode_preferences([row, STRINGS[0]], tok)
    assert data.status == ("empty_prompt", "ok")
    assert "no token of the prompt stays" in " ".join(data.notes)


words = st.text(alphabet="abin the<>/s|\n🙂é", min_size=1, max_size=12)


@few
@given(
    st.lists(st.tuples(words, words, words), min_size=1, max_size=4),
    st.sampled_from(["plain", "no_bos", "appends_eos", "bos_is_eos"]),
    st.sampled_from(["joint", "separate"]),
    st.one_of(st.none(), st.integers(1, 20)),
    st.sampled_from(["keep_start", "keep_end"]),
    st.one_of(st.none(), st.integers(1, 8)),
)
def test_any_strings_agree_with_the_oracle(rows, kind, mode, limit, keep, prompt_limit):
    tok = _cached(kind)
    records = [{"prompt": p, "chosen": c, "rejected": r} for p, c, r in rows]
    if any(text.startswith(("<s>", "</s>")) for row in rows for text in row):
        return  # two BOS are refused, which has a test of its own
    data = encode_preferences(
        records, tok, mode=mode, max_length=limit, truncation=keep, max_prompt_length=prompt_limit
    )
    expect(data, records, tok, mode=mode, limit=limit, keep=keep, prompt_limit=prompt_limit)
    if mode == "joint":
        assert data.n_boundary_merges == sum(tokens_of(tok, record)[2] for record in records)


_TOKENIZERS: dict = {}


def _cached(kind):
    if kind not in _TOKENIZERS:
        _TOKENIZERS[kind] = tiny_tokenizer(kind=kind)
    return _TOKENIZERS[kind]


# --- truncation and statuses ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("keep", ["keep_start", "keep_end"])
def test_every_length_of_a_row(tokenizer, keep):
    row = STRINGS[0]
    longest = max(len(tokenizer(row["prompt"] + row[side] + "</s>")["input_ids"]) for side in ("chosen", "rejected"))
    for limit in range(1, longest + 2):
        data = encode_preferences([row], tokenizer, max_length=limit, truncation=keep)
        expect(data, [row], tokenizer, limit=limit, keep=keep)
        assert data.n_truncated == (limit < longest)
        assert data.n_lost_eos == (limit < longest and keep == "keep_start")


def test_a_row_that_loses_what_comes_after_its_eos_did_not_lose_it(tokenizer):
    whole = encode_preferences(CHAT[:1], tokenizer)
    longest = len(whole.prompt_ids[0]) + max(map(len, whole.response_ids))
    for less, lost in ((0, 0), (1, 0), (2, 1)):  # the newline, then the EOS
        data = encode_preferences(CHAT[:1], tokenizer, max_length=longest - less)
        assert (data.n_truncated, data.n_lost_eos) == (less > 0, lost)


def test_keep_end_cuts_each_side_by_itself_and_keeps_the_full_prompt():
    row = {"prompt_ids": [1, 2, 3, 4], "chosen_ids": [5], "rejected_ids": [6, 7, 8]}
    data = encode_preferences([row], max_length=4, truncation="keep_end")
    assert data.prompt_ids[0].tolist() == [1, 2, 3, 4]
    assert (data.chosen_start[0], data.rejected_start[0]) == (1, 3)
    assert data.status == ("ok",)
    assert data.n_truncated == 1


def test_max_prompt_length_keeps_the_end_of_the_prompt():
    row = {"prompt_ids": [1, 2, 3, 4], "chosen_ids": [5], "rejected_ids": [6]}
    data = encode_preferences([row, {**row, "prompt_ids": [3, 4]}], max_prompt_length=2)
    assert [prompt.tolist() for prompt in data.prompt_ids] == [[3, 4], [3, 4]]
    assert len(data.prompts) == 1
    assert data.prompt_start.tolist() == [0, 0, 0, 0]
    assert data.n_truncated == 1


def test_the_first_status_that_applies_wins():
    def row(prompt, chosen, rejected):
        return {"prompt_ids": prompt, "chosen_ids": chosen, "rejected_ids": rejected}

    cases = [
        (row([], [], []), "empty_prompt"),
        (row([1], [], []), "empty_chosen"),
        (row([1], [2], []), "empty_rejected"),
        (row([1, 1, 1], [2], [2]), "too_long"),  # identical as well
        (row([1, 1], [2, 3], [2, 4]), "identical"),  # after truncation
        (row([1], [2, 3], [3, 2]), "ok"),
        (row(None, [2], [3]), "empty_prompt"),
    ]
    data = encode_preferences([record for record, _ in cases], max_length=3)
    assert data.status == tuple(status for _, status in cases)
    assert data.status_counts == {
        "ok": 1, "empty_prompt": 2, "empty_chosen": 1, "empty_rejected": 1, "too_long": 1, "identical": 1,
    }  # fmt: skip
    assert data.keys == tuple(map(str, range(len(cases))))
    for record, status in cases:
        if status != "ok":
            with pytest.raises(ValueError, match=rf"record 0 \(key '0'\) cannot be used: {status}"):
                encode_preferences([record], max_length=3, on_bad="raise")
    assert "Unusable, empty_prompt: '0' (" not in " ".join(data.notes)
    assert "Unusable, empty_prompt: '0', '6'." in data.notes


@pytest.mark.parametrize(
    ("record", "status"),
    [
        ({"prompt": "", "chosen": "a", "rejected": "b"}, "empty_prompt"),
        ({"prompt": "p", "chosen": "", "rejected": "b"}, "empty_chosen"),
        ({"prompt": "p", "chosen": "a", "rejected": None}, "empty_rejected"),
        ({"prompt": "p", "chosen": "same", "rejected": "same"}, "identical"),
        ({"prompt": "p", "chosen": "same", "rejected": "same</s>"}, "identical"),
        ({"prompt": "p", "chosen": " ", "rejected": "b"}, "ok"),
        ({"chosen": "all the same", "rejected": "all the same"}, "identical"),
        ({"chosen": "the start", "rejected": "the start and the end"}, "empty_chosen"),
        ({"chosen": "the start and the end", "rejected": "the start "}, "empty_rejected"),
        ({"chosen": "", "rejected": ""}, "empty_prompt"),
        ({"chosen": "nothing", "rejected": "in common"}, "empty_prompt"),
        ({"prompt": [], "chosen": [bot("a")], "rejected": [bot("b")]}, "empty_prompt"),
        ({"prompt": [user("q")], "chosen": [bot("")], "rejected": [bot("b")]}, "empty_chosen"),
        ({"prompt": [user("q")], "chosen": [bot("a")], "rejected": []}, "empty_rejected"),
        ({"prompt": [user("q")], "chosen": [bot("a")], "rejected": [bot(None)]}, "empty_rejected"),
        ({"prompt": [user("q")], "chosen": [bot("a")], "rejected": [bot("a")]}, "identical"),
        ({"chosen": [user("q"), bot("a")], "rejected": [user("q")]}, "empty_rejected"),
        ({"chosen": [user("q"), bot("a")], "rejected": [user("q"), bot("a")]}, "identical"),
        ({"chosen": [user("q"), bot("a")], "rejected": [user("Q"), bot("a")]}, "empty_prompt"),
    ],
)
def test_status_of_text(tokenizer, record, status):
    data = encode_preferences([record], tokenizer)
    assert data.status == (status,)
    expect(data, [record], tokenizer)
    assert len(data.response_ids) == 2
    if status != "ok":
        with pytest.raises(ValueError, match=status):
            encode_preferences([record], tokenizer, on_bad="raise")


# --- prompts inside of responses ------------------------------------------------------------------------------------


@settings(max_examples=100)
@given(st.text("ab ", max_size=6), st.text("ab ", max_size=4), st.text("ab ", max_size=4))
def test_extracting_a_prompt_from_strings(start, first, second):
    chosen, rejected = start + first, start + second
    if chosen.startswith(rejected) or rejected.startswith(chosen):
        with pytest.raises(ValueError, match="identical" if chosen == rejected else "empty response"):
            extract_prompt({"chosen": chosen, "rejected": rejected})
        return
    found = extract_prompt({"chosen": chosen, "rejected": rejected})
    assert found["prompt"] + found["chosen"] == chosen
    assert found["prompt"] + found["rejected"] == rejected
    place = next(i for i, (a, b) in enumerate(zip(chosen, rejected, strict=False)) if a != b)
    assert len(found["prompt"]) == place - (chosen[:place].endswith(" "))


def test_extracting_a_prompt_from_conversations():
    turns = [user("q"), bot("a"), user("r")]
    found = extract_prompt({"chosen": [*turns, bot("x")], "rejected": (*turns, bot("y"), user("z")), "prompt": 3})
    assert found == {"prompt": turns, "chosen": [bot("x")], "rejected": [bot("y"), user("z")]}
    filled = [{**message, "tool_calls": None} for message in turns]
    assert extract_prompt({"chosen": [*filled, bot("x")], "rejected": [*turns, bot("y")]})["prompt"] == turns


@pytest.mark.parametrize(
    ("record", "kind", "words"),
    [
        ([], TypeError, "record"),
        ({"chosen": "a"}, ValueError, "rejected"),
        ({"chosen": "a", "rejected": [bot("b")]}, ValueError, "both"),
        ({"chosen": 3, "rejected": "a"}, ValueError, "chosen"),
        ({"chosen": [bot("a")], "rejected": [{"from": "x", "value": "y"}]}, ValueError, "message 0 of .*`rejected`"),
        ({"chosen": [user("q"), bot("a")], "rejected": [user("q")]}, ValueError, "empty response"),
        ({"chosen": [user("q")], "rejected": [user("q")]}, ValueError, "identical"),
    ],
)
def test_what_cannot_be_extracted(record, kind, words):
    with pytest.raises(kind, match=words):
        extract_prompt(record)


def test_full_texts_are_cut_and_agree_with_the_oracle(tokenizer):
    strings = [{"chosen": r["prompt"] + r["chosen"], "rejected": r["prompt"] + r["rejected"]} for r in STRINGS]
    data = encode_preferences(strings, tokenizer)
    expect(data, strings, tokenizer)
    chat = [{"chosen": r["prompt"] + r["chosen"], "rejected": r["prompt"] + r["rejected"]} for r in CHAT]
    full = encode_preferences(chat, tokenizer)
    plain = encode_preferences(CHAT, tokenizer)
    assert full.fingerprint == plain.fingerprint
    beside = encode_preferences([{**row, "prompt": "repeated as text"} for row in chat], tokenizer)
    assert beside.fingerprint == plain.fingerprint
    assert "2 records have a `prompt` that is no conversation" in " ".join(beside.notes)
    apart = encode_preferences([{"prompt": "Hi", "chosen": [bot("a")], "rejected": [bot("b")]}], tokenizer)
    assert apart.status == ("empty_prompt",)
    assert "no start in common" in " ".join(apart.notes)


# --- layouts, columns, keys -----------------------------------------------------------------------------------------


LAYOUTS = {
    "ids": {"prompt_ids": [1], "chosen_ids": [2], "rejected_ids": [3]},
    "strings": STRINGS[0],
    "chat": CHAT[0],
    "full strings": {"chosen": "a b", "rejected": "a c"},
    "full chat": {"chosen": [user("q"), bot("a")], "rejected": [user("q"), bot("b")]},
}


@pytest.mark.parametrize(("first", "second"), list(itertools.permutations(LAYOUTS, 2)))
def test_mixed_layouts_name_the_first_record_that_differs(tokenizer, first, second):
    rows = [LAYOUTS[first]] * 3 + [LAYOUTS[second]] * 2
    with pytest.raises(ValueError, match=r"record 3 has another layout .* than record 0 "):
        encode_preferences(rows, tokenizer)


def test_a_record_of_nothing_fits_every_text_layout(tokenizer):
    nothing = {"prompt": None, "chosen": None, "rejected": None}
    for name in ("strings", "chat"):
        row = LAYOUTS[name]
        for rows in ([nothing, row], [row, nothing]):
            data = encode_preferences(rows, tokenizer)
            assert sorted(data.status) == ["empty_prompt", "ok"]
    data = encode_preferences([CHAT[0], {**CHAT[1], "prompt": None}], tokenizer)
    assert data.status == ("ok", "empty_prompt")


def test_a_record_of_nothing_does_not_fit_ids():
    for kind, nothing in (
        ("pairs", {"chosen": None, "rejected": None}),
        ("responses", {"prompt": None, "response": None}),
    ):
        row = {"prompt_ids": [1], "chosen_ids": [2], "rejected_ids": [3], "response_ids": [4]}
        with pytest.raises(ValueError, match=r"record 1 has another layout \(empty text\) than record 0 \(token ids\)"):
            encode([row, nothing], kind=kind)


def test_ids_come_first_even_beside_text():
    data = encode_preferences([{**STRINGS[0], **LAYOUTS["ids"]}])
    assert data.chosen_ids[0].tolist() == [2]


def test_ids_are_taken_as_they_are(tokenizer):
    rows = [{"prompt_ids": [BOS, BOS, 9], "chosen_ids": [EOS, EOS], "rejected_ids": np.array([7, 8], dtype=np.int16)}]
    with_it, without = encode_preferences(rows, tokenizer), encode_preferences(rows)
    for data in (with_it, without):
        assert data.prompt_ids[0].tolist() == [BOS, BOS, 9]
        assert [response.tolist() for response in data.response_ids] == [[EOS, EOS], [7, 8]]
    assert (with_it.tokenizer["length"], without.tokenizer["length"]) == (len(tokenizer), None)
    assert with_it.fingerprint != without.fingerprint


def test_columns_are_mapped(tokenizer):
    rows = [{"instruction": r["prompt"], "good": r["chosen"], "rejected": r["rejected"], "id": f"k{i}", "prompt": 3}
            for i, r in enumerate(STRINGS)]  # fmt: skip
    columns = {"prompt": "instruction", "chosen": "good", "key": "id"}
    data = encode_preferences(rows, tokenizer, columns=columns)
    assert data.keys == tuple(f"k{i}" for i in range(len(rows)))
    expect(data, STRINGS, tokenizer)
    with pytest.raises(ValueError, match="record 0 has no column 'id2'"):
        encode_preferences(rows, tokenizer, columns={**columns, "key": "id2"})


@pytest.mark.parametrize(
    ("columns", "kind", "words"),
    [
        ({"promt": "a"}, ValueError, "columns.*prompt.*promt"),
        ({"prompt": 3}, TypeError, "columns"),
        (["prompt"], TypeError, "columns"),
        ({"input_ids": "a"}, ValueError, "columns"),
    ],
)
def test_columns_are_checked(columns, kind, words):
    with pytest.raises(kind, match=words):
        encode_preferences(STRINGS, columns=columns)


def test_keys_are_unique_strings():
    row = LAYOUTS["ids"]
    data = encode_preferences([{**row, "key": key} for key in ("a", 1, np.int64(7), "é")])
    assert data.keys == ("a", "1", "7", "é")
    with pytest.raises(ValueError, match=r"record 2 repeats the key '1' of record 0"):
        encode_preferences([{**row, "key": key} for key in (1, 2, "1")])
    with pytest.raises(ValueError, match="record 1 has no key although the records before have one"):
        encode_preferences([{**row, "key": "a"}, row])
    with pytest.raises(ValueError, match="record 1 has a key although the records before have none"):
        encode_preferences([row, {**row, "key": "a"}])
    for key in (None, 1.5, True, ["a"], "\ud800", 10**30):
        with pytest.raises(ValueError, match=r"record 0: .*key"):
            encode_preferences([{**row, "key": key}])


def test_templates_get_tools_and_variables():
    tok = tiny_tokenizer()
    tok.chat_template = (
        "{% if tools %}{{ tools[0]['name'] }}{% endif %}{{ tone }}{% if unused is defined %}!{% endif %}"
        "{% for m in messages %}{{ m['content'] }}{% endfor %}"
    )
    rows = [
        {**CHAT[0], "tools": [{"name": "search"}], "chat_template_kwargs": {"tone": "kind", "unused": None}},
        {**CHAT[0], "tools": '[{"name": "search"}]', "chat_template_kwargs": None},
        {**CHAT[0], "tools": None},
    ]
    data = encode_preferences(rows, tok)
    texts = [tok.decode(prompt) for prompt in data.prompt_ids]
    assert texts == ["searchkindHi", "searchHi", "Hi"]
    assert data.status_counts == {"ok": 3}


@pytest.mark.parametrize(
    ("extra", "words"),
    [
        ({"tools": "no json"}, "`tools`"),
        ({"tools": 3}, "`tools`"),
        ({"tools": "[" * 100_000}, "`tools`"),
        ({"chat_template_kwargs": "x"}, "`chat_template_kwargs`"),
        ({"chat_template_kwargs": {"tokenize": True}}, "`chat_template_kwargs`.*'tokenize'"),
        ({"chat_template_kwargs": {"add_generation_prompt": False}}, "add_generation_prompt"),
        ({"chat_template_kwargs": {3: 1}}, "`chat_template_kwargs`"),
    ],
)
def test_bad_template_options_are_named(tokenizer, extra, words):
    with pytest.raises(ValueError, match=rf"record 0: .*{words}"):
        encode_preferences([{**CHAT[0], **extra}], tokenizer)


def test_what_a_template_refuses_is_named():
    tok = tiny_tokenizer()
    tok.chat_template = "{{ raise_exception('roles must alternate') }}"
    with pytest.raises(ValueError, match=r"record 0: the chat template refused .*roles must alternate"):
        encode_preferences(CHAT, tok)
    with pytest.raises(ValueError, match="must have a chat template"):
        encode_preferences(CHAT, tiny_tokenizer(kind="no_template"))


# --- other kinds ----------------------------------------------------------------------------------------------------


def test_rollouts_of_strings_share_the_cut(tokenizer):
    row = merging_pair(tokenizer)
    data = encode(
        [
            {"prompt": row["prompt"], "responses": [row["rejected"], row["chosen"], " third"]},
            {"prompt": "Alone:", "responses": [" only one"]},
        ],
        tokenizer,
        kind="responses",
    )
    alone = tokenizer(row["prompt"])["input_ids"]
    joints = [
        tokenizer(row["prompt"] + text + "</s>")["input_ids"] for text in (row["rejected"], row["chosen"], " third")
    ]
    cut = agreement(alone, joints)
    assert cut < len(alone)
    assert data.n_boundary_merges == 1
    assert data.prompts[0].tolist() == alone[:cut]
    assert [response.tolist() for response in data.response_ids[:3]] == [joint[cut:] for joint in joints]
    assert data.group.tolist() == [0, 0, 0, 1]
    assert data.slot.tolist() == [0, 1, 2, 0]
    assert data.loss_mask == (None,) * 4


def test_rollouts_in_every_layout_agree(tokenizer):
    texts = [" blue.", " green."]
    many = encode([{"prompt": "The sky is", "responses": texts}], tokenizer, kind="responses")
    pair = encode([{"prompt": "The sky is", "chosen": texts[0], "rejected": texts[1]}], tokenizer)
    assert [r.tolist() for r in many.response_ids] == [r.tolist() for r in pair.response_ids]
    as_ids = {"prompt_ids": many.prompts[0].tolist(), "responses_ids": [r.tolist() for r in many.response_ids]}
    again = encode([as_ids], kind="responses")
    assert [r.tolist() for r in again.response_ids] == [r.tolist() for r in many.response_ids]
    single = encode([{"prompt": "The sky is", "response": texts[0]}], tokenizer, kind="responses")
    assert single.response_ids[0].tolist() == many.response_ids[0].tolist()
    one = encode([{"prompt_ids": [1, 2], "response_ids": [3]}], kind="responses")
    assert (one.prompts[0].tolist(), one.response_ids[0].tolist()) == ([1, 2], [3])
    chat = [{"prompt": [user("Hi")], "responses": [[bot("a")], [bot("b"), user("c"), bot("d")]]}]
    talk = encode(chat, tokenizer, kind="responses")
    short = encode(
        [{"prompt": [user("Hi")], "responses": ["a", [bot("b"), user("c"), bot("d")]]}], tokenizer, kind="responses"
    )
    assert talk.fingerprint == short.fingerprint
    assert type(talk) is Encoded


def test_status_of_rollouts():
    rows = [
        {"prompt_ids": [1], "responses_ids": [[2], [3, 4]]},
        {"prompt_ids": [], "responses_ids": [[2]]},
        {"prompt_ids": [1], "responses_ids": [[2], []]},
        {"prompt_ids": [1], "responses_ids": []},
        {"prompt_ids": [1, 1, 1], "responses_ids": [[2], [3]]},
        {"prompt_ids": [1], "responses_ids": [[2], [2]]},  # equal rollouts are no harm
    ]
    data = encode(rows, kind="responses", max_length=3)
    assert data.status == ("ok", "empty_prompt", "empty_response", "empty_response", "too_long", "ok")
    assert "response 1 of 2" in " ".join(data.notes)
    assert data.group.tolist() == [0, 0, 1, 2, 2, 3, 4, 4, 5, 5]  # a group without responses has one empty row


def test_masked_sequences():
    rows = [
        {"input_ids": [1, 5, 7, 8, 9, 4], "response_mask": [0, 0, 1, 0, 1, 0]},
        {"input_ids": np.array([1, 5, 7]), "response_mask": np.array([False, True, True])},
        {"input_ids": [1, 5], "response_mask": [True, True]},
        {"input_ids": [1, 5], "response_mask": [False, False]},
        {"input_ids": [], "response_mask": []},
        {"input_ids": [1, 2, 3, 4, 5], "response_mask": [0, 0, 0, 0, 1]},
    ]
    data = encode(rows, kind="ids", max_length=4)
    assert data.status == ("ok", "ok", "empty_prompt", "empty_response", "empty_prompt", "too_long")
    assert data.prompts[0].tolist() == [1, 5]
    assert data.response_ids[0].tolist() == [7, 8]
    assert data.loss_mask[0].tolist() == [True, False]
    assert data.loss_mask[1] is None
    assert data.slot.tolist() == [0] * 6


@settings(max_examples=80)
@given(
    st.lists(st.booleans(), max_size=8),
    st.one_of(st.none(), st.integers(1, 9)),
    st.sampled_from(["keep_start", "keep_end"]),
)
def test_masked_sequences_keep_every_counted_token(mask, limit, keep):
    tokens = list(range(10, 10 + len(mask)))
    data = encode([{"input_ids": tokens, "response_mask": mask}], kind="ids", max_length=limit, truncation=keep)
    ends = [i for i, m in enumerate(mask) if m]
    row = list(zip(tokens, mask, strict=True))[: ends[-1] + 1 if ends else None]
    kept = row[:limit] if keep == "keep_start" else row[-limit if limit else None :]
    ok = bool(kept) and not kept[0][1] and any(counts for _, counts in kept) and not mask[0]
    assert (data.status[0] == "ok") == (ok and bool(ends) and kept[0][0] < tokens[ends[0]])
    if data.status[0] == "ok":
        response, counted = data.response_ids[0].tolist(), data.loss_mask[0]
        assert counted is None or not counted.all()
        counted = [True] * len(response) if counted is None else counted.tolist()
        assert [t for t, c in zip(response, counted, strict=True) if c] == [t for t, c in kept if c]
        prompt = data.prompts[0][data.prompt_start[0] :].tolist()
        assert prompt + response == [t for t, _ in kept]


# --- arguments ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "kind", "words"),
    [
        ({"mode": "both"}, ValueError, "mode"),
        ({"kind": "triples"}, ValueError, "kind"),
        ({"add_eos": True}, TypeError, "add_eos"),
        ({"add_eos": "always"}, ValueError, "add_eos"),
        ({"max_length": 0}, ValueError, "max_length"),
        ({"max_length": "8"}, TypeError, "max_length"),
        ({"max_prompt_length": 0}, ValueError, "max_prompt_length"),
        ({"truncation": "middle"}, ValueError, "truncation"),
        ({"on_bad": "drop"}, ValueError, "on_bad"),
        ({"on_boundary": "cut"}, ValueError, "on_boundary"),
    ],
)
def test_options_are_checked(options, kind, words):
    with pytest.raises(kind, match=words):
        encode([LAYOUTS["ids"]], **options)


def test_no_records_and_no_tokenizer():
    with pytest.raises(ValueError, match="`records` must hold at least one"):
        encode([])
    with pytest.raises(TypeError, match="`tokenizer` must be given, for record 0 holds text"):
        encode(STRINGS)
    with pytest.raises(TypeError, match="`tokenizer` must be a tokenizer of transformers"):
        encode(STRINGS, lambda texts: texts)
    from tokenizers import Tokenizer, models

    with pytest.raises(TypeError, match="PreTrainedTokenizerFast"):
        encode(STRINGS, Tokenizer(models.BPE()))
    with pytest.raises(ValueError, match=r"expected columns prompt/chosen/rejected or chosen/rejected.*found a, b"):
        encode([{"b": 1, "a": 2}])
    with pytest.raises(ValueError, match=r"expected columns prompt/responses.*found a"):
        encode([{"a": 2}], kind="responses")
    with pytest.raises(ValueError, match="expected columns input_ids/response_mask"):
        encode([{"input_ids": [1]}], kind="ids")
    with pytest.raises(TypeError, match="on_bd"):
        encode(STRINGS, on_bd="raise")


# --- what the result may depend on ----------------------------------------------------------------------------------


def test_the_result_depends_on_nothing_but_records_and_options(tokenizer, monkeypatch):
    from rankdiag.language_models import _encode

    records = STRINGS * 30
    whole = encode(records, tokenizer)
    monkeypatch.setattr(_encode, "_CHUNK", 7)
    assert encode(iter(records), tokenizer).fingerprint == whole.fingerprint  # chunks and laziness
    assert encode(records, tiny_tokenizer()).fingerprint == whole.fingerprint
    tokenizer(["x", "yy"], padding=True, truncation=True, max_length=1)  # state of a call, not of the tokenizer
    assert encode(records, tokenizer).fingerprint == whole.fingerprint
    as_ids = [LAYOUTS["ids"]]
    before = encode(as_ids, tokenizer).fingerprint
    tokenizer(["x", "yy"], padding=True, truncation=True, max_length=1)
    assert encode(as_ids, tokenizer).fingerprint == before
    assert encode(records, tokenizer, max_length=8).fingerprint != whole.fingerprint
    assert encode(records[:-1], tokenizer).fingerprint != whole.fingerprint
    other = tiny_tokenizer()
    other.add_tokens(["never used"])
    assert encode(records, other).fingerprint != whole.fingerprint


def test_texts_are_dropped_as_they_are_encoded(tokenizer, monkeypatch):
    import gc
    import weakref

    class Row(dict):
        pass

    alive, most = weakref.WeakSet(), 0

    class Hashable(Row):
        __hash__ = object.__hash__

    def rows():
        nonlocal most
        for i in range(2000):
            row = Hashable(STRINGS[i % len(STRINGS)])
            alive.add(row)
            most = max(most, len(alive))
            yield row

    encode(rows(), tokenizer)
    gc.collect()
    assert most < 10  # the texts of a chunk are kept, the records are not
    assert not alive


def test_records_are_left_alone(tokenizer):
    import copy

    records = [*CHAT, {**CHAT[0], "tools": [{"name": "x"}], "chat_template_kwargs": {"tone": "kind"}}]
    before = copy.deepcopy(records)
    encode(records, tokenizer)
    assert records == before


def test_encoding_ids_loads_neither_torch_nor_transformers():
    code = (
        "import sys\n"
        "from rankdiag.language_models import encode\n"
        "encode([{'prompt_ids': [1], 'chosen_ids': [2], 'rejected_ids': [3]}])\n"
        "assert not {'torch', 'transformers', 'pyarrow', 'datasets'} & set(sys.modules)\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)


# --- real pairs -----------------------------------------------------------------------------------------------------


def real(name):
    path = data_file(name)
    if path is None:
        pytest.skip(f"{name} is not there; RANKDIAG_DATA names the folder of it")
    return path


@pytest.mark.parametrize(
    ("name", "count"),
    [("code_math_pairs.jsonl", 517), ("chat_pairs_conversational.jsonl", 88), ("persona_yes_no_pairs.jsonl", 1500)],
)
def test_real_pairs_agree_with_the_oracle(name, count):
    path, tok = real(name), tiny_tokenizer(1024)
    records = rows_of(path)
    data = encode_preferences(path, tok, columns={"key": "id"})
    assert len(data) == count
    assert data.keys == tuple(record["id"] for record in records)
    part = records[:: max(1, count // 60)]
    expect(encode_preferences(part, tok), part, tok)
    merges = sum(tokens_of(tok, record)[2] for record in part)
    assert encode_preferences(part, tok).n_boundary_merges == merges
    assert data.n_boundary_merges <= count // 50  # a few in a thousand at most
    assert data.n_usable >= count - 2


def test_real_merges_are_found_whatever_the_vocabulary():
    records = rows_of(real("code_math_pairs.jsonl"))
    merged = [record for record in records if not record["prompt"].endswith("\n")]
    tok = tiny_tokenizer(1024)
    moved = [  # cut the prompt inside its last word, so that many boundaries merge
        {
            "prompt": r["prompt"][:-2],
            "chosen": r["prompt"][-2:] + r["chosen"],
            "rejected": r["prompt"][-2:] + r["rejected"],
        }
        for r in merged[:60]
    ]
    data = encode_preferences(moved, tok)
    expected = [tokens_of(tok, record)[2] for record in moved]
    assert data.n_boundary_merges == sum(expected) > 5
    expect(data, moved, tok)
