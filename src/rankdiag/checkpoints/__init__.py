"""The tensors of a model or a checkpoint, one at a time or block by block.

`open_source` takes a torch module, a state dict, a safetensors file, a HuggingFace folder, a LoRA adapter folder or a
repo id and gives a `TensorSource`. Files are read without torch, no model is built and no pickle is loaded.
"""

from rankdiag._lazy import attach

__getattr__, __dir__, __all__ = attach(
    __name__,
    {
        "CheckpointError": "rankdiag.checkpoints._info",
        "TensorInfo": "rankdiag.checkpoints._info",
        "TensorSource": "rankdiag.checkpoints._source",
        "open_source": "rankdiag.checkpoints._open",
    },
)
