"""Low-rank adapters that peft saved, against the difference that its own merge makes."""

from __future__ import annotations

import json
import math
import warnings

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

import rankdiag as rd
from oracles.model_zoo import build, save
from oracles.weight_cells import cells

SUMS = ("stable_rank", "effective_rank", "erank_energy", "participation", "spectral", "fro", "nuclear")


@pytest.fixture(autouse=True)
def _seeded_torch():
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        yield


def same(row, matrix, rel=1e-5):
    truth = cells(matrix)
    for name in SUMS:
        assert getattr(row, name) == pytest.approx(truth[name], rel=rel, abs=1e-12), (row.name, name)


def wrap(model, config):
    import peft

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # peft uses names that transformers gives up, and speaks of merging
        return peft.get_peft_model(model, config)


def adapted(name, folder, **options):
    """Adapt a model, fill both factors with numbers, save base and adapter; return the live model and the folders."""
    import peft

    model = build(name)
    save(model, folder / "base")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # peft speaks of saving embeddings and of groups; neither matters here
        live = wrap(model, peft.LoraConfig(**options))
        with torch.no_grad():
            for path, parameter in live.named_parameters():
                if "lora_" in path and "magnitude" not in path:
                    parameter.normal_()
                if "magnitude" in path:
                    parameter.mul_(1.0 + 0.5 * torch.rand_like(parameter))
        live.save_pretrained(folder / "adapter")
    return live, folder / "base", folder / "adapter"


def update_of(live, path):
    """Return what peft itself adds to the weight of a module, as (out, in)."""
    with torch.no_grad(), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        delta = live.get_submodule(path).get_delta_weight("default")
    delta = delta.double().numpy()
    return delta.reshape(delta.shape[0], -1)


CASES = {
    "plain": ("llama", {"r": 4, "lora_alpha": 7, "target_modules": ["q_proj", "down_proj"]}),
    "rank stabilised": ("llama", {"r": 4, "lora_alpha": 7, "target_modules": ["q_proj"], "use_rslora": True}),
    "patterns": (
        "llama",
        {
            "r": 4,
            "lora_alpha": 7,
            "target_modules": ["q_proj", "v_proj", "o_proj"],
            "rank_pattern": {"v_proj": 2, "^model.layers.0.self_attn.o_proj": 3},
            "alpha_pattern": {"v_proj": 5, "self_attn.o_proj": 11},
        },
    ),
    "Conv1D": ("gpt2", {"r": 3, "target_modules": ["c_attn"], "fan_in_fan_out": True}),
    "convolution": ("convnext", {"r": 2, "target_modules": ["pwconv1", "downsampling_layer.1"]}),
    "grouped convolution": ("convnext", {"r": 8, "target_modules": ["encoder.stages.0.layers.0.dwconv"]}),
    "embedding": ("llama", {"r": 4, "lora_alpha": 7, "target_modules": ["embed_tokens", "q_proj"]}),
}


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("where", ["disk", "live"])
def test_updates_are_those_that_peft_merges(tmp_path, case, where):
    name, options = CASES[case]
    live, _, folder = adapted(name, tmp_path, **options)
    report = rd.weight_report(folder if where == "disk" else live)
    updates = [row for row in report if row.kind == "LoRA update"]
    assert updates
    for row in updates:
        path = row.name.removesuffix(".lora").removesuffix(".lora_embedding")
        truth = _grouped(live, path) if case == "grouped convolution" else update_of(live, path)
        same(row, truth)
        assert row.n == min(truth.shape)
        assert row.method == "values"
        assert row.parameters < truth.size or min(truth.shape) < 9
        assert len(row.tensors) == 2


def _grouped(live, path):
    """What a grouped adapter does to one-hot patches; peft has no merge for it."""
    module = live.get_submodule(path)
    down, up = module.lora_A["default"].weight.double(), module.lora_B["default"]
    eye = torch.eye(down[0].numel(), dtype=torch.float64).reshape(-1, *down.shape[1:])
    with torch.no_grad():
        middle = torch.nn.functional.conv2d(eye, down)
        out = torch.nn.functional.conv2d(middle, up.weight.double(), groups=up.groups)
    return module.scaling["default"] * out.reshape(len(eye), -1).T.numpy()


def test_experts_with_stacked_factors(tmp_path):
    live, _, folder = adapted(
        "mixtral", tmp_path, r=2, lora_alpha=7, target_modules=[], target_parameters=["mlp.experts.gate_up_proj"]
    )
    path = "base_model.model.model.layers.0.mlp.experts"
    with torch.no_grad():
        delta = live.get_submodule(path).get_delta_weight("default").double().numpy()
    for report in (rd.weight_report(folder), rd.weight_report(live)):
        for index, matrix in enumerate(delta):
            row = report.row(f"{path}.lora[{index}]")
            same(row, matrix)
            assert row.numerical_rank == 2


def test_multihead_attention_adapter(tmp_path):
    import peft

    class Attention(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.attn = torch.nn.MultiheadAttention(8, 2)

    model = Attention()
    base = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    live = wrap(model, peft.LoraConfig(r=2, target_modules=["attn"]))
    with torch.no_grad():
        for path, parameter in live.named_parameters():
            if "lora_" in path:
                parameter.normal_()
    live.save_pretrained(tmp_path)
    module = live.base_model.model.attn
    truth = 4.0 * (module.lora_B["default"].weight @ module.lora_A["default"].weight).detach().double().numpy()
    same(rd.weight_report(tmp_path).row("base_model.model.attn.lora"), truth)
    row = rd.weight_delta_report(base, tmp_path).row("base_model.model.attn.lora")
    assert row.relative_norm == pytest.approx(
        np.linalg.norm(truth) / float(base["attn.in_proj_weight"].norm()), rel=1e-5
    )


def test_factors_are_rows_when_asked_for(tmp_path):
    _, _, folder = adapted("llama", tmp_path, r=4, target_modules=["q_proj"])
    stored = load_file(folder / "adapter_model.safetensors")
    report = rd.weight_report(folder, lora="factors")
    assert [row.name for row in report] == list(stored)
    for name, tensor in stored.items():
        same(report.row(name), tensor.double().numpy())


def test_a_fresh_adapter_is_a_zero_update(tmp_path):
    import peft

    live = wrap(build("llama"), peft.LoraConfig(r=4, target_modules=["q_proj"]))
    live.save_pretrained(tmp_path)
    report = rd.weight_report(tmp_path)
    (row,) = report.rows
    assert (row.effective_rank, row.stable_rank, row.numerical_rank, row.fro) == (0.0, 0.0, 0, 0.0)
    assert row.alpha is None
    assert "10 eigenvalues" in row.nulls["alpha"]
    (finding,) = report.findings
    assert finding.sentence == f"{row.name}: zero update"
    assert report.verdict == "unknown"


def test_two_adapters_in_memory(tmp_path):
    import peft

    live = wrap(build("llama"), peft.LoraConfig(r=4, lora_alpha=2, target_modules=["q_proj"]))
    live.add_adapter("second", peft.LoraConfig(r=2, lora_alpha=6, target_modules=["q_proj"]))
    with torch.no_grad():
        for path, parameter in live.named_parameters():
            if "lora_" in path:
                parameter.normal_()
    path = "base_model.model.model.layers.0.self_attn.q_proj"
    report = rd.weight_report(live)
    with torch.no_grad():
        for adapter, suffix in (("default", ""), ("second", "[second]")):
            delta = live.get_submodule(path).get_delta_weight(adapter).double().numpy()
            same(report.row(f"{path}.lora{suffix}"), delta)


def test_saved_modules_and_token_rows(tmp_path):
    live, base, folder = adapted(
        "phi3", tmp_path, r=2, target_modules=["qkv_proj"], modules_to_save=["lm_head"], trainable_token_indices=[1, 3]
    )
    report = rd.weight_report(folder)
    head = live.base_model.model.lm_head.modules_to_save["default"].weight.detach().double().numpy()
    same(report.row("base_model.model.lm_head.weight"), head)
    assert report.row("base_model.model.lm_head.weight").kind == "Linear"
    delta = rd.weight_delta_report(base, folder)
    assert delta.row("base_model.model.lm_head.weight").status == "identical"
    tokens = report.row("base_model.model.model.embed_tokens.token_adapter.trainable_tokens_delta")
    assert (tokens.kind, tokens.shape) == ("token rows", (2, 16))


def test_unknown_scaling_is_said(tmp_path):
    live, _, folder = adapted("llama", tmp_path, r=4, lora_alpha=8, target_modules=["q_proj"])
    path = "base_model.model.model.layers.0.self_attn.q_proj"
    row = rd.weight_report(load_file(folder / "adapter_model.safetensors")).row(f"{path}.lora")
    assert "scaling unknown" in row.remark
    same(row, update_of(live, path) / 2.0)


def test_a_rank_that_contradicts_the_factors_is_said(tmp_path):
    _, _, folder = adapted("llama", tmp_path, r=4, lora_alpha=8, target_modules=["q_proj"])
    config = json.loads((folder / "adapter_config.json").read_text())
    (folder / "adapter_config.json").write_text(json.dumps(config | {"r": 3}))
    (row,) = rd.weight_report(folder).rows
    assert "the config says r = 3, the factors have 4" in row.remark


def test_factors_that_do_not_multiply_are_skipped_with_the_reason():
    tensors = {"m.lora_A.weight": torch.ones(3, 5), "m.lora_B.weight": torch.ones(4, 2)}
    report = rd.weight_report(tensors)
    assert not report.rows
    assert report.skipped == dict.fromkeys(tensors, "B of shape 4x2 and A of shape 3x5 do not multiply")


def test_a_factor_alone_is_a_matrix():
    report = rd.weight_report({"m.lora_A.weight": torch.randn(3, 5)})
    assert [row.name for row in report] == ["m.lora_A.weight"]


def test_other_adapter_names():
    left, right = torch.randn(6, 2), torch.randn(2, 5)
    report = rd.weight_report({"unet.lora_down.weight": right, "unet.lora_up.weight": left})
    (row,) = report.rows
    same(row, (left @ right).double().numpy())


def test_weight_decomposed_adapters(tmp_path):
    live, base, folder = adapted("llama", tmp_path, r=2, lora_alpha=5, target_modules=["q_proj"], use_dora=True)
    path = "base_model.model.model.layers.0.self_attn.q_proj"
    report = rd.weight_report(folder)
    assert "DoRA" in report.row(f"{path}.lora").remark
    assert report.skipped[f"{path}.lora_magnitude_vector"].startswith("DoRA magnitudes, not a matrix")
    before = load_file(base / "model.safetensors")["model.layers.0.self_attn.q_proj.weight"].double()
    merged = live.merge_and_unload().model.layers[0].self_attn.q_proj.weight.detach().double()
    row = rd.weight_delta_report(base, folder).row(f"{path}.lora")
    same(row, (merged - before).numpy(), rel=1e-4)
    assert row.numerical_rank == 16
    assert "DoRA: the full update" in row.remark
    assert row.relative_norm == pytest.approx(float((merged - before).norm() / before.norm()), rel=1e-4)


def test_delta_of_an_adapter_accounts_for_the_base(tmp_path):
    live, base, folder = adapted("llama", tmp_path, r=2, lora_alpha=5, target_modules=["q_proj", "v_proj"])
    report = rd.weight_delta_report(base, folder)
    stored = load_file(base / "model.safetensors")
    for row in report:
        path = row.name.removesuffix(".lora")
        delta = update_of(live, path)
        same(row, delta)
        weight = stored[path.removeprefix("base_model.model.") + ".weight"]
        assert row.status == "adapter"
        assert row.update == "low rank"
        assert row.base_fro == pytest.approx(float(weight.double().norm()), rel=1e-6)
        assert row.relative_norm == pytest.approx(np.linalg.norm(delta) / float(weight.double().norm()), rel=1e-5)
        assert row.eps_rank_1 <= 2
    used = {tensor for row in report for tensor in row.tensors}
    assert used | set(report.skipped) >= set(stored)
    assert report.skipped["model.embed_tokens.weight"] == "not adapted"


def test_an_adapted_model_in_memory_against_its_base(tmp_path):
    live, base, _ = adapted("llama", tmp_path, r=2, lora_alpha=5, target_modules=["q_proj"])
    report = rd.weight_delta_report(base, live)
    path = "base_model.model.model.layers.0.self_attn.q_proj"
    assert report.row(f"{path}.base_layer.weight").status == "identical"
    row = report.row(f"{path}.lora")
    same(row, update_of(live, path))
    assert row.relative_norm is not None
    assert not any(other.status.startswith("only in") for other in report)


def test_an_adapter_without_its_base_says_so(tmp_path):
    _, _, folder = adapted("llama", tmp_path, r=2, target_modules=["q_proj"])
    report = rd.weight_delta_report({"something.else.weight": torch.eye(3)}, folder)
    (row,) = [row for row in report if row.status == "adapter"]
    assert row.relative_norm is None
    assert "no relative norm" in row.remark
    assert row.effective_rank > 0


def test_other_kinds_of_adapters_are_read_as_they_are_stored(tmp_path):
    import peft

    live = wrap(build("llama"), peft.LoHaConfig(r=4, target_modules=["q_proj"]))
    live.save_pretrained(tmp_path)
    report = rd.weight_report(tmp_path)
    assert len(report) == 4
    assert all(row.kind == "parameter" for row in report)


def test_bad_numbers_in_a_factor_are_a_finding(tmp_path):
    factors = {"m.lora_A.weight": torch.ones(2, 5), "m.lora_B.weight": torch.full((4, 2), math.nan)}
    save_file(factors, tmp_path / "model.safetensors")
    report = rd.weight_report(tmp_path)
    assert report.verdict == "alert"
    assert report.findings[0].sentence == "m.lora: 8 of 18 entries are NaN or infinite"
