"""From text to token ids: where the prompt ends and the response begins, what EOS does there, and truncation."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from typing import Any, Literal, NamedTuple

from rankdiag._validate import choice, describe, integer

__all__ = ["JointSplit", "TextTokeniser", "Window", "cut_window", "shared_length", "split_joint", "truncate_row"]

Truncation = Literal["keep_start", "keep_end"]
TRUNCATIONS: tuple[Truncation, ...] = ("keep_start", "keep_end")
_RESERVED = (
    "conversation",
    "tokenize",
    "add_generation_prompt",
    "continue_final_message",
    "padding",
    "truncation",
    "max_length",
    "return_tensors",
    "return_dict",
    "return_assistant_tokens_mask",
    "tokenizer_kwargs",
)


class JointSplit(NamedTuple):
    """Prompt and two responses, cut out of two joint sequences at one place.

    Attributes
    ----------
    prompt_ids : list of int
        What comes before the cut; the same in both sequences.
    chosen_ids, rejected_ids : list of int
        What comes after it.
    prompt_is_prefix : bool
        Whether the whole prompt, tokenised alone, comes before the cut. False if tokens merged across the boundary.

    Examples
    --------
    >>> from rankdiag.language_models import split_joint
    >>> split = split_joint([1, 5], [1, 5, 7], [1, 5, 8, 9])
    >>> split.rejected_ids, split.prompt_is_prefix
    ([8, 9], True)
    """

    prompt_ids: list[int]
    chosen_ids: list[int]
    rejected_ids: list[int]
    prompt_is_prefix: bool


def split_joint(
    prompt_ids: Sequence[int], prompt_chosen_ids: Sequence[int], prompt_rejected_ids: Sequence[int]
) -> JointSplit:
    """Cut two joint tokenisations where the shorter of their agreements with the prompt ends.

    Tokens may merge across the boundary of prompt and response. Then the prompt, tokenised alone, is no prefix of the
    joint sequence. The cut comes before the first token that differs, in either sequence; so both responses keep one
    prompt, and what was left of it leads both of them.

    Parameters
    ----------
    prompt_ids : sequence of int
        Prompt, tokenised alone.
    prompt_chosen_ids, prompt_rejected_ids : sequence of int
        Prompt and response, tokenised as one text.

    Returns
    -------
    JointSplit
        ``prompt_ids``, ``chosen_ids``, ``rejected_ids``, ``prompt_is_prefix``.

    Raises
    ------
    TypeError
        If an argument is no sequence of integers.

    Notes
    -----
    The rule of ``mode="joint"``, the same as in today's DPO trainer of TRL. O(tokens).

    Examples
    --------
    >>> from rankdiag.language_models import split_joint
    >>> split_joint([1, 5, 6], [1, 5, 9, 7], [1, 5, 6, 8])
    JointSplit(prompt_ids=[1, 5], chosen_ids=[9, 7], rejected_ids=[6, 8], prompt_is_prefix=False)
    """
    prompt = _integers(prompt_ids, "prompt_ids")
    chosen = _integers(prompt_chosen_ids, "prompt_chosen_ids")
    rejected = _integers(prompt_rejected_ids, "prompt_rejected_ids")
    cut = shared_length(prompt, [chosen, rejected])
    return JointSplit(prompt[:cut], chosen[cut:], rejected[cut:], cut == len(prompt))


def shared_length(prompt: list[int], joints: Sequence[list[int]]) -> int:
    """Return how many tokens the prompt has in common with the start of every joint sequence."""
    cut = len(prompt)
    for joint in joints:
        if joint[:cut] != prompt[:cut]:
            cut = next((i for i, (a, b) in enumerate(zip(prompt[:cut], joint, strict=False)) if a != b), len(joint))
    return cut


class Window(NamedTuple):
    """What truncation leaves of one row: ``prompt[start:stop]`` and ``response[first:last]``."""

    start: int
    stop: int
    first: int
    last: int


def cut_window(n_prompt: int, n_response: int, max_length: int | None, truncation: Truncation) -> Window:
    """Say which tokens of a prompt and a response stay within `max_length` together."""
    total = n_prompt + n_response
    if max_length is None or total <= max_length:
        return Window(0, n_prompt, 0, n_response)
    if truncation == "keep_start":
        return Window(0, min(n_prompt, max_length), 0, max(0, max_length - n_prompt))
    dropped = total - max_length
    return Window(min(dropped, n_prompt), n_prompt, max(0, dropped - n_prompt), n_response)


def truncate_row(
    prompt_ids: Sequence[int],
    response_ids: Sequence[int],
    *,
    max_length: int | None,
    truncation: Truncation = "keep_start",
) -> tuple[list[int], list[int]]:
    """Cut one row, prompt and response together, to a length.

    Parameters
    ----------
    prompt_ids, response_ids : sequence of int
        Tokens of the row.
    max_length : int or None
        Tokens that may stay, at least 1; None keeps all.
    truncation : {"keep_start", "keep_end"}
        ``"keep_start"`` drops the tail of the response, its EOS with it; ``"keep_end"`` drops from the front of the
        prompt, and after it from the front of the response.

    Returns
    -------
    prompt_ids, response_ids : list of int
        What is left. A row with an empty part cannot be scored: nothing predicts the first response token, or there
        is none.

    Raises
    ------
    TypeError
        If an argument has the wrong type.
    ValueError
        If `max_length` is below 1, or `truncation` unknown.

    Examples
    --------
    >>> from rankdiag.language_models import truncate_row
    >>> truncate_row([1, 5, 6], [7, 8, 2], max_length=4)
    ([1, 5, 6], [7])
    >>> truncate_row([1, 5, 6], [7, 8, 2], max_length=4, truncation="keep_end")
    ([6], [7, 8, 2])
    """
    prompt, response = _integers(prompt_ids, "prompt_ids"), _integers(response_ids, "response_ids")
    limit = None if max_length is None else integer(max_length, "max_length", low=1)
    window = cut_window(len(prompt), len(response), limit, choice(truncation, "truncation", TRUNCATIONS))
    return prompt[window.start : window.stop], response[window.first : window.last]


def _integers(values: Any, name: str) -> list[int]:
    if isinstance(values, (str, bytes, Mapping)):
        raise TypeError(f"`{name}` must be a sequence of token ids; got {describe(values)}")
    try:
        entries = list(values)
    except Exception:  # whatever a foreign object raises when it is no sequence
        raise TypeError(f"`{name}` must be a sequence of token ids; got {describe(values)}") from None
    return [integer(entry, name, low=0) for entry in entries]


class TextTokeniser:
    """A tokenizer of transformers, with the few things that encoding has to know about it.

    Parameters
    ----------
    tokenizer : object
        Called with a list of texts; `apply_chat_template` renders conversations.
    """

    def __init__(self, tokenizer: Any) -> None:
        if not callable(tokenizer) or not hasattr(tokenizer, "eos_token_id"):
            raise TypeError(
                "`tokenizer` must be a tokenizer of transformers, as AutoTokenizer.from_pretrained returns; got "
                f"{describe(tokenizer)}. Wrap a bare tokenizers.Tokenizer with PreTrainedTokenizerFast"
            )
        self.tokenizer: Any = tokenizer
        self.eos: int | None = _one_id(self.tokenizer.eos_token_id)
        self.bos: int | None = _one_id(getattr(tokenizer, "bos_token_id", None))
        text = getattr(tokenizer, "eos_token", None)
        self.eos_text: str = "" if self.eos is None or text is None else str(text)
        self._own_eos: bool | None = None

    @property
    def appends_eos(self) -> bool:
        """Whether the tokenizer itself puts an EOS behind plain text."""
        if self._own_eos is None:
            plain, bare = self._call(["a"], special=True)[0], self._call(["a"], special=False)[0]
            self._own_eos = self.eos is not None and plain[-1:] == [self.eos] and bare[-1:] != [self.eos]
        return self._own_eos

    def ids(self, texts: Sequence[str], places: Sequence[str], *, special: bool) -> list[list[int]]:
        """Tokenise texts in one call.

        Parameters
        ----------
        texts : sequence of str
            The texts.
        places : sequence of str
            Where each comes from, for messages.
        special : bool
            Whether the tokenizer adds its special tokens; an EOS that it puts at the end is taken off again.

        Returns
        -------
        list of list of int
            Ids of each text.

        Raises
        ------
        ValueError
            If a text holds half of a surrogate pair, or a sequence starts with two BOS tokens.
        """
        for text, place in zip(texts, places, strict=True):
            check_text(text, place)
        if not texts:
            return []
        found = self._without_own_eos(texts) if special and self.appends_eos else self._call(texts, special=special)
        if self.bos is not None:
            twice = [self.bos, self.bos]
            for ids, place in zip(found, places, strict=True):
                if ids[:2] == twice:
                    raise ValueError(
                        f"{place}: the sequence starts with two BOS tokens (id {self.bos}); leave "
                        f"{self.tokenizer.bos_token!r} out of the text or the chat template"
                    )
        return found

    def _without_own_eos(self, texts: Sequence[str]) -> list[list[int]]:
        """Take off the EOS that the tokenizer adds, and keep those that are written in the text.

        Some tokenizers add none where the text ends in one, so those in the text are put back after the call.
        """
        bodies, written = [], []
        for text in texts:
            body = text
            while self.eos_text and body.endswith(self.eos_text):
                body = body[: -len(self.eos_text)]
            bodies.append(body)
            written.append((len(text) - len(body)) // max(1, len(self.eos_text)))
        found = self._call(bodies, special=True)
        eos = [self.eos] if self.eos is not None else []
        return [(ids[:-1] if ids[-1:] == eos else ids) + eos * count for ids, count in zip(found, written, strict=True)]

    def _call(self, texts: Sequence[str], *, special: bool) -> list[list[int]]:
        output = self.tokenizer(
            list(texts),
            add_special_tokens=special,
            padding=False,
            truncation=False,
            return_attention_mask=False,
            return_token_type_ids=False,
            verbose=False,
        )
        found: list[list[int]] = output["input_ids"]
        if len(found) != len(texts):
            raise ValueError(f"`tokenizer` must give one list of ids for each text; got {len(found)} for {len(texts)}")
        return found

    def render(self, messages: list[Any], options: Mapping[str, Any], place: str, *, generation: bool) -> str:
        """Render a conversation to text with the chat template of the tokenizer.

        Parameters
        ----------
        messages : list of mapping
            The conversation.
        options : mapping
            ``tools`` and other variables of the template.
        place : str
            Where it comes from, for messages.
        generation : bool
            Whether the marks that open an answer are added.

        Returns
        -------
        str
            The text, with all special tokens that it needs.

        Raises
        ------
        ValueError
            If there is no template, or it refuses the conversation.
        """
        if not getattr(self.tokenizer, "chat_template", None):
            raise ValueError(
                "`tokenizer` must have a chat template, for the records are conversations; set "
                "tokenizer.chat_template, or pass prompts and responses as strings"
            )
        try:
            text = self.tokenizer.apply_chat_template(
                messages, tokenize=False, add_generation_prompt=generation, **options
            )
        except Exception as error:  # a template may raise anything, and calls what the record holds
            raise ValueError(f"{place}: the chat template refused the conversation: {error}") from error
        if not isinstance(text, str):
            raise ValueError(f"{place}: the chat template must render to text; got {describe(text)}")
        return text

    def shown(self, ids: Sequence[int]) -> str:
        """Return ids as short quoted text, for messages."""
        text = repr(self.tokenizer.decode(list(ids[:20])))
        return text if len(text) <= 60 else text[:57] + "..."

    def identity(self) -> dict[str, Any]:
        """Return the length of the tokenizer, a hash of all that decides its ids, and the id of EOS."""
        return {"length": len(self.tokenizer), "hash": _hash(self.tokenizer), "eos": self.eos}


def check_text(text: str, place: str) -> None:
    """Refuse half of a surrogate pair, which has no UTF-8 and so no tokens."""
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise ValueError(
            f"{place}: the text holds half of a surrogate pair at character {error.start}, which is no valid Unicode; "
            "repair the source, or replace it with text.encode('utf-8', 'replace').decode()"
        ) from None


def check_options(options: Mapping[str, Any], place: str) -> None:
    """Refuse template options that would change what encoding itself decides."""
    for name in options:
        if not isinstance(name, str) or name in _RESERVED:
            raise ValueError(
                f"{place}: `chat_template_kwargs` must hold variables of the chat template, and none of "
                f"{', '.join(_RESERVED)}; got {describe(name)}"
            )


def _one_id(value: Any) -> int | None:
    return None if value is None else integer(value, "tokenizer.eos_token_id", low=0)


def _hash(tokenizer: Any) -> str:
    backend = getattr(tokenizer, "backend_tokenizer", None)
    write = getattr(backend, "to_str", None)
    if callable(write):
        core = str(write())
        # In front of this stand truncation and padding, which belong to the last call, not to the tokenizer.
        core = core[max(0, core.find('"added_tokens"')) :]
    else:
        core = json.dumps(sorted(tokenizer.get_vocab().items()))
    special = {key: str(value) for key, value in tokenizer.special_tokens_map.items()}
    rest = [type(tokenizer).__name__ if backend is None else "", special, getattr(tokenizer, "chat_template", None)]
    digest = hashlib.sha256(core.encode("utf-8", "backslashreplace"))
    digest.update(json.dumps(rest, sort_keys=True, default=str).encode("utf-8", "backslashreplace"))
    return digest.hexdigest()
