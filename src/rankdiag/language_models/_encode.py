"""Encoding: records in, token ids out, with the status of every record and what happened at its boundary."""

from __future__ import annotations

import itertools
import warnings
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Literal, cast

import numpy as np
from numpy.typing import NDArray

from rankdiag._validate import RankdiagWarning, choice, integer
from rankdiag.language_models._cases import Case, CaseReader, checked_columns
from rankdiag.language_models._encoded import Encoded, EncodedPreferences, Ids
from rankdiag.language_models._records import RecordsDigest, iterate_records
from rankdiag.language_models._tokenise import TRUNCATIONS, TextTokeniser, cut_window, shared_length

__all__ = ["encode", "encode_preferences"]

Kind = Literal["pairs", "responses", "ids"]
Mode = Literal["joint", "separate", "offset"]
Truncation = Literal["keep_start", "keep_end"]

_CHUNK = 256  # records whose texts are held, and handed to the tokenizer, at one time
_EXAMPLES = 3  # groups of one status that the notes name
_EMPTY: Ids = np.zeros(0, dtype=np.int32)


def encode(
    records: Any,
    tokenizer: Any = None,
    *,
    kind: Kind = "pairs",
    mode: Mode = "joint",
    add_eos: Literal["auto", "never"] = "auto",
    max_length: int | None = None,
    truncation: Truncation = "keep_start",
    max_prompt_length: int | None = None,
    columns: Mapping[str, str] | None = None,
    on_bad: Literal["skip", "raise"] = "skip",
    on_boundary: Literal["shorten", "raise"] = "shorten",
) -> Encoded:
    """Turn records of prompts and responses into token ids.

    Parameters
    ----------
    records : str, path-like, dataset or iterable of mappings
        What `read_records` takes. The layout is found once for the dataset, in this order:

        * pairs: ``prompt_ids/chosen_ids/rejected_ids``; ``prompt/chosen/rejected`` as conversations (lists of
          messages with ``role`` and ``content``) or as strings; ``chosen/rejected`` alone, or conversations beside a
          ``prompt`` that is a string, as full texts that `extract_prompt` cuts;
        * responses: ``prompt_ids`` with ``responses_ids`` (several) or ``response_ids`` (one), or ``prompt`` with
          ``responses`` or ``response``, as strings or conversations. A string that answers a conversation is the
          content of one message of the assistant. One record is one group; records are never merged;
        * ids: ``input_ids/response_mask``, one sequence with a mask over its tokens. The response reaches from the
          first to the last True; inside it, False marks tokens that do not count, such as turns of others.

        Optional columns: ``key`` (unique; without it the index of the record), and for conversations ``tools`` and
        ``chat_template_kwargs``. None counts as empty.
    tokenizer : transformers tokenizer, optional
        Not needed where the records hold ids; those are taken as they are.
    kind : {"pairs", "responses", "ids"}
        What the records are.
    mode : {"joint", "separate", "offset"}
        How text is tokenised. ``"joint"``: prompt and response as one text, cut as `split_joint` does. ``"separate"``:
        the response alone, without special tokens. ``"offset"``: as one text, cut after as many tokens as the prompt
        alone has, without looking whether they are the same; only to reproduce older scripts.
    add_eos : {"auto", "never"}
        ``"auto"`` appends the EOS of the tokenizer to string responses that do not end with it; conversations get
        theirs from the chat template.
    max_length : int, optional
        Tokens of prompt and response together that may stay; each row is cut by itself.
    truncation : {"keep_start", "keep_end"}
        Which end of a row stays; see `truncate_row`.
    max_prompt_length : int, optional
        Tokens of the prompt that may stay, counted from its end.
    columns : mapping of str to str, optional
        Name here -> name in the records, for instance ``{"prompt": "instruction"}``.
    on_bad : {"skip", "raise"}
        What to do about a group that cannot be used: keep it with its status, or raise.
    on_boundary : {"shorten", "raise"}
        What to do where the prompt, tokenised alone, is no start of prompt and response: cut before the first
        difference (``"joint"``), or raise.

    Returns
    -------
    Encoded
        Every record, usable or not; `EncodedPreferences` for pairs.

    Raises
    ------
    TypeError
        If an argument has the wrong type, or text comes without a tokenizer.
    ValueError
        If there is no record; a record is malformed, repeats a key or has another layout than those before; the chat
        template refuses a conversation; a sequence starts with two BOS tokens; an option is unknown; or, on request,
        for unusable groups and merged boundaries. The message names the record.
    FileNotFoundError
        If `records` is a path and there is no such file; nothing is ever downloaded.
    MissingExtraError
        If reading needs a package that is not installed.

    Warns
    -----
    RankdiagWarning
        If ``mode="offset"`` cut where the prompt was no start of the sequence.

    Notes
    -----
    Status of a group, the first that applies: ``empty_prompt``, ``empty_chosen``, ``empty_rejected`` (as given;
    ``empty_response`` for other kinds), ``too_long`` (no prompt token or no response token is left), ``identical``
    (pairs whose responses are the same tokens). A prompt or response of no text has no tokens at all here, even
    where the tokenizer would put special tokens.

    An EOS that the tokenizer itself puts behind plain text is taken off, and no response of text ends in two EOS. A
    template that writes a newline after EOS makes it part of the response. Rendered conversations are tokenised
    without further special tokens.

    Under ``"offset"`` the stored prompt is the one tokenised alone. Limits of a model are checked by `plan`, which
    knows the model. Cost: that of the tokenizer, on prompt, and on prompt with each response.

    Examples
    --------
    >>> from rankdiag.language_models import encode
    >>> data = encode([{"input_ids": [1, 5, 7, 8, 9], "response_mask": [0, 0, 1, 0, 1]}], kind="ids")
    >>> data.prompts[0].tolist(), data.response_ids[0].tolist(), data.loss_mask[0].tolist()
    ([1, 5], [7, 8, 9], [True, False, True])
    """
    return _encode_all(
        records,
        tokenizer,
        kind=kind,
        mode=mode,
        add_eos=add_eos,
        max_length=max_length,
        truncation=truncation,
        max_prompt_length=max_prompt_length,
        columns=columns,
        on_bad=on_bad,
        on_boundary=on_boundary,
    )


def encode_preferences(
    records: Any,
    tokenizer: Any = None,
    *,
    mode: Mode = "joint",
    add_eos: Literal["auto", "never"] = "auto",
    max_length: int | None = None,
    truncation: Truncation = "keep_start",
    max_prompt_length: int | None = None,
    columns: Mapping[str, str] | None = None,
    on_bad: Literal["skip", "raise"] = "skip",
    on_boundary: Literal["shorten", "raise"] = "shorten",
) -> EncodedPreferences:
    """Turn preference pairs into token ids; `encode` with ``kind="pairs"``.

    Parameters
    ----------
    records, tokenizer, mode, add_eos, max_length, truncation, max_prompt_length, columns, on_bad, on_boundary
        As in `encode`.

    Returns
    -------
    EncodedPreferences
        Every pair, usable or not.

    Raises
    ------
    TypeError
        If an argument has the wrong type, or text comes without a tokenizer.
    ValueError
        If there is no record, a record is malformed, or an option is unknown; see `encode`.
    FileNotFoundError
        If there is no such file.
    MissingExtraError
        If reading needs a package that is not installed.

    Warns
    -----
    RankdiagWarning
        As in `encode`.

    Examples
    --------
    >>> from rankdiag.language_models import encode_preferences
    >>> pair = {"prompt_ids": [1, 5], "chosen_ids": [7, 2], "rejected_ids": [8, 2]}
    >>> encode_preferences([pair, {**pair, "rejected_ids": [7, 2]}])
    EncodedPreferences(2 pairs: 1 ok, 1 identical; 16 tokens)
    """
    data = _encode_all(
        records,
        tokenizer,
        kind="pairs",
        mode=mode,
        add_eos=add_eos,
        max_length=max_length,
        truncation=truncation,
        max_prompt_length=max_prompt_length,
        columns=columns,
        on_bad=on_bad,
        on_boundary=on_boundary,
    )
    return cast(EncodedPreferences, data)


def _encode_all(
    records: Any,
    tokenizer: Any,
    *,
    kind: Kind,
    mode: Mode,
    add_eos: str,
    max_length: int | None,
    truncation: Truncation,
    max_prompt_length: int | None,
    columns: Mapping[str, str] | None,
    on_bad: str,
    on_boundary: str,
) -> Encoded:
    """Check the options, and read and encode chunk by chunk."""
    kind = choice(kind, "kind", ("pairs", "responses", "ids"))
    work = _Work(
        tokenizer,
        kind=kind,
        mode=choice(mode, "mode", ("joint", "separate", "offset")),
        add_eos=choice(add_eos, "add_eos", ("auto", "never")),
        max_length=None if max_length is None else integer(max_length, "max_length", low=1),
        truncation=choice(truncation, "truncation", TRUNCATIONS),
        max_prompt_length=None if max_prompt_length is None else integer(max_prompt_length, "max_prompt_length", low=1),
        raise_bad=choice(on_bad, "on_bad", ("skip", "raise")) == "raise",
        raise_boundary=choice(on_boundary, "on_boundary", ("shorten", "raise")) == "raise",
    )
    reader = CaseReader(kind, checked_columns(columns, kind))
    digest = RecordsDigest()
    located = digest.watch(iterate_records(records))
    while chunk := [reader.read(place, record) for place, record in itertools.islice(located, _CHUNK)]:
        work.add(chunk)
    if not work.keys:
        raise ValueError("`records` must hold at least one record; got none")
    return work.finish(reader, digest.hexdigest())


class _Work:
    """Gathers groups until all records are read."""

    def __init__(
        self,
        tokenizer: Any,
        *,
        kind: Kind,
        mode: Mode,
        add_eos: str,
        max_length: int | None,
        truncation: Truncation,
        max_prompt_length: int | None,
        raise_bad: bool,
        raise_boundary: bool,
    ) -> None:
        self.text = None if tokenizer is None else TextTokeniser(tokenizer)
        self.kind: Kind = kind
        self.mode: Mode = mode
        self.add_eos = add_eos
        self.truncation: Truncation = truncation
        self.max_length, self.max_prompt = max_length, max_prompt_length
        self.raise_bad, self.raise_boundary = raise_bad, raise_boundary
        self.keys: list[str] = []
        self.status: list[str] = []
        self.prompts: dict[bytes, int] = {}
        self.group: list[int] = []
        self.slot: list[int] = []
        self.prompt_id: list[int] = []
        self.prompt_start: list[int] = []
        self.response_ids: list[Ids] = []
        self.loss_mask: list[NDArray[np.bool_] | None] = []
        self.n_merges = self.n_truncated = self.n_lost_eos = self.n_double_eos = 0
        self.merge_example = ""
        self.details: dict[str, list[str]] = {}

    def add(self, cases: Sequence[Case]) -> None:
        """Tokenise a chunk of cases and append their groups."""
        live = [case for case in cases if case.form != "ids" and not case.status]
        found = iter(self._tokenised(live))
        for case in cases:
            if case.form != "ids":
                prompt, responses = next(found) if not case.status else (_EMPTY, [_EMPTY] * len(case.responses))
                case.prompt, case.responses = prompt, responses  # the texts are not needed any more
            self._append(case)

    # --- text to ids -------------------------------------------------------------------------------------------

    def _tokenised(self, cases: Sequence[Case]) -> Iterator[tuple[Ids, list[Ids]]]:
        if not cases:
            return
        if self.text is None:
            raise TypeError(
                f"`tokenizer` must be given, for {cases[0].place} holds text; only records of token ids need none"
            )
        rendered = [self._texts(case, self.text) for case in cases]
        special = cases[0].form == "strings"
        prompts = [prompt for prompt, _ in rendered]
        answers = [answer for _, several in rendered for answer in several]
        places = [case.place for case in cases]
        of_answers = [case.place for case, (_, several) in zip(cases, rendered, strict=True) for _ in several]
        if self.mode == "separate":
            prompt_ids = self.text.ids(prompts, places, special=special)
            answer_ids = self.text.ids(answers, of_answers, special=False)
        else:
            both = self.text.ids(prompts + answers, places + of_answers, special=special)
            prompt_ids, answer_ids = both[: len(prompts)], both[len(prompts) :]
        rest = iter(answer_ids)
        for case, ids, (_, several) in zip(cases, prompt_ids, rendered, strict=True):
            yield self._parted(self.text, case, ids, list(itertools.islice(rest, len(several))))

    def _texts(self, case: Case, text: TextTokeniser) -> tuple[str, list[str]]:
        """Return the text of the prompt, and for each response what is tokenised for it."""
        alone = self.mode == "separate"
        if case.form == "strings":
            end = text.eos_text if self.add_eos == "auto" else ""
            ended = [r if not end or r.endswith(end) else r + end for r in case.responses]
            return case.prompt, ended if alone else [case.prompt + response for response in ended]
        prompt = text.render(case.prompt, case.options, case.place, generation=True)
        full = [
            text.render([*case.prompt, *response], case.options, case.place, generation=False)
            for response in case.responses
        ]
        if alone and not all(whole.startswith(prompt) for whole in full):
            raise ValueError(
                f"{case.place}: the chat template renders the prompt differently when an answer follows, so the answer "
                'has no text of its own; use mode="joint"'
            )
        return prompt, [whole[len(prompt) :] for whole in full] if alone else full

    def _parted(
        self, text: TextTokeniser, case: Case, prompt: list[int], answers: list[list[int]]
    ) -> tuple[Ids, list[Ids]]:
        """Cut prompt and responses apart as the mode says."""
        cut = len(prompt)
        if self.mode != "separate":
            shared = shared_length(prompt, answers)
            if shared < cut:
                self._merged(text, case, prompt, answers, shared)
            if self.mode == "joint":
                cut = shared
            answers = [answer[cut:] for answer in answers]
        eos = text.eos
        for answer in answers:
            if eos is not None and answer[-2:] == [eos, eos]:
                self.n_double_eos += 1
                while answer[-2:] == [eos, eos]:
                    answer.pop()
        return np.array(prompt[:cut], dtype=np.int32), [np.array(answer, dtype=np.int32) for answer in answers]

    def _merged(
        self, text: TextTokeniser, case: Case, prompt: list[int], answers: list[list[int]], shared: int
    ) -> None:
        self.n_merges += 1
        if self.merge_example and not self.raise_boundary:
            return
        other = next(answer for answer in answers if answer[shared : shared + 1] != prompt[shared : shared + 1])
        example = (
            f"the prompt alone ends in {text.shown(prompt[shared:])} from token {shared} on, where prompt and "
            f"response have {text.shown(other[shared : shared + len(prompt) - shared + 1])}"
        )
        if self.raise_boundary:
            raise ValueError(
                f"{case.place} (key {case.key!r}): the prompt must be a start of prompt and response; {example}. "
                'End it on a token boundary, or use on_boundary="shorten"'
            )
        self.merge_example = f"key {case.key!r}: {example}"

    # --- groups ------------------------------------------------------------------------------------------------

    def _append(self, case: Case) -> None:
        prompt: Ids = case.prompt
        n_prompt = len(prompt)
        if self.max_prompt is not None:
            prompt = prompt[max(0, n_prompt - self.max_prompt) :]
        status, detail = case.status, case.detail
        if not status:
            status, detail = self._emptied(prompt, case.responses)
        cut = len(prompt) < n_prompt
        lost = False
        rows: list[tuple[int, Ids, NDArray[np.bool_] | None]] = []
        for slot, (given, counted) in enumerate(zip(case.responses, case.masks, strict=True)):
            window = cut_window(len(prompt), len(given), self.max_length, self.truncation)
            response = given[window.first : window.last]
            mask = None if counted is None else counted[window.first : window.last]
            cut |= window.start > 0 or window.stop < len(prompt) or len(response) < len(given)
            lost |= self.text is not None and self.text.eos is not None and self.text.eos in given[window.last :]
            gone = window.start >= window.stop or not len(response)
            if gone and not status:
                status, detail = "too_long", f"response {slot}"
            rows.append((window.start, response, None if mask is None or mask.all() else mask))
        if not status and self.kind == "pairs" and np.array_equal(rows[0][1], rows[1][1]):
            status = "identical"
        self.n_truncated += cut
        self.n_lost_eos += lost
        self._store(case, prompt, rows, status or "ok", detail)

    def _emptied(self, prompt: Ids, responses: Sequence[Ids]) -> tuple[str, str]:
        """Return a status where text gave no tokens, or a merged boundary left none to the prompt."""
        if not len(prompt):
            return "empty_prompt", "no token of the prompt stays outside of the responses"
        for slot, response in enumerate(responses):
            if not len(response):
                if self.kind == "pairs":
                    return ("empty_chosen", "empty_rejected")[slot], ""
                return "empty_response", f"response {slot} of {len(responses)}"
        return "", ""

    def _store(self, case: Case, prompt: Ids, rows: Sequence[tuple[int, Ids, Any]], status: str, detail: str) -> None:
        if status != "ok":
            if self.raise_bad:
                raise ValueError(
                    f"{case.place} (key {case.key!r}) cannot be used: {status}{f', {detail}' if detail else ''}; drop "
                    'it, or use on_bad="skip"'
                )
            named = self.details.setdefault(status, [])
            if len(named) < _EXAMPLES:
                named.append(f"{case.key!r}{f' ({detail})' if detail else ''}")
        index = self.prompts.setdefault(prompt.tobytes(), len(self.prompts))
        for slot, (start, response, mask) in enumerate(rows):
            self.group.append(len(self.keys))
            self.slot.append(slot)
            self.prompt_id.append(index)
            self.prompt_start.append(start)
            self.response_ids.append(response)
            self.loss_mask.append(mask)
        self.keys.append(case.key)
        self.status.append(status)

    def finish(self, reader: CaseReader, records: str) -> Encoded:
        """Return the encoded data."""
        if self.mode == "offset" and self.n_merges:
            warnings.warn(
                f'mode="offset" cut {self.n_merges} of {len(self.keys)} groups where the prompt is no start of prompt '
                f"and response, so that their responses begin at a wrong token; {self.merge_example}",
                RankdiagWarning,
                stacklevel=4,  # the caller of the public function
            )
        identity = {"length": None, "hash": None, "eos": None} if self.text is None else self.text.identity()
        options = {
            "mode": self.mode,
            "add_eos": self.add_eos,
            "max_length": self.max_length,
            "truncation": self.truncation,
            "max_prompt_length": self.max_prompt,
        }
        kind = EncodedPreferences if self.kind == "pairs" else Encoded
        return kind(
            kind=self.kind,
            keys=tuple(self.keys),
            status=tuple(self.status),
            prompts=tuple(np.frombuffer(prompt, dtype=np.int32) for prompt in self.prompts),
            group=np.array(self.group, dtype=np.int64),
            slot=np.array(self.slot, dtype=np.int64),
            prompt_id=np.array(self.prompt_id, dtype=np.int64),
            prompt_start=np.array(self.prompt_start, dtype=np.int64),
            response_ids=tuple(self.response_ids),
            loss_mask=tuple(self.loss_mask),
            n_boundary_merges=self.n_merges,
            n_truncated=self.n_truncated,
            n_lost_eos=self.n_lost_eos,
            tokenizer={**identity, "options": options},
            notes=self._notes(reader),
            records=records,
        )

    def _notes(self, reader: CaseReader) -> tuple[str, ...]:
        total = len(self.keys)
        notes = []
        if self.n_merges:
            share = f"{self.n_merges} of {total} groups ({self.n_merges / total:.1%})"
            notes.append(f"Tokens merge across the boundary of prompt and response in {share}: {self.merge_example}.")
        for status, named in self.details.items():
            count = self.status.count(status)
            more = f" and {count - len(named)} more" if count > len(named) else ""
            notes.append(f"Unusable, {status}: {', '.join(named)}{more}.")
        if self.n_double_eos:
            notes.append(f"{self.n_double_eos} responses ended in several EOS tokens; one was kept.")
        if reader.n_prompts_ignored:
            notes.append(
                f"{reader.n_prompts_ignored} records have a `prompt` that is no conversation beside responses that "
                "are; their prompt is the common start of the two conversations."
            )
        return tuple(notes)
