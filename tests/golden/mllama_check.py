"""Verifies that the reference is what the goldens claim, and that the files still hold."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import torch
from safetensors.torch import load_file

from mllama_cases import CASES, Case, Inputs, inputs_of
from mllama_generation import worst_generation
from mllama_reference import RewardModel, as_meta, golden_of, read_base, read_model, scale_lora, states
from paligemma_check import REPRODUCED, SAME_MATHS, Checks


def changed(ids: torch.Tensor, at: int) -> torch.Tensor:
    other = ids.clone()
    other[at] = 7 if ids[at] != 7 else 8
    return other


def check_causal(c: Checks, case: Case, model: RewardModel, x: Inputs) -> None:
    """Nothing before a token depends on it, be it of the response or of the prompt."""
    ids = x.responses[0]
    n, whole = len(x.prompt), states(model, x, ids).final
    for k in (0, len(ids) - 1):
        other = states(model, x, changed(ids, k)).final
        c.near(other[: n + k], whole[: n + k], 1e-6, f"{case.name}: token {k} is not seen before itself")
        c.far(other[n + k], whole[n + k], f"{case.name}: token {k} sees itself")
    last = replace(x, prompt=changed(x.prompt, n - 1))
    other = states(model, last, ids).final
    c.near(other[: n - 1], whole[: n - 1], 1e-6, f"{case.name}: the prompt is causal")


def check_vision(c: Checks, case: Case, model: RewardModel, x: Inputs) -> None:
    """Which states of the tower come out, in which order, and what sees the padding."""
    tower = model.model.vision_model
    inputs = []
    hooks = [
        layer.register_forward_pre_hook(lambda _, args, kw: inputs.append(kw.get("hidden_state", (args or [None])[0])), with_kwargs=True)
        for layer in tower.transformer.layers
    ]
    seen = states(model, x, x.responses[0]).seen
    for hook in hooks:
        hook.remove()
    hidden, wanted = case.vision["hidden_size"], model.config.vision_config.intermediate_layers_indices
    rows = seen.reshape(-1, seen.shape[-1])
    for place, depth in enumerate(wanted):
        own = inputs[depth][0].reshape(seen.shape[0], -1, hidden)[:, : seen.shape[1]].reshape(-1, hidden)
        c.near(rows[:, hidden + place :: len(wanted)], own, 0.0, f"{case.name}: state {place} is the input of layer {depth}, interleaved")
    if int(x.ratio_mask.sum()) < x.ratio_mask.numel():
        tiles = x.tiles.clone()
        tiles[0, 0, -1] = 1.0
        other = states(model, replace(x, tiles=tiles), x.responses[0]).seen
        c.far(other[0], seen[0], f"{case.name}: real patches see absent tiles")


def check_rows_without_image(c: Checks, case: Case, model: RewardModel, x: Inputs) -> None:
    """Tokens before the image attend to all tiles, absent ones too; Meta's rule gives something else."""
    if not case.before:
        return
    ids = x.responses[0]
    whole = states(model, x, ids).final
    with as_meta(model, x):
        meta = states(model, x, ids).final
    c.far(meta[: case.before], whole[: case.before], f"{case.name}: rows before the image differ from Meta's")
    c.far(meta[len(x.prompt) :], whole[len(x.prompt) :], f"{case.name}: that reaches the response")


def check_files(c: Checks, case: Case, folder: Path) -> None:
    stored, now = load_file(folder / "golden.safetensors"), golden_of(case, folder)
    sdpa = golden_of(case, folder, "sdpa")
    c.holds(stored.keys() == now.keys(), f"{case.name}: golden.safetensors has other keys")
    for key in stored.keys() & now.keys():
        c.near(stored[key].float(), now[key].float(), REPRODUCED, f"{case.name}: {key} is reproduced")
        c.near(stored[key].float(), sdpa[key].float(), SAME_MATHS, f"{case.name}: {key} by another kernel")
    for key, value in stored.items():
        if key.startswith("hidden."):
            rms = value.pow(2).mean().sqrt().item()
            c.holds(rms > 0.3, f"{case.name}: {key} is far from zero ({rms:.3g})")


def check_generation(c: Checks, case: Case, folder: Path) -> None:
    """The same tokens are written, as likely as they were."""
    worst = worst_generation(case, folder)
    c.holds(worst <= SAME_MATHS, f"{case.name}: what is written is reproduced ({worst:.3g})")


def check_adapter(c: Checks, case: Case, folder: Path) -> None:
    """The adapter matters, tau 0 is the base model with the adapter's head, tau 1 is the adapter."""
    x = inputs_of(case)
    ids = x.responses[0]
    model, peft_model = read_model(folder)
    adapted = states(model, x, ids)
    base = states(read_base(folder), x, ids)
    c.far(adapted.final, base.final, f"{case.name}: the adapter changes the decoder")
    c.far(adapted.projected, base.projected, f"{case.name}: the adapter changes the projector")
    c.near(adapted.seen, base.seen, 0.0, f"{case.name}: the adapter leaves the vision tower alone")
    scale_lora(peft_model, 0.0)
    c.near(states(model, x, ids).final, base.final, 1e-6, f"{case.name}: tau 0 is the base")
    golden = load_file(folder / "golden.safetensors")
    c.far(golden["logits.0"], golden["logits_tau.0"], f"{case.name}: tau matters")


def check_rotary(c: Checks) -> None:
    """Some angles stay, some are divided by the factor, and one lies between."""
    kinds = set()
    for case in CASES:
        rope = case.text["rope_scaling"]
        if rope["rope_type"] != "llama3":
            continue
        dim = case.text["hidden_size"] // case.text["num_attention_heads"]
        theta, old = case.text.get("rope_theta", 500000.0), rope["original_max_position_embeddings"]
        for i in range(dim // 2):
            wave = 2 * torch.pi * theta ** (2 * i / dim)
            low, high = old / rope["low_freq_factor"], old / rope["high_freq_factor"]
            kinds.add("kept" if wave < high else "divided" if wave > low else "between")
    c.holds(kinds == {"kept", "divided", "between"}, f"rotary bands: {kinds}")


def check(root: Path) -> int:
    c = Checks()
    check_rotary(c)
    for case in CASES:
        folder = root / case.name
        model, x = read_model(folder)[0], inputs_of(case)
        check_causal(c, case, model, x)
        check_vision(c, case, model, x)
        check_rows_without_image(c, case, model, x)
        check_files(c, case, folder)
        check_generation(c, case, folder)
        if case.adapter is not None:
            check_adapter(c, case, folder)
        print(f"checked {case.name}")
    print("all hold" if c.failed == 0 else f"{c.failed} failed")
    return min(c.failed, 1)
