"""Loading a causal language model and its tokenizer from a folder or a hub, with no surprise on the way."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any, NamedTuple

from rankdiag._optional import optional
from rankdiag._validate import boolean, describe, string

__all__ = ["LoadedModel", "check_language_model", "load_language_model", "load_sequence_classifier"]

_FEATURE = "loading a language model"
_PICKLES = ("pytorch_model.bin", "pytorch_model.bin.index.json")


class LoadedModel(NamedTuple):
    """A model and its tokenizer.

    Attributes
    ----------
    model : transformers.PreTrainedModel or peft.PeftModel
        In evaluation mode.
    tokenizer : transformers.PreTrainedTokenizerBase or None
        Its tokenizer; None where it was not asked for.
    """

    model: Any
    tokenizer: Any


def load_language_model(
    path: str | os.PathLike[str],
    *,
    revision: str | None = None,
    dtype: str = "auto",
    device: str | None = None,
    adapter: str | os.PathLike[str] | None = None,
    trust_remote_code: bool = False,
    attn_implementation: str | None = None,
    tokenizer: bool = True,
) -> LoadedModel:
    """Load a causal language model and its tokenizer through transformers.

    Parameters
    ----------
    path : path or str
        Folder as ``save_pretrained`` writes it, or the id of a repository.
    revision : str, optional
        Branch, tag or commit of a repository.
    dtype : str
        ``"auto"`` keeps that of the checkpoint; otherwise ``"float32"``, ``"bfloat16"``, ``"float16"`` or
        ``"float64"``.
    device : str, optional
        Where the model goes; None leaves it on the CPU.
    adapter : path or str, optional
        LoRA or another adapter of peft to put on it.
    trust_remote_code : bool
        Whether code that comes with the checkpoint may run.
    attn_implementation : str, optional
        ``"sdpa"`` or ``"eager"``, say; None leaves it to transformers.
    tokenizer : bool
        Whether to load the tokenizer too; records of token ids need none.

    Returns
    -------
    LoadedModel
        Model, in evaluation mode, and tokenizer.

    Raises
    ------
    MissingExtraError
        If transformers, or peft for an adapter, is missing.
    FileNotFoundError
        If there is no such folder, or it has no configuration, weights or tokenizer.
    ValueError
        If the weights are pickled, damaged or incomplete, the model is an encoder-decoder, or an option is unknown.

    Notes
    -----
    Only safetensors are read. Nothing is downloaded where ``HF_HUB_OFFLINE`` or ``TRANSFORMERS_OFFLINE`` is set.

    Examples
    --------
    >>> from rankdiag.language_models import load_language_model
    >>> try:
    ...     load_language_model("./no-such-folder")
    ... except FileNotFoundError as error:
    ...     print(str(error)[:31])
    `path` must be a folder that ex
    """
    return _load(
        path,
        ("AutoModelForCausalLM", "a causal language model with weights in safetensors"),
        revision=revision,
        dtype=dtype,
        device=device,
        adapter=adapter,
        trust_remote_code=trust_remote_code,
        attn_implementation=attn_implementation,
        tokenizer=tokenizer,
    )


def load_sequence_classifier(
    path: str | os.PathLike[str],
    *,
    revision: str | None = None,
    dtype: str = "auto",
    device: str | None = None,
    adapter: str | os.PathLike[str] | None = None,
    trust_remote_code: bool = False,
    attn_implementation: str | None = None,
    tokenizer: bool = True,
) -> LoadedModel:
    """Load a decoder with a linear head, an explicit reward model say; arguments and errors of `load_language_model`.

    A checkpoint without the weights of its head is refused, for they would be drawn at random.
    """
    return _load(
        path,
        ("AutoModelForSequenceClassification", "a sequence classifier with weights in safetensors"),
        revision=revision,
        dtype=dtype,
        device=device,
        adapter=adapter,
        trust_remote_code=trust_remote_code,
        attn_implementation=attn_implementation,
        tokenizer=tokenizer,
    )


def _load(
    path: str | os.PathLike[str],
    wanted: tuple[str, str],
    *,
    revision: str | None,
    dtype: str,
    device: str | None,
    adapter: str | os.PathLike[str] | None,
    trust_remote_code: bool,
    attn_implementation: str | None,
    tokenizer: bool,
) -> LoadedModel:
    """Load a model by the class of transformers and the words for it in `wanted`."""
    transformers = optional("transformers", extra="hf", feature=_FEATURE)
    torch = optional("torch", extra="hf", feature=_FEATURE)
    place = _place(path, "path")
    kind = _dtype(dtype, torch)
    common = {"revision": revision, "trust_remote_code": boolean(trust_remote_code, "trust_remote_code")}
    config = _try(place, "a configuration", lambda: transformers.AutoConfig.from_pretrained(place, **common))
    if getattr(config, "is_encoder_decoder", False):
        raise ValueError(
            f"`path` must be a decoder-only language model; {config.model_type!r} in {place!r} has an encoder"
        )
    _refuse_pickles(place)
    read = boolean(tokenizer, "tokenizer")
    words = None
    if read:
        words = _try(place, "a tokenizer", lambda: transformers.AutoTokenizer.from_pretrained(place, **common))
    options: dict[str, Any] = {}
    if attn_implementation is not None:
        options["attn_implementation"] = string(attn_implementation, "attn_implementation")
    with torch.random.fork_rng(devices=[]):  # weights that are missing are drawn, before they are refused below
        model, found = _try(
            place,
            wanted[1],
            lambda: getattr(transformers, wanted[0]).from_pretrained(
                place, dtype=kind, use_safetensors=True, output_loading_info=True, **common, **options
            ),
        )
    _refuse_gaps(place, found)
    if adapter is not None:
        peft = optional("peft", extra="hf", feature="loading an adapter")
        folder = _place(adapter, "adapter")
        with torch.random.fork_rng(devices=[]):  # peft draws the weights that it then reads
            model = _try(folder, "an adapter for this model", lambda: peft.PeftModel.from_pretrained(model, folder))
    if device is not None:
        try:
            model = model.to(string(device, "device"))
        except (RuntimeError, AssertionError) as error:
            raise ValueError(f"`device` must be one that this machine has; got {describe(device)} ({error})") from error
    return LoadedModel(model.eval(), words)


def check_language_model(path: Any, *, revision: str | None = None, trust_remote_code: bool = False) -> None:
    """Refuse what `load_language_model` would refuse for its path and configuration, without reading weights.

    Raises
    ------
    MissingExtraError, FileNotFoundError, ValueError
        As there.
    """
    transformers = optional("transformers", extra="hf", feature=_FEATURE)
    place = _place(path, "path")
    common = {"revision": revision, "trust_remote_code": boolean(trust_remote_code, "trust_remote_code")}
    _try(place, "a configuration", lambda: transformers.AutoConfig.from_pretrained(place, **common))
    _refuse_pickles(place)


def _place(path: Any, name: str) -> str:
    try:
        text = os.fspath(path)
    except TypeError:
        raise TypeError(f"`{name}` must be a folder or the id of a repository; got {describe(path)}") from None
    if not isinstance(text, str) or not text or "\0" in text:
        raise ValueError(f"`{name}` must be a folder or the id of a repository; got {describe(path)}")
    looks_local = text.startswith((".", "/", "~")) or text.count("/") > 1 or os.sep != "/"
    if looks_local and not Path(text).is_dir():
        raise FileNotFoundError(f"`{name}` must be a folder that exists, or the id of a repository; got {text!r}")
    return text


def _dtype(value: Any, torch: Any) -> Any:
    known = ("auto", "float32", "bfloat16", "float16", "float64")
    if string(value, "dtype") not in known:
        raise ValueError(f"`dtype` must be one of {', '.join(known)}; got {describe(value)}")
    return value if value == "auto" else getattr(torch, value)


def _refuse_pickles(place: str) -> None:
    folder = Path(place)
    if folder.is_dir() and not any(folder.glob("*.safetensors")) and any((folder / name).exists() for name in _PICKLES):
        raise ValueError(
            f"`path` {place!r} has its weights in a pickle, which can run any code and is not read. Convert it where "
            "you trust it: load it with transformers and call save_pretrained"
        )


def _refuse_gaps(place: str, found: Any) -> None:
    """Refuse a checkpoint without all weights: transformers would draw those that are missing at random."""
    for kind, said in (("missing_keys", "lacks"), ("mismatched_keys", "has another shape for")):
        names = sorted(
            str(entry[0]) if isinstance(entry, (tuple, list)) else str(entry) for entry in found.get(kind, ())
        )
        if names:
            more = f" and {len(names) - 3} more" if len(names) > 3 else ""
            raise ValueError(
                f"{place!r} {said} {', '.join(names[:3])}{more}, which would be drawn at random; save the whole model "
                "with save_pretrained"
            )


def _try(place: str, what: str, load: Any) -> Any:
    """Run a loader of transformers and turn what it raises into an error that says which folder lacks what."""
    try:
        return load()
    except FileNotFoundError as error:
        raise FileNotFoundError(f"{place!r} must hold {what}; {error}") from error
    except OSError as error:
        raise FileNotFoundError(f"{place!r} must hold {what}, here or on the hub; {_first_line(error)}") from error
    except (ValueError, KeyError, TypeError, RuntimeError, ImportError) as error:
        raise ValueError(f"{place!r} must hold {what}; {type(error).__name__}: {_first_line(error)}") from error
    except Exception as error:  # damaged files raise classes of their own, of the safetensors library say
        raise ValueError(f"{place!r} must hold {what}; {type(error).__name__}: {_first_line(error)}") from error


def _first_line(error: BaseException) -> str:
    lines = str(error).strip().splitlines()
    return lines[0] if lines else type(error).__name__
