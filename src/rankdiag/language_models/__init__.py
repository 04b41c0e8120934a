"""The engine for language models: encode records, plan batches, run one forward, stream per-response sums.

It knows no subject: preference, rewards and forgetting read what it returns.
"""

from rankdiag._lazy import attach

__getattr__, __dir__, __all__ = attach(
    __name__,
    {
        "Batch": "rankdiag.language_models._batches",
        "Columns": "rankdiag.language_models._columns",
        "Encoded": "rankdiag.language_models._encoded",
        "EncodedPreferences": "rankdiag.language_models._encoded",
        "HeadGradient": "rankdiag.language_models._head_outputs",
        "HeadGram": "rankdiag.language_models._head_outputs",
        "HeadPressure": "rankdiag.language_models._head_outputs",
        "HeadReward": "rankdiag.language_models._outputs",
        "JointSplit": "rankdiag.language_models._tokenise",
        "Journal": "rankdiag.language_models._journal",
        "LastState": "rankdiag.language_models._outputs",
        "LogProbs": "rankdiag.language_models._outputs",
        "Output": "rankdiag.language_models._context",
        "Plan": "rankdiag.language_models._plan",
        "SelfCheck": "rankdiag.language_models._checks",
        "StateSums": "rankdiag.language_models._outputs",
        "States": "rankdiag.language_models._outputs",
        "TokenKL": "rankdiag.language_models._outputs",
        "TokenStats": "rankdiag.language_models._outputs",
        "as_batch_fn": "rankdiag.language_models._batch_fn",
        "encode": "rankdiag.language_models._encode",
        "encode_preferences": "rankdiag.language_models._encode",
        "extract_prompt": "rankdiag.language_models._records",
        "gradients": "rankdiag.language_models._gradients",
        "load_language_model": "rankdiag.language_models._load",
        "model_fingerprint": "rankdiag.language_models._fingerprint",
        "plan": "rankdiag.language_models._plan",
        "read_records": "rankdiag.language_models._records",
        "run": "rankdiag.language_models._run",
        "sequence_log_probs": "rankdiag.language_models._run",
        "split_joint": "rankdiag.language_models._tokenise",
        "truncate_row": "rankdiag.language_models._tokenise",
    },
)
