"""Results as text, JSON and self-contained HTML pages; nothing here knows a single measurement."""

from rankdiag._lazy import attach

__getattr__, __dir__, __all__ = attach(
    __name__,
    dict.fromkeys(
        ("Section", "from_json", "to_html", "to_json", "to_text", "write_html", "write_json"),
        "rankdiag.report._report",
    ),
)
