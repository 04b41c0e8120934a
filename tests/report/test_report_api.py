"""The package `rankdiag.report`: one result or several, in order, as text, JSON and HTML."""

from __future__ import annotations

import json
import math
import re
import subprocess
import sys

import pytest

import rankdiag.report as report
from oracles.html_page import Page, problems
from rankdiag._result import result_from_json
from rankdiag.report import Section, from_json, to_html, to_json, to_text, write_html, write_json


def test_one_result(sample):
    assert to_text(sample) == sample.summary()
    assert to_json(sample) == sample.to_json()
    assert from_json(to_json(sample)) == sample
    assert problems(to_html(sample)) == []
    assert "<title>Sample</title>" in to_html(sample)


def test_several_results_keep_their_order(sample, other):
    for results in ([sample, other], (other, sample), iter([sample, sample, other]), [sample]):
        given = list(results)
        assert from_json(to_json(given)) == tuple(given)
        page = Page(to_html(given, title="Both"))
        assert page.headings.count(2) == len(given)
        places = [page.text.index(part.explanation) for part in dict.fromkeys(given)]
        assert places == sorted(places) or given[0] is other
    text = to_text([sample, other], title="Both", intro="Two results.")
    assert text.startswith("Both [WARN]\nTwo results.\n")
    assert text.index("Five layers.") < text.index("One hostile layer.")


def test_json_of_several_results_is_one_document(sample, other):
    data = json.loads(to_json([sample, Section(title="Part", intro="Words.", results=[other])], indent=1))
    assert data["schema_version"] == 1
    assert data["type"] == "report.Report"
    assert data["results"][0] == sample.to_dict()
    assert data["results"][1] == {"title": "Part", "intro": "Words.", "results": [other.to_dict()]}
    assert list(data) == ["schema_version", "type", "results"]


def test_json_holds_what_utf8_cannot(other):
    text = to_json(other)
    text.encode("utf-8")
    back = from_json(text)
    assert back == other
    assert back.rows[0].name.endswith("\ud800")
    assert back.rows[0].rank == math.inf
    assert result_from_json(text) == other


def test_sections(sample, other):
    parts = [Section(title="First", intro="Why.", results=[sample, other]), Section(title="Second", results=sample)]
    assert from_json(to_json(parts)) == tuple(parts)
    page = Page(to_html(parts, title="Demo", intro="Everything."))
    assert [page.text.index(t) for t in ("Demo", "Everything.", "First")] == sorted(
        page.text.index(t) for t in ("Demo", "Everything.", "First")
    )
    links = [a["href"] for tag, a in page.tags if tag == "a"][1:]
    assert links == ["#s1", "#s1-1", "#s1-2", "#s2", "#s2-1"]
    assert page.headings[:3] == [1, 2, 3]
    assert "Why." in to_text(parts)
    assert to_text(parts[0]).splitlines()[:2] == ["First [WARN]", "Why."]
    assert parts[1].results == (sample,)


def test_files_are_written_whole(tmp_path, sample, other):
    page = write_html([sample, other], tmp_path / "r.html", title="Both")
    assert page.read_text(encoding="utf-8") == to_html([sample, other], title="Both")
    data = write_json([sample, other], str(tmp_path / "r.json"))
    assert from_json(data.read_text(encoding="utf-8")) == (sample, other)
    assert data.read_text(encoding="utf-8").endswith("}\n")
    write_html(sample, page)
    assert page.read_text(encoding="utf-8") == to_html(sample)
    assert sorted(file.name for file in tmp_path.iterdir()) == ["r.html", "r.json"]
    with pytest.raises(FileNotFoundError, match="`path`"):
        write_html(sample, tmp_path / "no" / "r.html")
    with pytest.raises(TypeError, match="`results` must be"):
        write_html(3, page)
    assert page.read_text(encoding="utf-8") == to_html(sample)


def test_a_title_above_a_single_result(sample):
    page = Page(to_html(sample, title="Mine", intro="Words."))
    assert page.headings[:2] == [1, 2]
    assert page.text.index("Mine") < page.text.index("Words.") < page.text.index("Sample")


@pytest.mark.parametrize("call", [to_text, to_json, to_html])
@pytest.mark.parametrize(
    ("results", "error", "text"),
    [
        (None, TypeError, "must be a result, a section, or a sequence of them; got None"),
        ("text", TypeError, "got 'text'"),
        ({"a": 1}, TypeError, "got dict"),
        ([], ValueError, "`results` must hold at least one result; got none"),
        ([3], TypeError, "entry 0 is 3"),
        ([[]], TypeError, "entry 0 is list"),
        (Section, TypeError, "got type"),
    ],
)
def test_what_is_no_result_is_refused(call, results, error, text):
    with pytest.raises(error, match=re.escape(text)):
        call(results)


def test_options_are_checked(sample, tmp_path):
    for call, options, error in (
        (to_text, {"width": 3}, ValueError),
        (to_text, {"max_rows": 0}, ValueError),
        (to_text, {"title": 3}, TypeError),
        (to_html, {"intro": None}, TypeError),
        (to_html, {"max_rows": True}, TypeError),
        (to_html, {"max_rows": 0}, ValueError),
        (to_json, {"indent": -1}, ValueError),
        (to_json, {"indent": "2"}, TypeError),
        (to_html, {"titel": "x"}, TypeError),
    ):
        with pytest.raises(error, match=next(iter(options))):
            call(sample, **options)
    for path in (3, None, b"x"):
        with pytest.raises(TypeError, match="`path` must be a string or a path"):
            write_html(sample, path)
        with pytest.raises(TypeError, match="`path` must be a string or a path"):
            write_json(sample, path)


def test_sections_are_checked(sample):
    for options, error in (
        ({"title": 3, "results": sample}, TypeError),
        ({"title": "t", "results": []}, ValueError),
        ({"title": "t", "results": [Section(title="t", results=sample)]}, TypeError),
        ({"title": "t", "results": "x"}, TypeError),
        ({"title": "t", "results": sample, "intro": 3}, TypeError),
    ):
        with pytest.raises(error, match=r"`(title|results|intro)`"):
            Section(**options)


@pytest.mark.parametrize(
    ("text", "error", "message"),
    [
        (3, TypeError, "`text` must be a string"),
        ("{", ValueError, "`text` must be JSON"),
        ("[1]", ValueError, "`text` must hold a JSON object; got list"),
        ("{}", ValueError, "schema_version"),
        ('{"type": "report.Report"}', ValueError, "schema_version 1; got None"),
        ('{"type": "report.Report", "schema_version": 1}', ValueError, "a list of results at /results; got NoneType"),
        ('{"type": "report.Report", "schema_version": 1, "results": []}', ValueError, "a list of results"),
        ('{"type": "report.Report", "schema_version": 1, "results": [3]}', ValueError, "at /results/0; got int"),
        (
            '{"type": "report.Report", "schema_version": 1, "results": [{"title": 1, "intro": "", "results": [{}]}]}',
            ValueError,
            "schema_version",
        ),
        ("[" * 100_000, ValueError, "`text` must be"),
    ],
)
def test_what_is_no_report_is_refused(text, error, message):
    with pytest.raises(error, match=re.escape(message)):
        from_json(text)


def test_a_section_with_a_wrong_title_is_refused(sample):
    data = json.loads(to_json([Section(title="t", results=sample)]))
    data["results"][0]["title"] = 3
    with pytest.raises((TypeError, ValueError), match="`title` must be a string; got 3"):
        from_json(json.dumps(data))


def test_a_notebook_shows_a_result(sample, other):
    for result in (sample, other):
        shown = result._repr_html_()
        assert problems(f"<h1>n</h1><h2>n</h2>{shown}") == []
        assert shown == result._repr_html_()


def test_names_load_on_first_use():
    code = (
        "import sys, rankdiag.report as r\n"
        "assert 'rankdiag._html' not in sys.modules and 'json' not in sys.modules\n"
        "assert set(r.__all__) <= set(dir(r))\n"
        "r.to_html\n"
        "bad = {'numpy', 'scipy', 'torch', 'matplotlib'} & set(sys.modules)\n"
        "assert not bad, bad\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
    with pytest.raises(AttributeError, match="no attribute 'to_pdf'"):
        report.to_pdf  # noqa: B018 - the access itself is what raises
