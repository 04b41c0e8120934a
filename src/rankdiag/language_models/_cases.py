"""From one record to one case: which layout it has, its prompt and responses, and whether something is empty.

The layout is a matter of the dataset, not of the record: the first record that shows one settles it.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from rankdiag._validate import describe
from rankdiag.language_models._records import message_list, same_start
from rankdiag.language_models._tokenise import check_options, check_text

__all__ = ["Case", "CaseReader", "checked_columns"]

Kind = Literal["pairs", "responses", "ids"]
Form = Literal["ids", "conversations", "strings", "full strings", "full conversations"]
Part = Any  # a string, a list of messages, or an array of ids

_COLUMNS: dict[str, tuple[str, ...]] = {
    "pairs": ("key", "prompt", "chosen", "rejected", "prompt_ids", "chosen_ids", "rejected_ids"),
    "responses": ("key", "prompt", "response", "responses", "prompt_ids", "response_ids", "responses_ids"),
    "ids": ("key", "input_ids", "response_mask"),
}
_TEMPLATE = ("tools", "chat_template_kwargs")
_EXPECTED = {
    "pairs": "prompt/chosen/rejected or chosen/rejected or prompt_ids/chosen_ids/rejected_ids",
    "responses": "prompt/responses or prompt/response or prompt_ids/responses_ids or prompt_ids/response_ids",
    "ids": "input_ids/response_mask",
}
_IN_WORDS: dict[str, str] = {
    "": "empty text",
    "ids": "token ids",
    "conversations": "prompt and responses as conversations",
    "strings": "prompt and responses as strings",
    "full strings": "full strings without a prompt",
    "full conversations": "full conversations without a prompt of their own",
}
_LARGEST_ID = 2**31 - 1
_EMPTY_IDS: NDArray[np.int32] = np.zeros(0, dtype=np.int32)


@dataclass(slots=True, kw_only=True)
class Case:
    """One record, checked and brought to one form.

    Attributes
    ----------
    place : str
        Where it stands in the source, for messages.
    key : str
        Its key.
    form : str
        ``"ids"``, ``"conversations"`` or ``"strings"``.
    prompt : str, list of mapping or ndarray
        The prompt.
    responses : list
        Responses of the same form.
    masks : list
        For each response which tokens count; None counts all.
    options : mapping
        Variables of the chat template.
    status : str
        Empty, or why the record cannot be used as it was given.
    detail : str
        More about the status.
    """

    place: str
    key: str
    form: str
    prompt: Part
    responses: list[Part]
    masks: list[NDArray[np.bool_] | None] = field(default_factory=list)
    options: Mapping[str, Any] = field(default_factory=dict)
    status: str = ""
    detail: str = ""


class CaseReader:
    """Turns records of one dataset into cases; remembers the layout and the keys.

    Parameters
    ----------
    kind : {"pairs", "responses", "ids"}
        What the records are.
    columns : mapping of str to str
        Name of a column here -> its name in the records.
    """

    def __init__(self, kind: Kind, columns: Mapping[str, str]) -> None:
        self.kind: Kind = kind
        self.columns = {name: columns.get(name, name) for name in (*_COLUMNS[kind], *_TEMPLATE)}
        self.mapped = frozenset(columns)
        self.form: str = ""
        self.form_place = ""
        self.has_keys: bool | None = None
        self.keys: dict[str, str] = {}
        self.n_prompts_ignored = 0

    def read(self, place: str, record: Mapping[str, Any]) -> Case:
        """Check one record.

        Parameters
        ----------
        place : str
            Where it stands.
        record : mapping
            Its columns.

        Returns
        -------
        Case
            Its parts in one form; `status` is set where something is empty.

        Raises
        ------
        ValueError
            If the record is malformed, has another layout than those before, or repeats a key.
        """
        view = _View(record, self.columns, place)
        for name in self.mapped:
            if not view.has(name):
                raise ValueError(f"{place} has no column {self.columns[name]!r}, to which `columns` maps {name!r}")
        key = self._key(view)
        read = {"pairs": self._pair, "responses": self._responses, "ids": self._sequence}[self.kind]
        case = read(view, key)
        if case.form == "conversations" and not case.status:
            case.options = _template_options(view)
        return case

    def _key(self, view: _View) -> str:
        given = view.has("key")
        if self.has_keys is None:
            self.has_keys = given
        if given != self.has_keys:
            has, had = ("a", "none") if given else ("no", "one")
            raise ValueError(f"{view.place} has {has} key although the records before have {had}")
        key = _as_key(view.get("key"), view.place) if given else str(len(self.keys))
        if key in self.keys:
            raise ValueError(f"{view.place} repeats the key {key!r} of {self.keys[key]}; keys must be unique")
        self.keys[key] = view.place
        return key

    def _settle(self, form: str, place: str) -> None:
        """Compare with the layout of the records before; a record with nothing in it fits any text."""
        if not self.form:
            self.form, self.form_place = form, place
        elif form != self.form and (form or self.form == "ids"):
            raise ValueError(
                f"{place} has another layout ({_IN_WORDS[form]}) than {self.form_place} ({_IN_WORDS[self.form]}); a "
                "dataset must have one layout"
            )

    # --- pairs -------------------------------------------------------------------------------------------------

    def _pair(self, view: _View, key: str) -> Case:
        if all(view.has(name) for name in ("prompt_ids", "chosen_ids", "rejected_ids")):
            self._settle("ids", view.place)
            parts = [_ids(view.get(name), name, view.place) for name in ("prompt_ids", "chosen_ids", "rejected_ids")]
            return _judged(view.place, key, "ids", parts[0], parts[1:], ("chosen", "rejected"))
        if not (view.has("chosen") and view.has("rejected")):
            view.refuse(_EXPECTED["pairs"])
        prompt = view.part("prompt") if view.has("prompt") else None
        chosen, rejected = view.part("chosen"), view.part("rejected")
        form = self._pair_form(view, prompt, chosen, rejected)
        self._settle(form, view.place)
        if (form or self.form).startswith("full "):
            self.n_prompts_ignored += prompt is not None
            return _full(view.place, key, form or self.form, chosen, rejected)
        return _judged(view.place, key, form or self.form or "strings", prompt, [chosen, rejected], _SIDES)

    def _pair_form(self, view: _View, prompt: Part, chosen: Part, rejected: Part) -> str:
        """Return the layout of one pair; empty where nothing but None is there to tell it."""
        kinds = {_kind(side) for side in (chosen, rejected)} - {""}
        if len(kinds) == 2:
            raise ValueError(f"{view.place}: `chosen` and `rejected` must both be strings, or both lists of messages")
        if not kinds:
            return ""
        kind, of_prompt = kinds.pop(), _kind(prompt)
        if not view.has("prompt"):
            return f"full {kind}"
        if kind == "conversations" and not of_prompt:
            return "conversations" if self.form == "conversations" else "full conversations"
        if kind == "conversations" and of_prompt == "strings":
            return "full conversations"
        if of_prompt and of_prompt != kind:
            raise ValueError(
                f"{view.place}: `prompt` is a list of messages and the responses are strings; make both the same"
            )
        return kind

    # --- rollouts and masked sequences ---------------------------------------------------------------------------

    def _responses(self, view: _View, key: str) -> Case:
        many, one = view.has("responses_ids"), view.has("response_ids")
        if view.has("prompt_ids") and (many or one):
            self._settle("ids", view.place)
            prompt = _ids(view.get("prompt_ids"), "prompt_ids", view.place)
            given = view.entries("responses_ids") if many else [view.get("response_ids")]
            name = "responses_ids" if many else "response_ids"
            responses = [_ids(entry, name, view.place) for entry in given] or [_EMPTY_IDS]
            return _judged(view.place, key, "ids", prompt, responses)
        if not view.has("prompt") or not (view.has("responses") or view.has("response")):
            view.refuse(_EXPECTED["responses"])
        prompt = view.part("prompt")
        parts = [view.as_part(e, "responses") for e in view.entries("responses")] if view.has("responses") else []
        if not view.has("responses"):
            parts = [view.part("response")]
        kinds = {_kind(part) for part in parts} - {""}
        form = _kind(prompt) or ("conversations" if "conversations" in kinds else "")
        if form == "strings" and "conversations" in kinds:
            raise ValueError(
                f"{view.place}: `prompt` is a string and a response is a list of messages; make both the same"
            )
        self._settle(form, view.place)
        form = form or self.form or "strings"
        if form == "conversations":
            parts = [[{"role": "assistant", "content": part}] if isinstance(part, str) else part for part in parts]
        return _judged(view.place, key, form, prompt, parts or [None])

    def _sequence(self, view: _View, key: str) -> Case:
        if not (view.has("input_ids") and view.has("response_mask")):
            view.refuse(_EXPECTED["ids"])
        ids = _ids(view.get("input_ids"), "input_ids", view.place)
        mask = _mask(view.get("response_mask"), len(ids), view.place)
        places = np.flatnonzero(mask)
        first, last = (int(places[0]), int(places[-1]) + 1) if len(places) else (len(ids), len(ids))
        inside = mask[first:last]
        case = _judged(view.place, key, "ids", ids[:first], [ids[first:last]])
        case.masks = [None if inside.all() else inside]
        return case


_SIDES = ("chosen", "rejected")


def checked_columns(columns: Any, kind: Kind) -> dict[str, str]:
    """Check the option `columns`: names of this library to names in the records."""
    allowed = (*_COLUMNS[kind], *_TEMPLATE)
    if columns is None:
        return {}
    if not isinstance(columns, Mapping):
        raise TypeError(f"`columns` must map names of this library to names in the records; got {describe(columns)}")
    for name, target in columns.items():
        if name not in allowed:
            raise ValueError(f"`columns` must map names among {', '.join(allowed)}; got {describe(name)}")
        if not isinstance(target, str):
            raise TypeError(f"`columns` must map to names of columns; {name!r} maps to {describe(target)}")
    return dict(columns)


class _View:
    """One record under the names of this library."""

    def __init__(self, record: Mapping[str, Any], columns: Mapping[str, str], place: str) -> None:
        self.record, self.columns, self.place = record, columns, place

    def has(self, name: str) -> bool:
        return self.columns[name] in self.record

    def get(self, name: str) -> Any:
        return self.record.get(self.columns[name])

    def entries(self, name: str) -> Sequence[Any]:
        value = self.get(name)
        if isinstance(value, np.ndarray):
            value = value.tolist()
        if value is None:
            return []
        if not isinstance(value, (list, tuple)):
            raise ValueError(f"{self.place}: `{self.columns[name]}` must be a list of responses; got {describe(value)}")
        return value

    def part(self, name: str) -> Part:
        return self.as_part(self.get(name), self.columns[name])

    def as_part(self, value: Any, name: str) -> Part:
        """Check a text or a conversation; None stays None."""
        if value is None:
            return None
        if isinstance(value, str):
            check_text(value, f"{self.place}: `{name}`")
            return str(value)
        return message_list(value, f"{self.place}: `{name}`")

    def refuse(self, expected: str) -> None:
        found = ", ".join(sorted(map(str, self.record))[:12])[:200] or "no columns"
        raise ValueError(f"{self.place}: expected columns {expected}; found {found}. Name others with `columns`")


def _kind(part: Part) -> str:
    if part is None:
        return ""
    return "strings" if isinstance(part, str) else "conversations"


def _judged(place: str, key: str, form: str, prompt: Part, responses: list[Part], sides: Sequence[str] = ()) -> Case:
    """Make a case, with the first thing that is empty in it as its status."""
    case = Case(place=place, key=key, form=form, prompt=prompt, responses=responses, masks=[None] * len(responses))
    if prompt is None or len(prompt) == 0:
        case.status = "empty_prompt"
        return case
    empty = [slot for slot, response in enumerate(responses) if _is_empty(response)]
    if empty and sides:
        case.status = f"empty_{sides[empty[0]]}"
    elif empty:
        case.status, case.detail = "empty_response", f"response {empty[0]} of {len(responses)}"
    return case


def _is_empty(response: Part) -> bool:
    if response is None or len(response) == 0:
        return True
    if isinstance(response, list):  # a message may call a tool instead of saying something
        return not any(message.get("content") or set(message) - {"role", "content"} for message in response)
    return False


def _full(place: str, key: str, form: str, chosen: Part, rejected: Part) -> Case:
    """Cut a pair without a prompt where its responses part."""
    form = form.removeprefix("full ")
    nothing: Part = "" if form == "strings" else []
    chosen, rejected = (nothing if part is None else part for part in (chosen, rejected))
    shared = same_start(chosen, rejected)
    prompt, identical = chosen[:shared], len(chosen) == len(rejected) == shared
    if form == "strings" and prompt.endswith(" ") and shared < min(len(chosen), len(rejected)):
        shared -= 1
    parts = [chosen[shared:], rejected[shared:]]
    case = _judged(place, key, form, chosen[:shared], parts, _SIDES)
    if identical and prompt:
        case.status = "identical"
    elif case.status == "empty_prompt":
        case.detail = "the responses have no start in common"
    return case


def _as_key(value: Any, place: str) -> str:
    if isinstance(value, str):
        check_text(value, f"{place}: the key")
        return str(value)
    if isinstance(value, (int, np.integer)) and not isinstance(value, bool) and abs(int(value)) < 2**63:
        return str(int(value))
    raise ValueError(f"{place}: a key must be a string or an integer; got {describe(value)}")


def _ids(value: Any, name: str, place: str) -> NDArray[np.int32]:
    """Check a list of token ids; None is an empty one."""
    if value is None:
        return _EMPTY_IDS
    array = _numbers(value)
    if array is None or array.ndim != 1 or (array.size and array.dtype.kind not in "iu"):
        raise ValueError(f"{place}: `{name}` must be a list of token ids, which are integers; got {describe(value)}")
    if array.size and not 0 <= int(array.min()) <= int(array.max()) <= _LARGEST_ID:
        wrong = int(array.min()) if int(array.min()) < 0 else int(array.max())
        raise ValueError(f"{place}: `{name}` must hold ids from 0 to {_LARGEST_ID}; got {wrong}")
    return array.astype(np.int32)


def _mask(value: Any, length: int, place: str) -> NDArray[np.bool_]:
    array = _numbers(value)
    if array is None or array.ndim != 1 or (array.size and array.dtype.kind not in "biu"):
        raise ValueError(f"{place}: `response_mask` must be a list of booleans, or of 0 and 1; got {describe(value)}")
    if len(array) != length:
        raise ValueError(f"{place}: `response_mask` must have {length} entries, as `input_ids`; got {len(array)}")
    if array.size and array.dtype.kind != "b" and not np.isin(array, (0, 1)).all():
        raise ValueError(f"{place}: `response_mask` must hold booleans, or 0 and 1; got other numbers")
    return array.astype(np.bool_)


def _numbers(value: Any) -> NDArray[Any] | None:
    """Return a list, array or tensor as an array; None for what is none or is ragged."""
    if isinstance(value, (str, bytes, Mapping)) or not hasattr(type(value), "__len__"):
        return None
    try:
        if isinstance(value, list) and any(isinstance(entry, bool) for entry in value):
            return np.asarray(value) if all(isinstance(entry, bool) for entry in value) else None
        return np.asarray(value)
    except Exception:  # ragged lists, numbers beyond 64 bits, tensors on a device
        return None


def _template_options(view: _View) -> dict[str, Any]:
    """Return what a record tells the chat template: its tools, and variables of its own."""
    tools, given = view.get("tools"), view.get("chat_template_kwargs")
    options: dict[str, Any] = {}
    if isinstance(tools, str):
        try:
            tools = json.loads(tools)
        except (ValueError, RecursionError) as error:
            raise ValueError(f"{view.place}: `tools` must be a list, or JSON of one; {error}") from None
    if tools is not None:
        if isinstance(tools, np.ndarray):
            tools = tools.tolist()
        if not isinstance(tools, (list, tuple)):
            raise ValueError(f"{view.place}: `tools` must be a list; got {describe(tools)}")
        options["tools"] = list(tools)
    if given is not None:
        if not isinstance(given, Mapping):
            raise ValueError(f"{view.place}: `chat_template_kwargs` must be a mapping; got {describe(given)}")
        check_options(given, view.place)
        options |= {name: value for name, value in given.items() if value is not None}
    return options
