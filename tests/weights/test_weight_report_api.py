"""The report as an object: accounting, findings, rules, comparison, documents, options and their errors."""

from __future__ import annotations

import csv
import io
import json
import math

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

import rankdiag as rd
from rankdiag import MissingExtraError
from rankdiag.weights import WeightDeltaReport, WeightReport

SPEC_COLUMNS = [
    *("name", "shape", "kind", "matricization", "dtype", "n", "stable_rank", "effective_rank", "erank_energy"),
    *("participation", "numerical_rank", "spectral", "fro", "nuclear", "alpha", "x_min", "D", "mp_edge_outliers"),
    *("condition", "seconds"),
]


@pytest.fixture(autouse=True)
def _seeded_torch():
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        yield


def state():
    rng = np.random.default_rng(0)
    return {f"layers.{i}.weight": rng.standard_normal((40, 30)) for i in range(4)} | {"norm.bias": np.zeros(30)}


def test_columns_are_those_of_the_specification_and_more():
    names = [column.name for column in WeightReport.columns]
    assert [name for name in names if name in SPEC_COLUMNS] == SPEC_COLUMNS
    assert len(set(names)) == len(names)
    assert all(column.doc for column in (*WeightReport.columns, *WeightDeltaReport.columns))
    for name in (
        "effective_rank_ratio",
        "stable_rank_ratio",
        "numerical_rank_ratio",
        "effective_rank_over_baseline",
        "lora_rank_hint",
        "rank_rtol",
    ):
        assert name in names


def test_worked_example():
    (row,) = rd.weight_report({"fc.weight": np.array([[3.0, 0.0], [0.0, 1.0], [0.0, 0.0]])}).rows
    assert row.stable_rank == pytest.approx(1.1111, abs=1e-4)
    assert row.effective_rank == pytest.approx(1.7548, abs=1e-4)
    assert row.fro == pytest.approx(3.1623, abs=1e-4)
    assert row.nuclear == pytest.approx(4.0)
    assert row.condition == pytest.approx(3.0)


def test_rows_are_in_source_order_and_the_rest_has_reasons():
    tensors = {
        "b.weight": torch.randn(4, 3, generator=torch.Generator().manual_seed(0)),
        "a.weight": torch.eye(3),
        "scale": torch.tensor(2.0),
        "a.bias": torch.zeros(3),
        "mask": torch.ones(4, 4, dtype=torch.bool),
        "ids": torch.arange(6).reshape(2, 3),
        "attn.bias": torch.ones(1, 1, 8, 8),
        "empty.weight": torch.zeros(0, 4),
    }
    report = rd.weight_report(tensors)
    assert [row.name for row in report] == ["b.weight", "a.weight"]
    assert report.skipped["scale"] == "scalar, not a matrix"
    assert report.skipped["a.bias"] == "bias/norm, not a matrix"
    assert "bool" in report.skipped["mask"]
    assert "integer" in report.skipped["ids"]
    assert report.skipped["attn.bias"] == "causal mask, not a weight"
    assert report.skipped["empty.weight"] == "empty: shape 0x4"
    assert len(report) + len(report.skipped) == len(tensors)
    with pytest.raises(ValueError, match="causal mask"):
        report.row("attn.bias")
    with pytest.raises(ValueError, match="no such tensor"):
        report.row("nowhere")


def test_buffers_of_modules_are_no_weights():
    module = torch.nn.Sequential(torch.nn.Linear(3, 4), torch.nn.BatchNorm1d(4))
    module.register_buffer("grid", torch.eye(5))
    report = rd.weight_report(module)
    assert [row.name for row in report] == ["0.weight"]
    assert report.skipped["grid"] == "buffer, not a trained weight"
    assert set(report.skipped) == set(module.state_dict()) - {"0.weight"}


def test_include_and_select():
    module = torch.nn.Sequential(torch.nn.Conv2d(2, 3, 3), torch.nn.Linear(3, 4))
    report = rd.weight_report(module, include="2d")
    assert [row.name for row in report] == ["1.weight"]
    assert report.skipped["0.weight"] == "4 axes, and include='2d'"
    chosen = rd.weight_report(module, select=r"^0\.")
    assert [row.name for row in chosen] == ["0.weight"]
    assert chosen.skipped["1.weight"] == "not selected"


def test_a_report_without_matrices_says_why():
    report = rd.weight_report({"a.bias": np.zeros(3), "b.bias": np.zeros(2), "step": np.array(3.0)})
    assert not report.rows
    assert report.explanation.startswith("No matrix to report: bias/norm, not a matrix (2)")
    assert report.verdict == "unknown"
    assert "No matrix to report" in report.summary()


# --- findings ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("max_bytes", [1 << 27, 200])
@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
def test_layers_without_numbers_are_findings_and_the_analysis_goes_on(bad, max_bytes):
    tensors = state()
    tensors["layers.1.weight"][3, 4] = bad
    tensors["layers.1.weight"][30, 2] = bad
    report = rd.weight_report(tensors, max_bytes=max_bytes)
    row = report.row("layers.1.weight")
    assert row.effective_rank is None
    assert row.numerical_rank is None
    assert row.nulls["fro"] == "2 non-finite entries (NaN or infinity)"
    (finding,) = [finding for finding in report.findings if finding.severity == "alert"]
    assert finding.sentence == "layers.1.weight: 2 of 1200 entries are NaN or infinite"
    assert finding.threshold is not None
    assert finding.threshold.source
    assert report.verdict == "alert"
    assert finding.sentence in report.explanation
    assert report.row("layers.2.weight").effective_rank > 20


@pytest.mark.parametrize("max_bytes", [1 << 27, 200])
def test_zero_weights_have_rank_zero_and_a_finding(max_bytes):
    tensors = state() | {"dead.weight": np.zeros((40, 30), dtype=np.float32)}
    report = rd.weight_report(tensors, max_bytes=max_bytes)
    row = report.row("dead.weight")
    for name in ("stable_rank", "effective_rank", "erank_energy", "participation", "fro", "spectral", "nuclear"):
        assert getattr(row, name) == 0.0, name
    assert (row.numerical_rank, row.lora_rank_hint, row.mp_edge_outliers) == (0, 0, 0)
    assert row.alpha is None
    assert row.condition is None
    assert set(row.nulls) >= {"alpha", "condition"}
    assert report.verdict == "warn"
    assert report.findings[0].sentence == "dead.weight: zero weight, every entry is 0"


def test_a_collapsed_layer_stands_out_against_its_siblings():
    rng = np.random.default_rng(1)
    tensors = {f"layers.{i}.mlp.weight": rng.standard_normal((40, 30)) for i in range(8)}
    tensors["layers.5.mlp.weight"] = rng.standard_normal((40, 1)) @ rng.standard_normal((1, 30))
    tensors["head.weight"] = np.ones((40, 30))
    report = rd.weight_report(tensors)
    (finding,) = report.findings
    assert finding.name == "layers.5.mlp.weight"
    assert finding.severity == "unknown"
    assert "less than half the median" in finding.sentence
    assert report.verdict == "unknown"


@pytest.mark.parametrize("count", [6, 7])
def test_the_median_is_that_of_the_others(count):
    rng = np.random.default_rng(count)
    tensors = {
        f"h.{i}.w": rng.standard_normal((30, 2 + 4 * i)) @ rng.standard_normal((2 + 4 * i, 24)) for i in range(count)
    }
    report = rd.weight_report(tensors)
    ratios = {row.name: row.effective_rank_ratio for row in report}
    expected = {
        name
        for name, ratio in ratios.items()
        if ratio < 0.5 * np.median([other for key, other in ratios.items() if key != name])
    }
    assert expected
    assert {finding.name for finding in report.findings} == expected


def test_options_are_stated():
    details = rd.weight_report(
        state(), include="2d", select="layers", lora="factors", pairs={"layers.0": [("a", 20)], "layers.1": "config"}
    ).meta.details
    assert details["include"] == "2d"
    assert details["lora"] == "factors"
    assert details["select"] == "layers"
    assert details["pairs"] == "layers.0 = a:20; layers.1 = config"
    assert details["measures"] == "all"
    assert rd.weight_report(state(), measures=["fro", "spectral"]).meta.details["measures"] == "spectral, fro"


def test_no_judgement_without_a_source():
    report = rd.weight_report({"a.weight": np.ones((30, 30)), "b.weight": np.eye(30)})
    assert report.verdict == "unknown"
    assert "1 of 2 matrices is strongly low rank" in report.explanation
    assert all(bound.source for bound in report.thresholds)


# --- rules ------------------------------------------------------------------------------------------------------


def test_flags():
    report = rd.weight_report(state() | {"low.weight": np.ones((40, 30))})
    (finding,) = report.flag(["effective_rank_ratio<0.05"])
    assert finding.name == "low.weight"
    assert finding.severity == "alert"
    assert finding.threshold.source == "set by the user"
    assert not report.flag(["effective_rank_ratio < 0.01", "alert", "warn"])
    assert len(report.flag(["n >= 30"])) == 5
    with pytest.raises(ValueError, match="must name one of the columns name, shape, kind"):
        report.flag(["effective_rnak < 1"])
    with pytest.raises(TypeError, match="`rules` must be a sequence"):
        report.flag("effective_rank < 1")


def test_cells_without_a_value_are_never_passed_in_silence():
    report = rd.weight_report(state(), measures="stable_rank")
    findings = report.flag(["effective_rank_ratio < 0.05"])
    assert len(findings) == 4
    assert {finding.severity for finding in findings} == {"unknown"}
    assert "has no value" in findings[0].sentence


# --- comparison -------------------------------------------------------------------------------------------------


def test_compare():
    before = rd.weight_report(state())
    tensors = state()
    tensors["layers.0.weight"] *= 2.0
    tensors["layers.1.weight"] = np.ones((40, 30))
    tensors["layers.2.weight"] = tensors["layers.2.weight"][:20]
    del tensors["layers.3.weight"]
    tensors["new.weight"] = np.eye(3)
    comparison = before.compare(rd.weight_report(tensors))
    assert comparison.cell("layers.0.weight", "fro").ratio == pytest.approx(2.0)
    assert comparison.cell("layers.0.weight", "effective_rank").difference == pytest.approx(0.0, abs=1e-9)
    assert comparison.cell("layers.1.weight", "effective_rank").after == pytest.approx(1.0)
    change = comparison.cell("layers.1.weight", "effective_rank")
    assert change.difference == change.after - change.before < -20
    assert comparison.reshaped == ("layers.2.weight",)
    assert comparison.only_before == ("layers.3.weight",)
    assert comparison.only_after == ("new.weight",)
    assert comparison.cell("layers.1.weight", "condition").ratio is None
    assert "fell most in layers.1.weight" in comparison.explanation
    assert rd.result_from_json(comparison.to_json()) == comparison
    assert len(comparison.of("fro")) == 2
    assert "Only before: layers.3.weight." in comparison.summary()
    with pytest.raises(ValueError, match="`column` must be one of"):
        comparison.cell("layers.0.weight", "seconds")
    with pytest.raises(ValueError, match="`column` must be one of"):
        comparison.of("seconds")
    with pytest.raises(TypeError, match="`other` must be a WeightReport"):
        before.compare({})


def test_compare_without_common_rows():
    first, second = rd.weight_report({"a.weight": np.eye(3)}), rd.weight_report({"b.weight": np.eye(3)})
    comparison = first.compare(second)
    assert comparison.explanation == "No matrix has an effective rank in both reports."
    assert not comparison.document().plots


# --- showing and writing -----------------------------------------------------------------------------------------


def test_documents():
    report = rd.weight_report({f"layers.{i}.weight": np.eye(20) + i for i in range(12)} | {"b.bias": np.zeros(3)})
    document = report.document()
    assert document.title == "Weights of state dict"
    titles = [grid.title for grid in document.grids]
    assert titles[-1] == "Matrices"
    assert "Lowest effective rank" in titles
    main = document.grids[-1]
    assert len(main.columns) <= 15
    assert len(main.rows) == 12
    assert {column.name for column in main.columns} >= {"name", "effective_rank_ratio", "numerical_rank", "rank_rtol"}
    assert [plot.title for plot in document.plots] == [
        "Effective rank of each matrix",
        "Stable rank of each matrix",
        "Spectra from the lowest to the highest effective rank",
    ]
    for plot in document.plots:
        for series in plot.series:
            assert len(series.x) == len(series.y)
    labels = [number.label for number in document.key_numbers]
    assert "mean effective rank / n" in labels
    assert any("Skipped 1: bias/norm, not a matrix (b.bias)." in note for note in document.notes)


def test_means_are_weighted_by_parameters():
    report = rd.weight_report({"a.weight": np.eye(10), "b.weight": np.ones((30, 30))})
    numbers = {number.label: number.value for number in report.document().key_numbers}
    ratios = {row.name: row.effective_rank_ratio for row in report}
    assert numbers["mean effective rank / n"] == pytest.approx(
        (100 * ratios["a.weight"] + 900 * ratios["b.weight"]) / 1000
    )
    assert numbers["parameters in them"] == 1000


def test_round_trip_and_files(tmp_path):
    tensors = state() | {"bad.weight": np.full((3, 3), np.nan)}
    report = rd.weight_report(tensors)
    assert rd.result_from_dict(json.loads(report.to_json())) == report
    assert WeightReport.from_dict(report.to_dict()).rows == report.rows
    assert dict(report.skipped) == {"norm.bias": "bias/norm, not a matrix"}
    lines = list(csv.reader(io.StringIO(report.to_csv(tmp_path / "r.csv"))))
    assert lines[0] == [column.name for column in report.columns]
    assert len(lines) == 6
    row = dict(zip(lines[0], lines[1], strict=True))
    assert float(row["effective_rank"]) == report.rows[0].effective_rank
    assert row["shape"] == "40x30"
    assert (tmp_path / "r.csv").read_text() == report.to_csv()
    assert report.to_markdown().count("\n") == 6
    assert "<script" not in rd.weight_report({"<script>.weight": np.eye(3)})._repr_html_()


def test_plots_are_drawn_on_given_axes():
    report = rd.weight_report(state())
    import matplotlib as mpl

    mpl.use("Agg")
    import matplotlib.pyplot as plt

    figure, ax = plt.subplots()
    assert report.plot(ax) is ax
    assert len(ax.collections) + len(ax.lines) >= 2
    plt.close(figure)


def test_to_pandas():
    report = rd.weight_report(state())
    try:
        frame = report.to_pandas()
    except MissingExtraError:
        pytest.skip("pandas is not installed")
    assert list(frame.columns) == [column.name for column in report.columns]
    assert len(frame) == 4


# --- options and errors -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"include": "3d"}, ValueError, "`include` must be one of '2d\\+', '2d'"),
        ({"conv": "patch"}, ValueError, "`conv` must be one of"),
        ({"conv": "fft"}, ValueError, "`input_size` \\(h, w\\) is needed with conv='fft'"),
        ({"input_size": (3, 3)}, ValueError, "`input_size` \\(h, w\\) is for conv='fft' only"),
        ({"conv": "fft", "input_size": 3}, TypeError, "`input_size` must be two integers"),
        ({"conv": "fft", "input_size": (0, 3)}, ValueError, "`input_size` must be an integer >= 1"),
        ({"measures": "most"}, ValueError, "`measures` must be one of 'all', 'no_tail', 'stable_rank'"),
        ({"measures": ["rank"]}, ValueError, "`measures` must be one of .* name columns among stable_rank"),
        ({"measures": []}, ValueError, "got none"),
        ({"measures": 3}, TypeError, "`measures` must be a profile"),
        ({"measures": [3]}, TypeError, "`measures` must be a string"),
        ({"method": "topk"}, ValueError, "`method` must be one of"),
        ({"pairs": "auto"}, ValueError, "`pairs` must be None, 'config'"),
        ({"pairs": 3}, TypeError, "`pairs` must hold sequences"),
        ({"pairs": [("q", 0)]}, ValueError, "`pairs` must be an integer >= 1"),
        ({"pairs": [("", 1)]}, ValueError, "must name every part"),
        ({"pairs": [("q", 7)]}, ValueError, "must fill the output axis"),
        ({"pairs": [("q", 20), ("q", 20)]}, ValueError, "must name each part once"),
        ({"pairs": ["q"]}, TypeError, "`pairs` must hold pairs"),
        ({"pairs": {"(": [("q", 1)]}}, ValueError, "`pairs` must have regular expressions as keys"),
        ({"pairs": {3: [("q", 1)]}}, TypeError, "`pairs` must be a string"),
        ({"lora": "both"}, ValueError, "`lora` must be one of"),
        ({"baseline": "none"}, ValueError, "`baseline` must be one of"),
        ({"max_bytes": 0}, ValueError, "`max_bytes` must be an integer >= 1"),
        ({"n_jobs": 0}, ValueError, "`n_jobs` must be an integer >= 1"),
        ({"select": "("}, ValueError, "`select` must be a regular expression"),
        ({"select": 3}, TypeError, "`select` must be a string"),
        ({"select": "absent"}, ValueError, "`select` must match a tensor"),
        ({"baseline": "shuffle", "rng": -1}, ValueError, "`rng` must be None"),
        ({"progress": 1}, TypeError, "`progress` must be True or False"),
    ],
)
def test_wrong_options(options, error, message):
    with pytest.raises(error, match=message):
        rd.weight_report(state(), **options)


def test_unknown_keywords_and_sources():
    with pytest.raises(TypeError, match="unexpected keyword"):
        rd.weight_report(state(), measure="all")
    with pytest.raises(TypeError, match="`source` must be"):
        rd.weight_report(3)
    with pytest.raises(FileNotFoundError):
        rd.weight_report("/no/such/folder")


def test_a_module_on_the_meta_device_is_refused_with_what_to_do():
    with torch.device("meta"):
        module = torch.nn.Linear(3, 4)
    with pytest.raises(ValueError, match="path of the checkpoint"):
        rd.weight_report(module)


def test_the_source_is_left_as_it_was(tmp_path):
    module = torch.nn.Sequential(torch.nn.Linear(5, 4), torch.nn.Conv1d(2, 3, 2))
    before = {name: tensor.clone() for name, tensor in module.state_dict().items()}
    module.train()
    rd.weight_report(module, baseline="shuffle", rng=0)
    assert module.training
    assert all(parameter.grad is None and parameter.requires_grad for parameter in module.parameters())
    assert all(torch.equal(tensor, before[name]) for name, tensor in module.state_dict().items())
    save_file(before, tmp_path / "model.safetensors")
    data = (tmp_path / "model.safetensors").read_bytes()
    rd.weight_report(tmp_path, n_jobs=2)
    assert (tmp_path / "model.safetensors").read_bytes() == data


def test_progress_does_not_need_a_terminal(capsys):
    rd.weight_report(state(), progress=True)
    assert capsys.readouterr().out == ""


def test_non_contiguous_and_read_only_arrays():
    rng = np.random.default_rng(2)
    plain = rng.standard_normal((12, 9))
    frozen = plain.copy()
    frozen.flags.writeable = False
    wide = np.zeros((12, 18))
    wide[:, ::2] = plain
    forms = {
        "fortran": np.asfortranarray(plain),
        "strided": wide[:, ::2],
        "reversed": plain[::-1, ::-1],
        "frozen": frozen,
        "tensor": torch.from_numpy(plain).T.contiguous().T,
        "grad": torch.nn.Parameter(torch.from_numpy(plain.copy())),
    }
    truth = rd.weight_report({"a": plain}).rows[0].effective_rank
    for max_bytes in (1 << 27, 300):
        for name, form in forms.items():
            assert rd.weight_report({"a": form}, max_bytes=max_bytes).rows[0].effective_rank == pytest.approx(truth), (
                name
            )
