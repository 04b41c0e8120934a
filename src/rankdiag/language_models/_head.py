"""The output projection, and what a model does to its logits before the softmax.

``logits = cap * tanh(scale * (W h + b) / cap)`` covers the families of transformers that change them: a scale
(Cohere, Granite), a soft cap (Gemma-2), a bias. Whatever differs from that is found out by comparing with the
model's own logits once; such a model is asked for its logits through its own forward.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, cast

import torch

__all__ = ["Head", "find_head"]


@dataclass(slots=True, kw_only=True)
class Head:
    """Output projection of a causal language model.

    Attributes
    ----------
    causal, backbone : torch.nn.Module
        The model and its network without head.
    layer : torch.nn.Module
        Its output embedding.
    scale : float
        Factor on the logits.
    cap : float or None
        Soft cap.
    own : bool
        Whether logits have to come from the model's own forward, since the formula does not give them.
    """

    causal: Any
    backbone: Any
    layer: Any
    scale: float
    cap: float | None
    own: bool = False
    dense: torch.Tensor | None = None

    @property
    def weight(self) -> torch.Tensor:
        """The matrix W of shape (V, d), adapters included.

        Raises
        ------
        ValueError
            If the layer is quantised or otherwise has no dense matrix.
        """
        if self.dense is not None:
            return self.dense
        if type(self.layer) is torch.nn.Linear or type(self.layer) is torch.nn.Embedding:
            weight = self.layer.weight
            if weight.is_floating_point() and weight.device.type != "meta":
                return weight.detach()
        self.dense = _dense(self.layer)
        return self.dense

    @property
    def bias(self) -> torch.Tensor | None:
        """The bias, or None."""
        bias = getattr(self.layer, "bias", None)
        return bias.detach() if isinstance(bias, torch.Tensor) else None

    @property
    def size(self) -> int:
        """Vocabulary entries that have a logit."""
        return int(self.weight.shape[0])

    def precision(self, states: torch.Tensor) -> torch.dtype:
        """Dtype of the logits: float64 for a float64 model, else float32."""
        return torch.float64 if states.dtype == torch.float64 else torch.float32

    def blocks(self, states: torch.Tensor, size: int) -> Iterator[tuple[int, int, torch.Tensor]]:
        """Give the logits of states, a block of the vocabulary at a time.

        Parameters
        ----------
        states : torch.Tensor, shape (U, d)
            Hidden states.
        size : int
            Vocabulary entries of a block.

        Yields
        ------
        first, last : int
            Range of the block.
        logits : torch.Tensor, shape (U, last - first)
            In `precision`; the caller may write into it.
        """
        if self.own:
            # The head's own forward gives all of V at once, so states go through it a few at a time.
            yield from self._own_blocks(states, size)
            return
        high = self.precision(states)
        native = states.device.type == "cuda" and states.dtype != torch.float64
        weight, bias = self.weight, self.bias
        left = states if native else states.to(high)
        for first in range(0, weight.shape[0], size):
            last = min(first + size, weight.shape[0])
            part = weight[first:last]
            part = part.to(states.dtype) if native else part.to(high)
            logits = torch.mm(left, part.T).to(high)
            if bias is not None:
                logits += bias[first:last].to(high)
            yield first, last, self.transform(logits)

    def at(self, states: torch.Tensor, tokens: torch.Tensor) -> torch.Tensor:
        """Give the logits of some tokens for all states.

        Parameters
        ----------
        states : torch.Tensor, shape (U, d)
            Hidden states.
        tokens : torch.Tensor of int64, shape (E,)
            Token ids.

        Returns
        -------
        torch.Tensor
            Shape (U, E), in `precision`.
        """
        high = self.precision(states)
        logits = torch.mm(states.to(high), self.weight[tokens].to(high).T)
        if self.bias is not None:
            logits += self.bias[tokens].to(high)
        return self.transform(logits)

    def transform(self, logits: torch.Tensor) -> torch.Tensor:
        """Apply scale and cap in place."""
        if self.scale != 1.0:
            logits *= self.scale
        if self.cap is not None:
            logits.div_(self.cap).tanh_().mul_(self.cap)
        return logits

    def slope(self, logits: torch.Tensor) -> torch.Tensor | None:
        """Give the derivative of the logits by ``W h``, as a factor for each; None if it is 1 everywhere."""
        if self.cap is not None:
            return (1.0 - (logits / self.cap).square_()).mul_(self.scale)
        return None if self.scale == 1.0 else torch.full_like(logits, self.scale)

    def _own_blocks(self, states: torch.Tensor, size: int) -> Iterator[tuple[int, int, torch.Tensor]]:
        logits = self.own_logits(states).to(self.precision(states))
        for first in range(0, logits.shape[1], size):
            last = min(first + size, logits.shape[1])
            yield first, last, logits[:, first:last].clone()

    def own_logits(self, states: torch.Tensor) -> torch.Tensor:
        """Ask the model itself: it is run on one token, and what its network returns is replaced by `states`.

        Raises
        ------
        ValueError
            If the model does not use what its network returns.
        """

        def replace_output(module: Any, inputs: Any, output: Any) -> Any:
            if isinstance(output, tuple):
                return (states[None], *output[1:])
            output.last_hidden_state = states[None]
            return output

        def replace_input(module: Any, inputs: Any) -> Any:
            return (states[None],)

        ids = torch.zeros((1, 1), dtype=torch.long, device=states.device)
        # Some models call a part of their network instead of the whole; then the input of the head is replaced.
        for module, hook in ((self.backbone, replace_output), (self.layer, replace_input)):
            before = module.register_forward_hook if hook is replace_output else module.register_forward_pre_hook
            handle = before(hook)
            try:
                logits: torch.Tensor = self.causal(input_ids=ids, use_cache=False).logits
            finally:
                handle.remove()
            if logits.shape[1] == len(states) and len(states) != 1:
                return logits[0]
            if len(states) == 1 and hook is replace_input:
                return logits[0]
        raise ValueError(f"`models`: {type(self.causal).__name__} does not turn the states of its network into logits")

    def verify(self, states: torch.Tensor, expected: torch.Tensor, tolerance: float) -> None:
        """Compare with the model's own logits once, and take those from the model from now on where they differ.

        Parameters
        ----------
        states : torch.Tensor, shape (U, d)
            Hidden states of one short row.
        expected : torch.Tensor, shape (U, V)
            The model's own logits of that row.
        tolerance : float
            Largest deviation, relative to the largest logit (and to 1 below it).

        Raises
        ------
        ValueError
            If neither way gives the model's logits.
        """
        self.own = not self._agrees(states, expected, tolerance)
        if self.own and not self._agrees(states, expected, tolerance):
            raise ValueError(
                f"`models`: the logits of {type(self.causal).__name__} cannot be had from its final hidden states; "
                "log-probabilities and head scores need that"
            )

    def _agrees(self, states: torch.Tensor, expected: torch.Tensor, tolerance: float) -> bool:
        with torch.autocast(states.device.type, enabled=False):
            found = torch.cat([block for _, _, block in self.blocks(states, 1 << 14)], dim=1).to(torch.float64)
        if found.shape != expected.shape:
            return False
        wide = expected.to(torch.float64)
        possible = torch.isfinite(wide)  # a model may forbid tokens
        if not bool((torch.isfinite(found) == possible).all()) or not bool(possible.any()):
            return False
        deviation = float((found - wide)[possible].abs().max())
        return deviation <= tolerance * max(1.0, float(wide[possible].abs().max()))


def find_head(causal: Any, backbone: Any) -> Head | None:
    """Find the output projection of a model and what its configuration says about logits; None without one."""
    read = getattr(causal, "get_output_embeddings", None)
    layer = read() if callable(read) else None
    if layer is None:
        return None
    config = causal.config
    text = config.get_text_config() if callable(getattr(config, "get_text_config", None)) else config
    scale = 1.0
    factor, divisor = getattr(text, "logit_scale", None), getattr(text, "logits_scaling", None)
    if isinstance(factor, (int, float)):
        scale *= float(factor)
    if isinstance(divisor, (int, float)) and divisor:
        scale /= float(divisor)
    cap = getattr(text, "final_logit_softcapping", None)
    return Head(
        causal=causal,
        backbone=backbone,
        layer=layer,
        scale=scale,
        cap=float(cap) if isinstance(cap, (int, float)) and cap else None,
    )


def _dense(layer: Any) -> torch.Tensor:
    """Read the matrix of any linear layer, adapters included, off its action on the unit vectors."""
    weight = getattr(layer, "weight", None)
    while not isinstance(weight, torch.Tensor) and hasattr(layer, "base_layer"):
        weight = layer.base_layer.weight
    if not isinstance(weight, torch.Tensor) or not weight.is_floating_point() or weight.device.type == "meta":
        raise ValueError(
            "`models` must have a dense output projection for log-probabilities and head scores; "
            f"{type(layer).__name__} holds {getattr(weight, 'dtype', 'no matrix')}. Load the model without quantising "
            "its head"
        )
    width = int(weight.shape[1])
    with torch.no_grad():
        columns = layer(torch.eye(width, dtype=weight.dtype, device=weight.device))
        bias = getattr(layer, "bias", None)
        if isinstance(bias, torch.Tensor):
            columns = columns - bias
        return cast(torch.Tensor, columns.T.contiguous())
