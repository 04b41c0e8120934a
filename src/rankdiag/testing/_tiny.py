"""A causal language model of a few hundred weights, made of torch alone: for examples and for your own tests."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

from rankdiag._validate import integer

__all__ = ["tiny_language_model"]


def tiny_language_model(*, vocab_size: int = 12, hidden_size: int = 8, rng: int = 0) -> Any:
    """Make a small causal language model that every function of this library takes.

    One layer of attention with learned positions, a normalisation and an output projection; it needs no transformers
    and behaves like one of its models: masks for every pair of tokens, position ids, a head that is found.

    Parameters
    ----------
    vocab_size : int
        Tokens, at least 2.
    hidden_size : int
        Width, at least 1.
    rng : int
        Seed of its weights; the same on every machine.

    Returns
    -------
    torch.nn.Module
        In evaluation mode, float32, for sequences of up to 64 tokens.

    Raises
    ------
    TypeError
        If an argument is no integer.
    ValueError
        If it is too small.

    Examples
    --------
    >>> import torch
    >>> from rankdiag.testing import tiny_language_model
    >>> model = tiny_language_model()
    >>> tuple(model(input_ids=torch.tensor([[1, 2, 3]])).logits.shape)
    (1, 3, 12)
    """
    import torch

    vocab = integer(vocab_size, "vocab_size", low=2, high=1 << 16)
    width = integer(hidden_size, "hidden_size", low=1, high=1 << 12)
    generator = torch.Generator().manual_seed(integer(rng, "rng", low=0))

    def weights(*shape: int) -> Any:
        return torch.nn.Parameter(torch.randn(*shape, generator=generator) / shape[-1] ** 0.5)

    class Network(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.tokens = torch.nn.Embedding(vocab, width, _weight=weights(vocab, width))
            self.places, self.mixing = weights(64, width), weights(3, width, width)

        def forward(
            self, input_ids: Any, attention_mask: Any = None, position_ids: Any = None, use_cache: bool = False
        ) -> Any:
            length = input_ids.shape[1]
            places = torch.arange(length, device=input_ids.device)[None] if position_ids is None else position_ids
            states = self.tokens(input_ids) + self.places[places]
            query, key, value = (states @ matrix for matrix in self.mixing)
            mask = attention_mask
            if mask is None or mask.ndim == 2:
                causal = torch.ones(length, length, dtype=torch.bool, device=input_ids.device).tril()
                mask = causal if mask is None else causal & mask[:, None, None, :].bool()
            mixed = torch.nn.functional.scaled_dot_product_attention(
                query[:, None], key[:, None], value[:, None], attn_mask=mask
            )
            states = states + mixed[:, 0]
            return SimpleNamespace(last_hidden_state=torch.nn.functional.layer_norm(states, (width,)))

    class Model(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.config = SimpleNamespace(
                model_type="tiny", max_position_embeddings=64, _attn_implementation="sdpa", vocab_size=vocab
            )
            self.base_model = Network()
            # Made without memory first: the usual constructor would draw from the global generator.
            self.lm_head = torch.nn.Linear(width, vocab, bias=False, device="meta")
            self.lm_head.weight = weights(vocab, width)

        def get_input_embeddings(self) -> Any:
            return self.base_model.tokens

        def get_output_embeddings(self) -> Any:
            return self.lm_head

        def forward(
            self, input_ids: Any, attention_mask: Any = None, position_ids: Any = None, use_cache: bool = False
        ) -> Any:
            output = self.base_model(input_ids, attention_mask, position_ids)
            return SimpleNamespace(logits=self.lm_head(output.last_hidden_state))

    return Model().eval()
