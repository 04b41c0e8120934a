from rankdiag.report._report import Section as Section
from rankdiag.report._report import from_json as from_json
from rankdiag.report._report import to_html as to_html
from rankdiag.report._report import to_json as to_json
from rankdiag.report._report import to_text as to_text
from rankdiag.report._report import write_html as write_html
from rankdiag.report._report import write_json as write_json

__all__: list[str]
