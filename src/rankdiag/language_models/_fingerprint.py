"""What tells one model from another: configuration, and a checksum that samples every parameter.

A full checksum would read every weight, which for a large model takes as long as scoring many pairs. A few hundred
values of each large parameter, evenly spread, and all of the small ones, tell apart models that training has touched: a
step moves nearly all of them.
"""

from __future__ import annotations

import hashlib
import json
from typing import Any, cast

import numpy as np
import torch

from rankdiag.language_models._model import adapt

__all__ = ["model_fingerprint"]

_SAMPLES = 256  # values of each large tensor
_WHOLE = 65536  # a tensor of so many values, of an adapter most often, is read whole
_LIFE = {"_name_or_path", "_commit_hash", "_attn_implementation", "transformers_version", "dtype", "torch_dtype"}


def model_fingerprint(model: Any) -> dict[str, Any]:
    """Identify a language model: name, revision, class, dtype, attention, and checksums of configuration and weights.

    Parameters
    ----------
    model : torch.nn.Module or callable
        Anything that `run` takes.

    Returns
    -------
    dict
        JSON-safe. ``name`` and ``revision`` as the configuration has them (None where it does not say), ``class``,
        ``dtype``, ``attention``, ``parameters`` (their number), ``config`` and ``weights`` (sha256). Of a plain
        callable only ``class`` and ``name`` are known.

    Raises
    ------
    TypeError
        If it is no model.
    ValueError
        If it cannot be one; see `run`.

    Notes
    -----
    The checksum reads every named parameter and buffer: whole up to 65536 values, so that one edited weight of a usual
    adapter is seen; 256 values evenly spread above, the first and the last among them, so that an edit of a single
    weight of a large matrix may not be. The same in every process. Cost: one small copy for each tensor.

    Examples
    --------
    >>> from rankdiag.language_models import model_fingerprint
    >>> from rankdiag.testing import tiny_language_model
    >>> found = model_fingerprint(tiny_language_model())
    >>> found["dtype"], found["parameters"], found == model_fingerprint(tiny_language_model(rng=1))
    ('float32', 896, False)
    """
    subject = adapt(model, "model")
    if subject.module is None:
        return {"class": subject.name, "name": None}
    config = getattr(subject.causal, "config", None)
    digest = hashlib.sha256()
    count = 0
    for name, tensor in _tensors(subject.module):
        count += tensor.numel()
        digest.update(f"{name} {tuple(tensor.shape)} {tensor.dtype}\n".encode())
        digest.update(_sample(tensor))
    given = getattr(config, "_name_or_path", None)
    return {
        "class": subject.name,
        "name": str(given) if given else None,
        "revision": getattr(config, "_commit_hash", None),
        "dtype": str(subject.dtype).removeprefix("torch."),
        "attention": subject.attention,
        "parameters": count,
        "config": _config_hash(config),
        "weights": digest.hexdigest(),
    }


def _tensors(module: torch.nn.Module) -> list[tuple[str, torch.Tensor]]:
    """Return parameters and buffers by name, free of the prefixes that wrappers add."""
    found = [*module.named_parameters(), *module.named_buffers()]
    named = [(name.replace("_orig_mod.", "").removeprefix("module."), tensor) for name, tensor in found]
    return sorted(named, key=lambda entry: entry[0])


def _sample(tensor: torch.Tensor) -> bytes:
    local: Any = tensor.detach()
    read: Any = getattr(local, "to_local", None)  # the part of a sharded parameter that is here
    flat = cast(torch.Tensor, read() if callable(read) else local).reshape(-1)
    if flat.device.type == "meta" or not flat.numel():
        return b"-"
    if flat.numel() > _WHOLE:
        places = np.linspace(0, flat.numel() - 1, _SAMPLES).round().astype(np.int64)
        flat = flat[torch.from_numpy(places).to(flat.device)]
    return flat.contiguous().cpu().view(torch.uint8).numpy().tobytes()


def _config_hash(config: Any) -> str | None:
    """Return the sha256 of a configuration without what says where it came from or how it is run."""
    read: Any = getattr(config, "to_dict", None)
    if not callable(read):
        return None
    kept = {key: value for key, value in dict(cast(Any, read)()).items() if key not in _LIFE}
    text = json.dumps(kept, sort_keys=True, default=str, ensure_ascii=False)
    return hashlib.sha256(text.encode("utf-8", "backslashreplace")).hexdigest()
