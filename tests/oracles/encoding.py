"""Encoding as plainly as it can be written: one record, one text, one token at a time. Shares no code with src."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any


def data_file(name: str) -> Path | None:
    """Find a file of real preference pairs beside the repository; None where there is none."""
    root = os.environ.get("RANKDIAG_DATA")
    folder = Path(root) if root else Path(__file__).resolve().parents[2].parent / "shared" / "data"
    path = folder / "preferences" / name
    return path if path.is_file() else None


def rows_of(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines() if line]


def agreement(prompt: list[int], joints: list[list[int]]) -> int:
    """Largest k such that every joint sequence starts with the first k tokens of the prompt."""
    best = 0
    for k in range(len(prompt) + 1):
        if all(len(joint) >= k and all(joint[i] == prompt[i] for i in range(k)) for joint in joints):
            best = k
    return best


def shrink(prompt: list[int], response: list[int], limit: int | None, keep: str) -> tuple[list[int], list[int]]:
    """Take tokens off one end of the row, one at a time, until it is short enough."""
    row = [("prompt", token) for token in prompt] + [("response", token) for token in response]
    while limit is not None and len(row) > limit:
        if keep == "keep_start":
            row.pop()
        else:
            row.pop(0)
    return [t for side, t in row if side == "prompt"], [t for side, t in row if side == "response"]


def common_start(first, second) -> int:
    count = 0
    while count < len(first) and count < len(second) and first[count] == second[count]:
        count += 1
    return count


def parts_of(record: dict[str, Any]):
    """Prompt and two responses of a pair in any text layout."""
    prompt, chosen, rejected = record.get("prompt"), record["chosen"], record["rejected"]
    if "prompt" not in record or (isinstance(chosen, list) and isinstance(prompt, str)):
        cut = common_start(chosen, rejected)
        if isinstance(chosen, str) and 0 < cut < min(len(chosen), len(rejected)) and chosen[cut - 1] == " ":
            cut -= 1
        prompt, chosen, rejected = chosen[:cut], chosen[cut:], rejected[cut:]
    return prompt, chosen, rejected


def tokens_of(tokenizer, record, *, mode="joint", add_eos="auto"):
    """Prompt ids, both responses' ids and whether tokens merged, for one pair whose parts are not empty."""
    prompt, chosen, rejected = parts_of(record)
    eos = tokenizer.eos_token_id
    if isinstance(prompt, str):
        text = tokenizer.eos_token or ""
        if add_eos == "auto" and text:
            chosen = chosen if chosen[-len(text) :] == text else chosen + text
            rejected = rejected if rejected[-len(text) :] == text else rejected + text

        def ids(string, special=True):
            found = list(tokenizer(string, add_special_tokens=special)["input_ids"])
            bare = list(tokenizer(string, add_special_tokens=False)["input_ids"])
            trailing = special and eos is not None and found[-1:] == [eos] and found[-len(bare) :] != bare
            return found[:-1] if trailing else found

        start = ids(prompt)
        if mode == "separate":
            return start, [ids(chosen, False), ids(rejected, False)], False
        joints = [ids(prompt + chosen), ids(prompt + rejected)]
    else:
        opening = tokenizer.apply_chat_template(prompt, tokenize=False, add_generation_prompt=True)
        full = [tokenizer.apply_chat_template(prompt + side, tokenize=False) for side in (chosen, rejected)]
        start = tokenizer(opening, add_special_tokens=False)["input_ids"]
        if mode == "separate":
            rest = [tokenizer(text[len(opening) :], add_special_tokens=False)["input_ids"] for text in full]
            return start, rest, False
        joints = [tokenizer(text, add_special_tokens=False)["input_ids"] for text in full]
    cut = len(start) if mode == "offset" else agreement(start, joints)
    responses = [joint[cut:] for joint in joints]
    for response in responses:
        while len(response) > 1 and response[-1] == response[-2] == eos:
            response.pop()
    return start[:cut], responses, agreement(start, joints) < len(start)


def pair_of(tokenizer, record, *, mode="joint", add_eos="auto", limit=None, keep="keep_start", prompt_limit=None):
    """What encoding must give for one pair: status, prompt, and for each side its start and ids."""
    prompt, chosen, rejected = parts_of(record)
    if not prompt:
        return "empty_prompt", None, None
    if chosen == rejected and not chosen:
        return "identical", None, None
    if isinstance(prompt, list):
        chosen = chosen if any(message["content"] for message in chosen) else []
        rejected = rejected if any(message["content"] for message in rejected) else []
    if not chosen or not rejected:
        return ("empty_rejected" if chosen else "empty_chosen"), None, None
    start, responses, _ = tokens_of(tokenizer, record, mode=mode, add_eos=add_eos)
    while prompt_limit is not None and len(start) > prompt_limit:
        start = start[1:]
    if not start:
        return "empty_prompt", None, None
    rows = []
    for response in responses:
        left, right = shrink(start, response, limit, keep)
        rows.append((len(start) - len(left) if keep == "keep_end" else 0, len(left), right))
    if any(not left or not right for _, left, right in rows):
        return "too_long", None, None
    status = "identical" if rows[0][2] == rows[1][2] else "ok"
    return status, start, [(cut, right) for cut, _, right in rows]
