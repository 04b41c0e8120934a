"""Every kind of layer, from saved models of transformers, against what the module does to one-hot inputs."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

import rankdiag as rd
from oracles.model_zoo import (
    NAMES,
    build,
    one_hot_attention,
    one_hot_convolution,
    one_hot_embedding,
    one_hot_linear,
    save,
)
from oracles.weight_cells import cells, pad
from rankdiag.weights import conv_spectrum

SUMS = ("stable_rank", "effective_rank", "erank_energy", "participation", "spectral", "fro", "nuclear")


@pytest.fixture(scope="module")
def zoo(tmp_path_factory):
    """Models, the reports of their saved checkpoints and of the modules themselves, each made once."""
    folder, made = tmp_path_factory.mktemp("zoo"), {}

    def get(name):
        if name not in made:
            model = build(name)
            save(model, folder / name)
            made[name] = model, rd.weight_report(folder / name), rd.weight_report(model)
        return made[name]

    return get


@pytest.fixture(autouse=True)
def _seeded_torch():
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        yield


def layer(kind, *args, **options):
    """Delay the making of a layer until the seed is set; its text is the name of the test."""

    def make():
        return getattr(torch.nn, kind)(*args, **options)

    return pytest.param(make, id=f"{kind}{args}{options or ''}")


def same(row, matrix):
    """A row has the sums of a dense matrix; zero columns and their order do not matter."""
    truth = cells(matrix)
    for name in SUMS:
        assert getattr(row, name) == pytest.approx(truth[name], rel=1e-5), (row.name, name)


def path_of(model, module):
    return next(path for path, other in model.named_modules() if other is module)


@pytest.mark.parametrize("name", ["bert", "gpt2", "llama", "t5", "mamba"])
def test_linear_layers_and_embeddings(zoo, name):
    model, disk, live = zoo(name)
    seen = set()
    for path, module in model.named_modules():
        kind = type(module).__name__
        if kind not in {"Linear", "Conv1D", "Embedding"} or f"{path}.weight" in live.aliases:
            continue
        dense = one_hot_embedding(module) if kind == "Embedding" else one_hot_linear(module)
        row = live.row(f"{path}.weight")
        assert row.kind == kind
        same(row, dense)
        if f"{path}.weight" in {row.name for row in disk}:
            same(disk.row(f"{path}.weight"), dense)
            assert disk.row(f"{path}.weight").kind == kind
            seen.add(kind)
    assert "Embedding" in seen
    assert ("Conv1D" if name == "gpt2" else "Linear") in seen


@pytest.mark.parametrize("name", ["vit", "convnext", "video", "mamba"])
def test_convolutions_of_models(zoo, name):
    model, disk, live = zoo(name)
    found = 0
    for path, module in model.named_modules():
        if not type(module).__name__.startswith("Conv") or path.startswith("encoder.layer"):
            continue
        if not isinstance(module, (torch.nn.Conv1d, torch.nn.Conv2d, torch.nn.Conv3d)):
            continue
        found += 1
        dense = one_hot_convolution(module)
        row = live.row(f"{path}.weight")
        assert row.kind == type(module).__name__
        assert row.n == min(dense.shape)
        same(row, dense)
        on_disk = disk.row(f"{path}.weight")
        assert on_disk.kind == row.kind
        if module.groups == 1 or "dwconv" in path:
            same(on_disk, dense)
        else:
            assert "groups are not stored and were taken as 1" in on_disk.matricization
    assert found


@pytest.mark.parametrize(
    "make",
    [
        layer("Conv1d", 6, 4, 3),
        layer("Conv2d", 3, 5, (2, 3)),
        layer("Conv3d", 2, 4, (2, 1, 2)),
        layer("Conv2d", 6, 4, 3, groups=2),
        layer("Conv1d", 6, 6, 5, groups=6),
        layer("ConvTranspose1d", 3, 5, 4),
        layer("ConvTranspose2d", 4, 3, (3, 2)),
        layer("ConvTranspose3d", 2, 3, 2),
        layer("ConvTranspose2d", 4, 6, 2, groups=2),
    ],
)
def test_every_convolution_of_torch(make):
    module = make()
    row = rd.weight_report(torch.nn.Sequential(module)).row("0.weight")
    dense = one_hot_convolution(module)
    assert row.kind == type(module).__name__
    assert row.n == min(dense.shape)
    same(row, dense)
    assert ("groups" in row.matricization) == (module.groups > 1)


@pytest.mark.parametrize("make", [layer("ConvTranspose1d", 3, 5, 4), layer("ConvTranspose2d", 4, 3, (3, 2))])
def test_a_transposed_convolution_is_known_by_its_bias(make):
    module = make()
    state = {f"up.{name}": tensor for name, tensor in module.state_dict().items()}
    row = rd.weight_report(state).row("up.weight")
    assert row.kind == type(module).__name__
    assert row.matricization.startswith("in x (out*")
    same(row, one_hot_convolution(module))


@pytest.mark.parametrize("groups", [1, 2])
def test_other_readings_of_convolutions(groups):
    module = torch.nn.Conv2d(4, 6, 3, groups=groups)
    weight = module.weight.detach().numpy()
    for mode, size in (("slices", None), ("fft", (5, 6))):
        row = rd.weight_report(torch.nn.Sequential(module), conv=mode, input_size=size).row("0.weight")
        values = conv_spectrum(weight, mode=mode, input_size=size, groups=groups).values
        assert row.n == values.size
        assert row.nuclear == pytest.approx(values.sum(), rel=1e-9)
        assert row.effective_rank == pytest.approx(cells(np.diag(values))["effective_rank"], rel=1e-9)
        assert 0.8 < row.effective_rank_over_baseline < 1.2
    dense = np.zeros((6, 4, 3, 3))
    for g in range(groups):
        out, inner = slice(g * 6 // groups, (g + 1) * 6 // groups), slice(g * 4 // groups, (g + 1) * 4 // groups)
        dense[out, inner] = weight[out]
    slices = np.concatenate([np.linalg.svd(dense[:, :, i, j], compute_uv=False) for i in range(3) for j in range(3)])
    row = rd.weight_report(torch.nn.Sequential(module), conv="slices").row("0.weight")
    assert row.fro == pytest.approx(np.linalg.norm(slices))
    assert row.nuclear == pytest.approx(slices.sum())


def test_the_operator_of_a_kernel_without_two_axes_is_refused_by_row():
    row = rd.weight_report(torch.nn.Sequential(torch.nn.Conv1d(3, 4, 5)), conv="fft", input_size=(4, 4)).row("0.weight")
    assert "needs two spatial axes" in row.remark
    assert row.n == 4


# --- gates of recurrent layers ---------------------------------------------------------------------------------


def lstm_jacobian(module, gate):
    """Derivative of one LSTM step by its input where every gate but one is pinned."""
    size = module.hidden_size
    bias = torch.zeros(4, size, dtype=torch.float64)
    c0 = torch.zeros(size, dtype=torch.float64)
    pins = {"i": {2: 40.0}, "f": {0: -40.0}, "g": {}, "o": {0: -40.0, 1: 40.0}}[gate]
    for index, value in pins.items():
        bias[index] = value
    if gate in "fo":
        c0 += 1.0 if gate == "f" else 40.0

    def step(x):
        i, f, g, o = ((module.weight_ih_l0.double() @ x).reshape(4, size) + bias).unbind()
        c = torch.sigmoid(f) * c0 + torch.sigmoid(i) * torch.tanh(g)
        return torch.sigmoid(o) * torch.tanh(c) if gate == "o" else c

    zero = torch.zeros(module.input_size, dtype=torch.float64)
    scale = {"i": 0.25, "f": 0.25, "g": 0.5, "o": 0.25}[gate]
    return (torch.func.jacrev(step)(zero) / scale).detach().numpy()


def test_the_pinned_lstm_step_is_that_of_torch():
    cell = torch.nn.LSTM(5, 3, bias=False).double()
    x = torch.randn(1, 1, 5, dtype=torch.float64)
    _, (h, _) = cell(x)
    i, _, g, o = (cell.weight_ih_l0 @ x.flatten()).reshape(4, 3).unbind()
    assert torch.allclose(h.flatten(), torch.sigmoid(o) * torch.tanh(torch.sigmoid(i) * torch.tanh(g)))


def test_lstm_gates_of_a_saved_model(zoo):
    model, disk, live = zoo("encodec")
    path, module = next((p, m) for p, m in model.named_modules() if isinstance(m, torch.nn.LSTM))
    for report in (disk, live):
        for gate in "ifgo":
            row = report.row(f"{path}.weight_ih_l0[{gate}]")
            assert row.kind == "LSTM"
            same(row, lstm_jacobian(module, gate))
        for index, gate in enumerate("ifgo"):
            hidden = module.weight_hh_l1.detach().double().chunk(4)[index].numpy()
            same(report.row(f"{path}.weight_hh_l1[{gate}]"), hidden)


@pytest.mark.parametrize(
    "make",
    [
        layer("LSTM", 5, 4, num_layers=2, bidirectional=True),
        layer("LSTM", 5, 4, proj_size=3),
        layer("GRU", 5, 4),
        layer("RNN", 5, 4),
        layer("LSTMCell", 5, 4),
        layer("GRUCell", 5, 4),
    ],
)
@pytest.mark.parametrize("where", ["module", "disk"])
def test_packed_gates_are_split(make, where, tmp_path):
    module = make()
    gates = {"LSTM": "ifgo", "GRU": "rzn", "RNN": ""}[type(module).__name__.removesuffix("Cell")]
    model = torch.nn.Sequential(module)
    source = model
    if where == "disk":
        save_file(model.state_dict(), tmp_path / "model.safetensors")
        source = tmp_path
    report = rd.weight_report(source)
    for name, parameter in model.named_parameters():
        if parameter.ndim < 2:
            continue
        if not gates or "weight_hr" in name:
            same(report.row(name), parameter.detach().double().numpy())
            continue
        for gate, part in zip(gates, parameter.detach().double().chunk(len(gates)), strict=True):
            row = report.row(f"{name}[{gate}]")
            assert row.kind == {"ifgo": "LSTM", "rzn": "GRU"}[gates]
            assert row.tensors == (name,)
            same(row, part.numpy())


def test_gru_candidate_gate_is_the_last_one():
    module = torch.nn.GRU(5, 3, bias=False).double()

    def step(x):
        return module(x.reshape(1, 1, 5))[1].flatten()

    # At rest h' = (1 - z) n with z = 1/2 and n = tanh(W_n x).
    jacobian = torch.func.jacrev(step)(torch.zeros(5, dtype=torch.float64)).detach().numpy() / 0.5
    same(rd.weight_report(module).row("weight_ih_l0[n]"), jacobian)


# --- fused projections -----------------------------------------------------------------------------------------

FUSED = {
    "gpt2": ("transformer.h.0.attn.c_attn", ""),
    "imagegpt": ("h.0.attn.c_attn", ""),
    "gpt_neox": ("gpt_neox.layers.0.attention.query_key_value", ""),
    "gpt_bigcode": ("transformer.h.0.attn.c_attn", ""),
    "gpt_bigcode_heads": ("transformer.h.0.attn.c_attn", ""),
    "phi3": ("model.layers.0.self_attn.qkv_proj", ""),
    "falcon_mq": ("transformer.h.0.self_attention.query_key_value", "_split_heads"),
    "falcon_new": ("transformer.h.0.self_attention.query_key_value", "_split_heads"),
    "falcon_rw": ("transformer.h.0.self_attention.query_key_value", "_split_heads"),
    "bloom": ("transformer.h.0.self_attention.query_key_value", "_reshape"),
    "codegen": ("transformer.h.0.attn.qkv_proj", "_attn"),
    "persimmon": ("model.layers.0.self_attn.query_key_value", "_split_heads"),
    "modernbert": ("layers.0.attn.Wqkv", ""),
}


@pytest.mark.parametrize("name", FUSED)
def test_fused_projections_are_cut_where_the_model_cuts_them(zoo, tmp_path, name):
    path, method = FUSED[name]
    model, whole, _ = zoo(name)
    fused = model.get_submodule(path)
    truth = one_hot_attention(model, fused, method)
    assert whole.row(f"{path}.weight").n == min(fused.weight.shape)
    save(model, tmp_path)
    for source in (tmp_path, model):
        report = rd.weight_report(source, pairs="config", select=r"attn|attention")
        for part, matrix in truth.items():
            # Keys and values that several queries share were repeated by the model: each counts once.
            heads = np.unique(np.round(matrix.double().numpy(), 5), axis=1) if part != "q" else matrix.double().numpy()
            row = report.row(f"{path}.weight[{part}]")
            dense = heads.reshape(len(heads), -1)
            assert row.n == min(dense.shape)
            assert row.tensors == (f"{path}.weight",)
            same(row, dense)


@pytest.mark.parametrize(
    ("name", "path"), [("mpt", "transformer.blocks.0.attn.Wqkv"), ("deberta", "encoder.layer.0.attention.self.in_proj")]
)
def test_fused_projections_that_the_forward_pass_cuts_itself(zoo, name, path):
    model, _, _ = zoo(name)
    weight = model.get_submodule(path).weight.detach().double()
    # MPT cuts the axis in three; DeBERTa cuts every head in three.
    parts = weight.chunk(3) if name == "mpt" else weight.reshape(4, 3, 4, 16).transpose(0, 1).reshape(3, 16, 16)
    report = rd.weight_report(model, pairs="config")
    for part, matrix in zip("qkv", parts, strict=True):
        same(report.row(f"{path}.weight[{part}]"), matrix.numpy())


def test_gate_and_up_projections_are_cut_too(zoo):
    model, _, _ = zoo("phi3")
    path = "model.layers.0.mlp.gate_up_proj"
    gate, up = model.get_submodule(path).weight.detach().double().chunk(2)
    report = rd.weight_report(model, pairs="config")
    same(report.row(f"{path}.weight[gate]"), gate.numpy())
    same(report.row(f"{path}.weight[up]"), up.numpy())


def test_multihead_attention_is_cut_into_its_three_projections(tmp_path):
    module = torch.nn.MultiheadAttention(8, 2)
    state = {f"attn.{name}": tensor for name, tensor in module.state_dict().items()}
    save_file(state, tmp_path / "model.safetensors")
    for source, prefix in ((tmp_path, "attn."), (module, "")):
        whole = rd.weight_report(source)
        assert whole.row(f"{prefix}in_proj_weight").kind == "MultiheadAttention"
        same(whole.row(f"{prefix}in_proj_weight"), module.in_proj_weight.detach().double().numpy())
        report = rd.weight_report(source, pairs="config")
        for part, matrix in zip("qkv", module.in_proj_weight.detach().double().chunk(3), strict=True):
            same(report.row(f"{prefix}in_proj_weight[{part}]"), matrix.numpy())
    # One token attends to itself alone, so the output is the value projection: the third part is the one named v.
    with torch.no_grad():
        module.in_proj_bias.zero_()
        module.out_proj.weight.copy_(torch.eye(8))
        module.out_proj.bias.zero_()
        eye = torch.eye(8).unsqueeze(0)
        values = module(eye, eye, eye)[0].squeeze(0).double().numpy()
    same(rd.weight_report(module, pairs="config").row("in_proj_weight[v]"), values)


def test_layouts_of_the_users_own():
    rng = np.random.default_rng(0)
    weight = rng.standard_normal((12, 5))
    report = rd.weight_report({"x.weight": weight}, pairs=[("a", 1), ("b", 2)])
    same(report.row("x.weight[a]"), weight[::3])
    same(report.row("x.weight[b]"), weight[[1, 2, 4, 5, 7, 8, 10, 11]])
    assert report.row("x.weight[b]").shape == (8, 5)
    named = rd.weight_report({"x.weight": weight, "y.weight": weight + 1}, pairs={"^x": [("a", 4), ("b", 8)]})
    same(named.row("x.weight[a]"), weight[:4])
    same(named.row("y.weight"), weight + 1)


def test_interleaved_parts_stream_like_the_others():
    weight = np.random.default_rng(1).standard_normal((36, 7))
    layout = [("q", 2), ("k", 1)]
    for matrix, axis in ((weight, 0), (weight[:12], 0)):
        whole = rd.weight_report({"x.weight": matrix}, pairs=layout)
        blocks = rd.weight_report({"x.weight": matrix}, pairs=layout, max_bytes=8 * 7)
        for first, second in zip(whole, blocks, strict=True):
            assert first.effective_rank == pytest.approx(second.effective_rank, rel=1e-7), axis
            assert first.fro == pytest.approx(second.fro, rel=1e-12)


def test_a_layout_that_cannot_be_known_is_said(zoo):
    weight = np.random.default_rng(2).standard_normal((24, 8))
    row = rd.weight_report({"blocks.0.attn.qkv_proj.weight": weight}, pairs="config").rows[0]
    assert row.name == "blocks.0.attn.qkv_proj.weight"
    assert "do not say how its rows are laid out" in row.remark


# --- stacks, weight normalisation, positions, ties ---------------------------------------------------------------


@pytest.mark.parametrize("name", ["mixtral", "qwen3_moe", "gpt_oss"])
def test_experts_are_matrices_of_their_own(zoo, name):
    model, disk, live = zoo(name)
    path, experts = next((p, m) for p, m in model.named_modules() if p.endswith("experts"))
    for parameter in ("gate_up_proj", "down_proj"):
        stack = getattr(experts, parameter).detach().double()
        for index, matrix in enumerate(stack):
            row = live.row(f"{path}.{parameter}[{index}]")
            assert row.kind == "expert"
            assert row.shape == tuple(matrix.shape)
            same(row, matrix.numpy())
            if name == "gpt_oss":  # the others are saved expert by expert
                same(disk.row(f"{path}.{parameter}[{index}]"), matrix.numpy())
    if name != "gpt_oss":
        rows = [row for row in disk if ".experts." in row.name]
        assert len(rows) == 9
        down = [row for row in rows if ".w2." in row.name or ".down_proj." in row.name]
        for row, matrix in zip(down, experts.down_proj.detach().double(), strict=True):
            same(row, matrix.numpy())


def test_large_stacks_are_read_entry_by_entry():
    stack = np.random.default_rng(3).standard_normal((5, 6, 4))
    whole = rd.weight_report({"mlp.experts.up": stack})
    blocks = rd.weight_report({"mlp.experts.up": stack}, max_bytes=8 * 24)
    for index, (first, second) in enumerate(zip(whole, blocks, strict=True)):
        same(first, stack[index])
        same(second, stack[index])


@pytest.mark.parametrize("where", ["disk", "live"])
def test_weight_normalised_convolutions_are_put_together(zoo, where):
    model, disk, live = zoo("wav2vec2")
    module = model.encoder.pos_conv_embed.conv
    report = disk if where == "disk" else live
    row = report.row("encoder.pos_conv_embed.conv.parametrizations.weight.original1")
    assert row.kind == "weight-normalised"
    if where == "live":
        same(row, one_hot_convolution(module))
    else:
        same(row, module.weight.detach().double().reshape(16, -1).numpy())
        assert "groups are not stored" in row.matricization
    assert "magnitudes" in report.skipped["encoder.pos_conv_embed.conv.parametrizations.weight.original0"]


def test_old_style_weight_norm(tmp_path):
    v = torch.randn(6, 4, dtype=torch.float64)
    g = torch.rand(6, 1, dtype=torch.float64) + 0.5
    weight = g * v / v.norm(dim=1, keepdim=True)
    report = rd.weight_report({"fc.weight_g": g, "fc.weight_v": v, "fc.bias": torch.zeros(6)})
    same(report.row("fc.weight_v"), weight.numpy())
    assert report.row("fc.weight_v").tensors == ("fc.weight_g", "fc.weight_v")
    flat = rd.weight_report({"fc.weight_g": torch.tensor(2.0).reshape(1, 1), "fc.weight_v": v})
    same(flat.row("fc.weight_v"), (2 * v / v.norm()).numpy())


def test_position_embeddings_and_class_tokens(zoo):
    model, disk, live = zoo("vit")
    for report in (disk, live):
        row = report.row("embeddings.position_embeddings")
        assert row.shape == (1, 17, 16)
        same(row, model.embeddings.position_embeddings.detach().double()[0].numpy())
        assert report.skipped["embeddings.cls_token"] == "bias/norm, not a matrix"


def test_tied_weights_count_once(zoo):
    _, disk, live = zoo("llama")
    assert live.aliases == {"lm_head.weight": "model.embed_tokens.weight"}
    assert [row.name for row in live if "embed" in row.name or "lm_head" in row.name] == ["model.embed_tokens.weight"]
    assert len([row for row in disk if "embed" in row.name or "lm_head" in row.name]) == 1


@pytest.mark.parametrize("name", NAMES)
def test_every_tensor_is_accounted_for(zoo, name):
    from rankdiag.checkpoints import open_source

    model, _, live = zoo(name)
    with open_source(model) as source:
        names = {info.name for info in source.tensors}
    used = {tensor for row in live for tensor in row.tensors}
    assert used | set(live.skipped) | set(live.aliases) == names
    assert not set(live.skipped) & {row.name for row in live}
    assert all(live.skipped.values())
    matrices = {key for key, tensor in model.state_dict().items() if tensor.squeeze().ndim > 1 and "bias" not in key}
    matrices -= {key for key in matrices if key in dict(model.named_buffers())}
    assert matrices <= used | set(live.aliases) | {key for key in matrices if "original0" in key}


def test_names_differ_but_the_rows_of_disk_and_module_agree(zoo):
    for name in ("gpt2", "bert", "phi3", "falcon_new"):
        _, disk, live = zoo(name)
        names = {row.name for row in live} & {row.name for row in disk}
        assert len(names) >= len(disk) - 1
        for row in names:
            for column in SUMS:
                assert getattr(disk.row(row), column) == pytest.approx(getattr(live.row(row), column), rel=1e-12)


def test_the_oracle_of_narrow_matrices_pads():
    assert pad([1.0, 2.0], 4).tolist() == [2.0, 1.0, 0.0, 0.0]


# --- what stands beside weights --------------------------------------------------------------------------------


def test_position_grids_are_joined_to_one_table():
    grid = np.random.default_rng(4).standard_normal((1, 5, 4, 3))
    for tensor in (grid, grid[0]):
        row = rd.weight_report({"vision.pos_embed": tensor}).rows[0]
        assert row.kind == "Embedding"
        same(row, grid.reshape(20, 3))


def test_scales_of_quantised_weights_are_no_weights():
    tensors = {
        "fc.weight": torch.ones(8, 8).to(torch.float8_e4m3fn),
        "fc.weight_scale_inv": torch.rand(2, 2),
        "gptq.qweight": torch.ones(4, 4, dtype=torch.int32),
        "gptq.scales": torch.rand(2, 4),
        "mlp.scale": torch.rand(3, 3),
    }
    report = rd.weight_report(tensors)
    assert [row.name for row in report] == ["mlp.scale"]
    assert report.skipped["fc.weight_scale_inv"] == "scales of quantised weights, no weight themselves"
    assert report.skipped["gptq.scales"] == "scales of quantised weights, no weight themselves"
    assert report.skipped["fc.weight"] == "quantised values: the scales in fc.weight_scale_inv are not applied"


@pytest.mark.parametrize("kind", ["orthogonal", "spectral_norm", "pruned"])
def test_parametrised_weights_are_read_as_they_are_stored_and_say_so(kind):
    import torch.nn.utils.prune

    module = torch.nn.Linear(5, 4)
    if kind == "orthogonal":
        torch.nn.utils.parametrizations.orthogonal(module, orthogonal_map="matrix_exp")
        name = "parametrizations.weight.original"
    elif kind == "spectral_norm":
        torch.nn.utils.parametrizations.spectral_norm(module)
        name = "parametrizations.weight.original"
    else:
        torch.nn.utils.prune.l1_unstructured(module, "weight", amount=0.3)
        name = "weight_orig"
    for source in (module, dict(module.state_dict())):
        report = rd.weight_report(source)
        row = report.row(name)
        assert "not the weight that is applied" in row.remark
        same(row, module.state_dict()[name].double().numpy())
    if kind == "pruned":
        assert rd.weight_report(dict(module.state_dict())).skipped["weight_mask"] == "pruning mask, not a weight"


def test_a_bilinear_layer_is_a_stack():
    module = torch.nn.Bilinear(3, 4, 2)
    report = rd.weight_report(torch.nn.Sequential(module))
    for index, matrix in enumerate(module.weight.detach().double()):
        same(report.row(f"0.weight[{index}]"), matrix.numpy())
