"""Delta reports against dense differences, and what rounding does to them."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import save_file

import rankdiag as rd
from oracles.model_zoo import build, save
from oracles.weight_cells import bfloat16, cells, eps_rank

SUMS = ("stable_rank", "effective_rank", "erank_energy", "participation", "spectral", "fro", "nuclear")


@pytest.fixture(autouse=True)
def _seeded_torch():
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        yield


def same(row, matrix, rel=1e-6):
    truth = cells(matrix)
    for name in SUMS:
        assert getattr(row, name) == pytest.approx(truth[name], rel=rel, abs=1e-300), (row.name, name)


def one(base, tuned, **options):
    (row,) = rd.weight_delta_report({"a.weight": base}, {"a.weight": tuned}, **options).rows
    return row


@given(
    st.integers(2, 20),
    st.integers(2, 20),
    st.integers(1, 4),
    st.integers(0, 2**32 - 1),
    st.integers(1, 4000),
)
def test_cells_are_those_of_the_difference(m, n, rank, seed, max_bytes):
    rng = np.random.default_rng(seed)
    base = rng.standard_normal((m, n))
    tuned = base + 0.1 * rng.standard_normal((m, rank)) @ rng.standard_normal((rank, n))
    delta = tuned - base
    for row in (one(base, tuned), one(base, tuned, max_bytes=max_bytes)):
        same(row, delta)
        s = np.linalg.svd(delta, compute_uv=False)
        assert row.base_fro == pytest.approx(np.linalg.norm(base))
        assert row.relative_norm == pytest.approx(np.linalg.norm(delta) / np.linalg.norm(base))
        assert row.changed_fraction == np.mean(delta != 0)
        assert row.eps_rank_10 == eps_rank(s, 0.1)
        assert row.eps_rank_1 == eps_rank(s, 0.01)
        assert row.lora_rank_hint == eps_rank(s, math.sqrt(0.05))
        assert row.numerical_rank == cells(delta)["numerical_rank"]
        assert row.status == "changed"


def rounding_edge(weight, dtype):
    """The estimate from its formula, entry by entry."""
    eps, smallest = {"bfloat16": (2.0**-7, -126), "float32": (2.0**-23, -126), "float64": (2.0**-52, -1022)}[dtype]
    variance = np.zeros(weight.shape)
    for place, value in np.ndenumerate(weight):
        if value:
            exponent = max(math.floor(math.log2(abs(value))), smallest)
            variance[place] = (2.0**exponent * eps) ** 2 / 12
    return math.sqrt(variance.sum(axis=1).max()) + math.sqrt(variance.sum(axis=0).max())


@pytest.mark.parametrize("max_bytes", [1 << 27, 3000])
def test_rounding_edge_follows_its_formula(max_bytes):
    base = torch.randn(40, 30)
    for dtype, name in ((torch.bfloat16, "bfloat16"), (torch.float32, "float32"), (torch.float64, "float64")):
        old, new = base.to(dtype), (base + 0.05 * torch.randn(40, 30)).to(dtype)
        row = one(old, new, max_bytes=max_bytes)
        assert row.rounding_edge == pytest.approx(rounding_edge(new.double().numpy(), name), rel=1e-12)
        assert row.dtype == name
    mixed = one(base.to(torch.bfloat16), base, max_bytes=max_bytes)
    assert mixed.dtype == "bfloat16"
    assert mixed.rounding_edge == pytest.approx(
        rounding_edge(base.to(torch.bfloat16).double().numpy(), "bfloat16"), rel=1e-12
    )


@pytest.mark.parametrize("shape", [(256, 192), (96, 300), (64, 48)])
@pytest.mark.parametrize("seed", range(4))
def test_rounding_noise_is_told_from_the_update(shape, seed):
    rng = np.random.default_rng(seed)
    m, n = shape
    base = bfloat16(rng.standard_normal(shape))
    low_rank = 0.05 * rng.standard_normal((m, 4)) @ rng.standard_normal((4, n))
    row = one(torch.from_numpy(base).bfloat16(), torch.from_numpy(bfloat16(base + low_rank)).bfloat16())
    assert row.rank_above_rounding == 4
    assert row.update in {"low rank", "low rank above rounding"}
    assert row.effective_rank > cells(low_rank)["effective_rank"] + 0.5  # the noise of full rank is in it
    # Pure noise: the base in float32 against its own rounding.
    noisy = rng.standard_normal(shape).astype(np.float32)
    noise = one(torch.from_numpy(noisy), torch.from_numpy(bfloat16(noisy)).bfloat16())
    assert noise.rank_above_rounding == 0
    assert noise.update == "rounding only"
    assert 0.7 * noise.rounding_edge < noise.spectral < 1.05 * noise.rounding_edge


def test_the_largest_value_of_noise_stays_within_the_margin():
    from rankdiag.weights._delta import edge_margin

    assert edge_margin(4096, 1024) == 0.02
    rng = np.random.default_rng(1)
    for m, n in ((20, 20), (40, 25)):
        edge = math.sqrt(m) + math.sqrt(n)
        tops = np.linalg.svd(rng.standard_normal((2000, m, n)), compute_uv=False)[:, 0] / edge
        beyond = (tops > 1 + edge_margin(m, n)).mean()
        assert beyond < 0.015  # the 99 % point of the limit law, which small matrices approach from below
        assert (tops > 1.0).mean() > 0.05  # without a margin noise would be counted


def test_rows_of_very_different_size_do_not_fool_the_edge():
    rng = np.random.default_rng(0)
    noisy = (rng.standard_normal((120, 100)) * np.logspace(-3, 1, 120)[:, None]).astype(np.float32)
    row = one(torch.from_numpy(noisy), torch.from_numpy(bfloat16(noisy)).bfloat16())
    assert row.rank_above_rounding == 0


def test_kinds_of_updates():
    base = torch.randn(64, 48, dtype=torch.float64)
    direction = torch.randn(64, 2, dtype=torch.float64) @ torch.randn(2, 48, dtype=torch.float64)
    assert one(base, base.clone()).update == "none"
    assert one(base, base + direction).update == "low rank"
    assert one(base, base + torch.randn(64, 48, dtype=torch.float64)).update == "dense"
    large = torch.randn(600, 520)  # where the largest value alone is found, the kind stays open
    assert one(large, large + 1.0, measures="stable_rank").update == ""
    assert one(large, large + 1.0).update == "low rank"
    same_row = one(base, base.clone())
    assert same_row.status == "identical"
    assert (same_row.effective_rank, same_row.numerical_rank, same_row.relative_norm) == (0.0, 0, 0.0)


def test_identical_tensors_stream_without_a_product():
    base = torch.randn(300, 200)
    row = one(base, base.clone(), max_bytes=10_000)
    assert row.method == "values"
    assert row.status == "identical"
    assert row.effective_rank == 0.0


@pytest.mark.parametrize("axis", [0, 1])
def test_few_changed_rows_or_columns_stream_like_the_whole(axis):
    base = torch.randn(400, 90, dtype=torch.float64) if axis == 0 else torch.randn(90, 400, dtype=torch.float64)
    tuned = base.clone()
    tuned.select(axis, 7).add_(1.0)
    tuned.select(axis, 333).add_(torch.randn(90, dtype=torch.float64))
    row = one(base, tuned, max_bytes=8 * 90 * 50)
    same(row, (tuned - base).numpy())
    assert row.numerical_rank == 2


# --- two checkpoints -------------------------------------------------------------------------------------------


def test_tensors_on_one_side_changed_shapes_and_resized_embeddings():
    base = {
        "embed.weight": torch.randn(10, 6),
        "fc.weight": torch.randn(5, 6),
        "head.weight": torch.randn(4, 6),
        "old.weight": torch.randn(3, 3),
        "old.bias": torch.zeros(3),
        "norm.weight": torch.ones(6),
    }
    tuned = {
        "embed.weight": torch.cat([base["embed.weight"] + 0.5, torch.randn(3, 6)]),
        "fc.weight": torch.randn(5, 7),
        "head.weight": base["head.weight"][:2],
        "new.weight": torch.randn(4, 4),
        "new.bias": torch.zeros(4),
        "norm.weight": torch.ones(6),
    }
    report = rd.weight_delta_report(base, tuned)
    status = {row.name: row.status for row in report}
    assert status == {
        "embed.weight": "resized",
        "fc.weight": "shape differs",
        "head.weight": "resized",
        "new.weight": "only in tuned",
        "old.weight": "only in base",
    }
    grown = report.row("embed.weight")
    same(grown, np.full((10, 6), 0.5), rel=1e-5)
    assert "the base has the shape 10x6; the first 10 rows" in grown.remark
    assert report.row("head.weight").fro == 0.0
    assert report.row("head.weight").n == 2
    assert "the base has the shape 5x6" in report.row("fc.weight").remark
    assert report.row("new.weight").effective_rank is None
    assert report.skipped == {
        "new.bias": "bias/norm, not a matrix (only in tuned)",
        "norm.weight": "bias/norm, not a matrix",
        "old.bias": "bias/norm, not a matrix (only in base)",
    }


@pytest.mark.parametrize("shapes", [((60, 9), (41, 9)), ((9, 60), (7, 60)), ((7, 60), (9, 60))])
@pytest.mark.parametrize("rows", [1, 3, 5])
def test_resized_matrices_stream_like_the_whole(shapes, rows):
    base, tuned = (torch.randn(shape, dtype=torch.float64) for shape in shapes)
    common = min(len(base), len(tuned))
    row = one(base, tuned, max_bytes=8 * rows * 9)
    assert row.status == "resized"
    same(row, (tuned[:common] - base[:common]).numpy())
    whole = one(base, tuned)
    assert row.rounding_edge == pytest.approx(whole.rounding_edge, rel=1e-12)
    assert row.base_fro == pytest.approx(whole.base_fro, rel=1e-12)
    assert row.changed_fraction == whole.changed_fraction == 1.0


def test_every_tensor_of_both_sides_is_accounted_for(tmp_path):
    model = build("bert")
    save(model, tmp_path / "base")
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.01 * torch.randn_like(parameter))
    model.resize_token_embeddings(44)
    save(model, tmp_path / "tuned")
    report = rd.weight_delta_report(tmp_path / "base", tmp_path / "tuned")
    from rankdiag.checkpoints import open_source

    for side in ("base", "tuned"):
        with open_source(tmp_path / side) as source:
            names = {info.name for info in source.tensors}
        used = {tensor for row in report for tensor in row.tensors}
        assert names <= used | set(report.skipped) | set(report.aliases)
    assert report.row("bert.embeddings.word_embeddings.weight").status == "resized"
    assert {row.status for row in report} == {"changed", "resized"}


def test_two_saved_models_agree_with_their_state_dicts(tmp_path):
    model = build("gpt2").to(torch.bfloat16)
    save(model, tmp_path / "base")
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    save(model, tmp_path / "tuned")
    report = rd.weight_delta_report(tmp_path / "base", tmp_path / "tuned")
    for row in report:
        difference = model.state_dict()[row.name].double() - before[row.name].double()
        same(row, difference.numpy())
        assert row.rank_rtol == 2.0**-7
        assert row.kind in {"Conv1D", "Embedding"}
    live = rd.weight_delta_report(before, model)
    assert live.aliases == {"lm_head.weight": "transformer.wte.weight"}


@pytest.mark.parametrize("prefix", ["_orig_mod.", "module.", "module._orig_mod.", "base_model.model."])
def test_wrappers_are_looked_through(prefix):
    base = {"a.weight": torch.randn(5, 4), "b.0.weight": torch.randn(4, 4)}
    tuned = {prefix + name: tensor + 1.0 for name, tensor in base.items()}
    for first, second in ((base, tuned), (tuned, base)):
        report = rd.weight_delta_report(first, second)
        assert [row.status for row in report] == ["changed", "changed"]
        assert report.rows[0].numerical_rank == 1


@pytest.mark.parametrize("wrapper", ["compile", "DataParallel"])
def test_real_wrappers(wrapper):
    model = torch.nn.Sequential(torch.nn.Linear(4, 5), torch.nn.Linear(5, 3))
    base = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    wrapped = torch.compile(model, backend="eager") if wrapper == "compile" else torch.nn.DataParallel(model)
    report = rd.weight_delta_report(base, wrapped)
    assert [row.status for row in report] == ["identical", "identical"]
    assert len(rd.weight_report(wrapped)) == 2


def test_a_head_on_top_of_the_bare_model():
    bare = {f"h.{i}.weight": torch.randn(5, 4) for i in range(4)}
    headed = {f"transformer.{name}": tensor + 1.0 for name, tensor in bare.items()} | {"score.weight": torch.ones(2, 4)}
    report = rd.weight_delta_report(bare, headed)
    assert [row.status for row in report] == ["changed"] * 4 + ["only in tuned"]
    assert report.meta.details["names"] == "base = -transformer. tuned"
    back = rd.weight_delta_report(headed, bare)
    assert [row.status for row in back] == ["changed"] * 4 + ["only in base"]


def test_parts_are_compared_part_by_part():
    base = torch.nn.LSTM(5, 4)
    before = {name: tensor.clone() for name, tensor in base.state_dict().items()}
    with torch.no_grad():
        base.weight_ih_l0[8:12] += 1.0
    report = rd.weight_delta_report(before, base)
    assert {row.name: row.status for row in report if "ih" in row.name} == {
        "weight_ih_l0[i]": "identical",
        "weight_ih_l0[f]": "identical",
        "weight_ih_l0[g]": "changed",
        "weight_ih_l0[o]": "identical",
    }
    stack = torch.randn(3, 6, 5)
    moved = stack.clone()
    moved[1] += 1.0
    experts = rd.weight_delta_report({"experts.w": stack}, {"experts.w": moved}, max_bytes=8 * 30)
    assert [row.status for row in experts] == ["identical", "changed", "identical"]


def test_tied_weights_count_once():
    embed = torch.randn(6, 4)
    base = {"embed.weight": embed, "head.weight": embed}
    changed = embed + 1.0
    report = rd.weight_delta_report(base, {"embed.weight": changed, "head.weight": changed})
    assert [row.name for row in report] == ["embed.weight"]
    assert report.aliases == {"head.weight": "embed.weight"}
    untied = rd.weight_delta_report(base, {"embed.weight": changed, "head.weight": embed.clone()})
    assert {row.name: row.status for row in untied} == {"embed.weight": "changed", "head.weight": "identical"}


def test_non_finite_updates_are_findings_and_the_rest_goes_on():
    base = {"a.weight": torch.randn(6, 5), "b.weight": torch.randn(6, 5)}
    tuned = {name: tensor.clone() for name, tensor in base.items()}
    tuned["a.weight"][2, 3] = math.inf
    tuned["b.weight"] += 1.0
    for max_bytes in (1 << 27, 80):
        report = rd.weight_delta_report(base, tuned, max_bytes=max_bytes)
        assert report.verdict == "alert"
        assert report.findings[0].sentence == "a.weight: 1 of 30 entries are NaN or infinite"
        assert report.row("a.weight").effective_rank is None
        assert "non-finite" in report.row("a.weight").remark
        assert report.row("b.weight").numerical_rank == 1


def test_scales_beside_quantised_values_are_not_denied(tmp_path):
    save_file(
        {
            "a.weight": torch.ones(4, 4).to(torch.float8_e4m3fn),
            "a.weight_scale_inv": torch.ones(1, 1),
            "b.qweight": torch.ones(4, 4, dtype=torch.int32),
            "b.scales": torch.ones(2, 4),
            "c.weight": torch.ones(4, 4, dtype=torch.int8),
            "norm.num_batches_tracked": torch.tensor([[1, 2], [3, 4]]),
            "norm.scale": torch.ones(2, 2),
        },
        tmp_path / "model.safetensors",
    )
    skipped = rd.weight_report(tmp_path).skipped
    assert skipped["a.weight"] == "quantised values: the scales in a.weight_scale_inv are not applied"
    assert skipped["b.qweight"] == "quantised values: the scales in b.scales are not applied"
    assert "without scales" in skipped["c.weight"]
    assert "without scales" in skipped["norm.num_batches_tracked"]
    (row,) = rd.weight_delta_report(tmp_path, {"a.weight": torch.ones(4, 4)}, select=r"^a\.weight$").rows
    assert "base not readable: quantised values: the scales in a.weight_scale_inv are not applied" in row.remark


def test_unreadable_partners_are_said(tmp_path):
    save_file({"a.weight": torch.ones(4, 4).to(torch.float8_e4m3fn)}, tmp_path / "base.safetensors")
    (row,) = rd.weight_delta_report(tmp_path / "base.safetensors", {"a.weight": torch.ones(4, 4)}).rows
    assert "base not readable: float8 without scales" in row.remark
    report = rd.weight_delta_report({"a.weight": torch.ones(4, 4)}, tmp_path / "base.safetensors")
    assert not report.rows
    assert report.skipped == {"a.weight": "float8 without scales"}
    assert report.explanation.startswith("No update to report: float8 without scales")


def test_threads_change_nothing():
    base = {f"layers.{i}.weight": torch.randn(12, 9) for i in range(6)}
    tuned = {name: tensor + 0.1 * torch.randn(12, 9) for name, tensor in base.items()}
    first, second = rd.weight_delta_report(base, tuned), rd.weight_delta_report(base, tuned, n_jobs=3)
    for column in first.columns:
        if column.name != "seconds":
            assert first.column(column.name) == second.column(column.name)


def test_selection_and_options_reach_both_sides():
    base = {"a.weight": torch.randn(6, 5), "b.weight": torch.randn(6, 5), "gone.weight": torch.randn(2, 2)}
    tuned = {name: tensor + 1 for name, tensor in base.items() if name != "gone.weight"}
    report = rd.weight_delta_report(base, tuned, select="^a")
    assert [row.name for row in report] == ["a.weight"]
    assert report.skipped == {"b.weight": "not selected", "gone.weight": "not selected"}
    with pytest.raises(ValueError, match="`select` must match a tensor"):
        rd.weight_delta_report(base, tuned, select="nothing")


def test_documents_and_round_trip():
    base = {"a.weight": torch.randn(40, 30), "b.weight": torch.randn(40, 30), "c.bias": torch.zeros(3)}
    tuned = {"a.weight": base["a.weight"] + 1.0, "b.weight": base["b.weight"], "c.bias": torch.zeros(3)}
    report = rd.weight_delta_report(base, tuned)
    again = rd.result_from_json(report.to_json())
    assert again == report
    text = report.summary(width=200)
    assert "1 of 2 compared matrices are the same on both sides" in text
    assert "1 update is low rank" in text
    document = report.document()
    assert [plot.title for plot in document.plots][:2] == ["Size of each update", "Effective rank of each update"]
    assert report.flag(["rank_above_rounding > 0"])[0].name == "a.weight"
    with pytest.raises(ValueError, match="bias/norm"):
        report.row("c.bias")
