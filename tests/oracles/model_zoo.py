"""Small models of transformers and what their modules do to one-hot inputs."""

from __future__ import annotations

import contextlib
import logging

import numpy as np
import torch

SIZE = {"num_hidden_layers": 1, "hidden_size": 16, "intermediate_size": 24, "vocab_size": 40}


def build(name):
    """Return a tiny model of transformers, with weights of order one and biases of zero."""
    import transformers as tf

    tf.logging.set_verbosity_error()
    tf.logging.disable_progress_bar()
    logging.getLogger("transformers").setLevel(logging.ERROR)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = _MODELS[name](tf)
        with torch.no_grad():
            for path, parameter in model.named_parameters():
                if path.endswith("bias"):
                    parameter.zero_()
                elif parameter.ndim > 1:
                    parameter.normal_()
        return model.eval()


_MODELS = {
    "gpt2": lambda tf: tf.GPT2LMHeadModel(
        tf.GPT2Config(n_layer=1, n_embd=16, n_head=2, vocab_size=40, n_positions=32, attn_pdrop=0.0)
    ),
    "imagegpt": lambda tf: tf.ImageGPTModel(
        tf.ImageGPTConfig(n_layer=1, n_embd=16, n_head=2, vocab_size=40, n_positions=32)
    ),
    "gpt_neox": lambda tf: tf.GPTNeoXForCausalLM(tf.GPTNeoXConfig(**SIZE, num_attention_heads=4)),
    "gpt_bigcode": lambda tf: tf.GPTBigCodeForCausalLM(
        tf.GPTBigCodeConfig(n_layer=1, n_embd=16, n_head=4, vocab_size=40, n_positions=32, multi_query=True)
    ),
    "gpt_bigcode_heads": lambda tf: tf.GPTBigCodeForCausalLM(
        tf.GPTBigCodeConfig(n_layer=1, n_embd=16, n_head=4, vocab_size=40, n_positions=32, multi_query=False)
    ),
    "phi3": lambda tf: tf.Phi3ForCausalLM(
        tf.Phi3Config(**SIZE, num_attention_heads=4, num_key_value_heads=2, pad_token_id=0)
    ),
    "falcon_mq": lambda tf: tf.FalconForCausalLM(
        tf.FalconConfig(**SIZE, num_attention_heads=4, multi_query=True, new_decoder_architecture=False)
    ),
    "falcon_new": lambda tf: tf.FalconForCausalLM(
        tf.FalconConfig(**SIZE, num_attention_heads=4, num_kv_heads=2, new_decoder_architecture=True)
    ),
    "falcon_rw": lambda tf: tf.FalconForCausalLM(
        tf.FalconConfig(**SIZE, num_attention_heads=4, multi_query=False, new_decoder_architecture=False)
    ),
    "bloom": lambda tf: tf.BloomForCausalLM(tf.BloomConfig(n_layer=1, hidden_size=16, n_head=4, vocab_size=40)),
    "codegen": lambda tf: tf.CodeGenForCausalLM(
        tf.CodeGenConfig(n_layer=1, n_embd=16, n_head=4, rotary_dim=4, vocab_size=40, n_positions=32)
    ),
    "mpt": lambda tf: tf.MptForCausalLM(tf.MptConfig(n_layers=1, d_model=16, n_heads=2, vocab_size=40)),
    "persimmon": lambda tf: tf.PersimmonForCausalLM(tf.PersimmonConfig(**SIZE, num_attention_heads=4)),
    "modernbert": lambda tf: tf.ModernBertModel(
        tf.ModernBertConfig(**SIZE, num_attention_heads=4, pad_token_id=0, global_attn_every_n_layers=1)
    ),
    "deberta": lambda tf: tf.DebertaModel(tf.DebertaConfig(**SIZE, num_attention_heads=4)),
    "mixtral": lambda tf: tf.MixtralForCausalLM(
        tf.MixtralConfig(**SIZE, num_attention_heads=2, num_key_value_heads=1, num_local_experts=3)
    ),
    "qwen3_moe": lambda tf: tf.Qwen3MoeForCausalLM(
        tf.Qwen3MoeConfig(
            **SIZE, head_dim=8, moe_intermediate_size=12, num_attention_heads=2, num_key_value_heads=1, num_experts=3
        )
    ),
    "gpt_oss": lambda tf: tf.GptOssForCausalLM(
        tf.GptOssConfig(**SIZE, head_dim=8, num_attention_heads=2, num_key_value_heads=1, num_local_experts=3)
    ),
    "llama": lambda tf: tf.LlamaForCausalLM(
        tf.LlamaConfig(**SIZE, num_attention_heads=2, num_key_value_heads=1, tie_word_embeddings=True)
    ),
    "bert": lambda tf: tf.BertForMaskedLM(tf.BertConfig(**SIZE, num_attention_heads=2)),
    "t5": lambda tf: tf.T5ForConditionalGeneration(
        tf.T5Config(num_layers=1, d_model=16, d_kv=8, d_ff=24, num_heads=2, vocab_size=40)
    ),
    "vit": lambda tf: tf.ViTModel(
        tf.ViTConfig(
            num_hidden_layers=1,
            hidden_size=16,
            intermediate_size=24,
            num_attention_heads=2,
            image_size=16,
            patch_size=4,
        )
    ),
    "convnext": lambda tf: tf.ConvNextModel(tf.ConvNextConfig(depths=[1, 1, 1, 1], hidden_sizes=[8, 12, 16, 20])),
    "wav2vec2": lambda tf: tf.Wav2Vec2Model(
        tf.Wav2Vec2Config(
            num_hidden_layers=1,
            hidden_size=16,
            intermediate_size=24,
            num_attention_heads=2,
            conv_dim=(8, 8),
            conv_kernel=(4, 3),
            conv_stride=(2, 2),
            num_feat_extract_layers=2,
            num_conv_pos_embeddings=4,
            num_conv_pos_embedding_groups=2,
            vocab_size=30,
        )
    ),
    "encodec": lambda tf: tf.EncodecModel(
        tf.EncodecConfig(num_filters=4, hidden_size=8, upsampling_ratios=[2, 2], codebook_size=16, codebook_dim=8)
    ),
    "mamba": lambda tf: tf.MambaForCausalLM(tf.MambaConfig(num_hidden_layers=1, hidden_size=16, vocab_size=40)),
    "video": lambda tf: tf.VideoMAEModel(
        tf.VideoMAEConfig(
            num_hidden_layers=1,
            hidden_size=16,
            intermediate_size=24,
            num_attention_heads=2,
            image_size=8,
            patch_size=4,
            num_frames=2,
            tubelet_size=2,
        )
    ),
}
NAMES = tuple(_MODELS)


def save(model, folder):
    """Save a model as a user would, without progress bars."""
    model.save_pretrained(folder)
    return folder


def one_hot_linear(module):
    """Return the matrix (in, out) that a module applies to one-hot rows."""
    width = getattr(module, "in_features", None) or module.weight.shape[0 if type(module).__name__ == "Conv1D" else 1]
    with torch.no_grad():
        zero = module(torch.zeros(1, width))
        return (module(torch.eye(width)) - zero).double().numpy()


def one_hot_embedding(module):
    """Return the rows that an embedding gives for every entry."""
    with torch.no_grad():
        return module(torch.arange(module.num_embeddings)).double().numpy()


def one_hot_convolution(module):
    """Return the dense matrix (patch, out) that a convolution applies to a patch of its kernel's size."""
    import torch.nn.functional as F

    kernel = tuple(module.kernel_size)
    with torch.no_grad():
        if module.transposed:
            eye = torch.eye(module.in_channels).reshape(module.in_channels, module.in_channels, *(1 for _ in kernel))
            run = (F.conv_transpose1d, F.conv_transpose2d, F.conv_transpose3d)[len(kernel) - 1]
            out = run(eye, module.weight, groups=module.groups)
        else:
            size = module.in_channels * int(np.prod(kernel))
            eye = torch.eye(size).reshape(size, module.in_channels, *kernel)
            run = (F.conv1d, F.conv2d, F.conv3d)[len(kernel) - 1]
            out = run(eye, module.weight, groups=module.groups)
        return out.reshape(len(eye), -1).double().numpy()


def one_hot_attention(model, fused, method=""):
    """Return the matrices (in, heads * head) that queries, keys and values are made with.

    One-hot rows go into the fused projection, one a sequence of length 1, where rotary position embeddings do
    nothing; what reaches the attention function is read off, or what `method` of the attention module cuts or takes.
    """
    from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

    found = {}
    width = getattr(fused, "in_features", None) or fused.weight.shape[0]

    def substitute(module, args):
        return (torch.eye(width).unsqueeze(1).to(args[0].dtype),)

    def capture(module, query, key, value, *args, **kwargs):
        found.update({"q": query, "k": key, "v": value})
        raise _SeenError

    handle = fused.register_forward_pre_hook(substitute)
    owner = next((module for module in model.modules() if hasattr(type(module), method)), None) if method else None
    if owner is not None:
        original = getattr(owner, method)

        def wrapped(*args, **kwargs):
            cut = args[:3] if method == "_attn" else original(*args, **kwargs)
            capture(owner, *cut)

        object.__setattr__(owner, method, wrapped)
    else:
        ALL_ATTENTION_FUNCTIONS["sdpa"] = capture
    try:
        with torch.no_grad(), contextlib.suppress(_SeenError):
            model(input_ids=torch.zeros(width, 1, dtype=torch.long))
    finally:
        handle.remove()
        if owner is not None:
            object.__delattr__(owner, method)
        else:
            del ALL_ATTENTION_FUNCTIONS["sdpa"]
    return {part: value.reshape(width, -1, value.shape[-1]) for part, value in found.items()}


class _SeenError(Exception):
    """The attention was reached; nothing after it matters."""
