"""Verifies that the reference is what the goldens claim, and that the files still hold."""

from __future__ import annotations

from pathlib import Path

import torch
from safetensors.torch import load_file
from torch import Tensor

from paligemma_cases import CASES, Case, Inputs, inputs_of
from paligemma_reference import RewardModel, golden_of, image_rows, read_base, read_model, scale_lora, states

REPRODUCED, SAME_MATHS, DIFFERENT = 1e-5, 5e-5, 1e-2


class Checks:
    def __init__(self):
        self.failed = 0

    def holds(self, ok: bool, what: str) -> None:
        self.failed += not ok
        if not ok:
            print(f"FAILED  {what}")

    def near(self, a: Tensor, b: Tensor, tolerance: float, what: str) -> None:
        gap = distance(a, b)
        self.holds(gap <= tolerance, f"{what}: {gap:.3g} > {tolerance:g}")

    def far(self, a: Tensor, b: Tensor, what: str) -> None:
        gap = distance(a, b)
        self.holds(gap >= DIFFERENT, f"{what}: {gap:.3g} < {DIFFERENT:g}")


def distance(a: Tensor, b: Tensor) -> float:
    if a.shape != b.shape:
        return float("inf")
    return 0.0 if a.numel() == 0 else (a - b).abs().max().item()


def check_mask(c: Checks, case: Case, model: RewardModel, x: Inputs) -> None:
    """Prefix-LM: nothing before response token k depends on it, all after may."""
    ids = max(x.responses, key=len)
    prefix = states(model, x, torch.empty(0, dtype=torch.long))
    n, whole = len(prefix), states(model, x, ids)
    c.near(whole[:n], prefix, SAME_MATHS, f"{case.name}: the prefix does not see the response")
    for k in range(len(ids)):
        changed = ids.clone()
        changed[k] = 3 if ids[k] != 3 else 4
        other = states(model, x, changed)
        c.near(other[: n + k], whole[: n + k], 1e-6, f"{case.name}: token {k} is not seen before itself")
        c.far(other[n + k], whole[n + k], f"{case.name}: token {k} sees itself")
    c.far(states(model, x, ids, "full")[n:], whole[n:], f"{case.name}: without a suffix the mask is another")
    if case.text["num_hidden_layers"] > 1:  # the K/V of layer 0 do not depend on a mask
        c.far(states(model, x, ids, "absent")[n:], whole[n:], f"{case.name}: a causal prefix is seen in the suffix")
    c.far(states(model, x, ids, "absent")[:n], prefix, f"{case.name}: without token types the prefix is causal")
    full = states(model, x, ids, "full")
    changed = ids.clone()
    changed[-1] = 3 if ids[-1] != 3 else 4
    c.far(states(model, x, changed, "full")[: n + 1], full[: n + 1], f"{case.name}: full attention sees the future")


def check_embedding(c: Checks, case: Case, model: RewardModel, x: Inputs) -> None:
    """Image rows enter layer 0 as the projector gives them, text rows times sqrt(hidden)."""
    seen = []
    hook = model.model.language_model.layers[0].register_forward_pre_hook(
        lambda _, args, kwargs: seen.append((args or (kwargs["hidden_states"],))[0][0].clone()), with_kwargs=True
    )
    states(model, x, x.responses[0])
    hook.remove()
    features = image_rows(model, x)
    table = model.model.language_model.embed_tokens.weight
    rows = table[torch.cat([x.prompt, x.responses[0]])] * table.shape[1] ** 0.5
    c.near(seen[0][: len(features)], features, 0.0, f"{case.name}: image rows are unscaled")
    c.near(seen[0][len(features) :], rows.detach(), 1e-6, f"{case.name}: text rows are scaled")


def check_positions(c: Checks, case: Case, model: RewardModel, x: Inputs) -> None:
    """Positions start at 1; a shift of all of them changes nothing, another spacing does."""
    ids = x.responses[0]
    whole = states(model, x, ids)
    given = torch.arange(len(whole))[None]
    c.near(states(model, x, ids, position_ids=given + 1), whole, 0.0, f"{case.name}: positions start at 1")
    c.near(states(model, x, ids, position_ids=given), whole, SAME_MATHS, f"{case.name}: a shift changes nothing")
    c.far(states(model, x, ids, position_ids=given * 2), whole, f"{case.name}: spacing matters")


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


def check_adapter(c: Checks, case: Case, folder: Path) -> None:
    """The adapter matters, tau 0 is the base model with the adapter's head, tau 1 is the adapter."""
    x = inputs_of(case)
    ids = x.responses[0]
    model, peft_model = read_model(folder)
    adapted, features = states(model, x, ids), image_rows(model, x)
    base = read_base(folder)
    c.far(adapted, states(base, x, ids), f"{case.name}: the adapter changes the decoder")
    c.far(features, image_rows(base, x), f"{case.name}: the adapter changes the projector")
    scale_lora(peft_model, 0.0)
    c.near(states(model, x, ids), states(base, x, ids), 1e-6, f"{case.name}: tau 0 is the base")
    model, peft_model = read_model(folder)
    peft_model.merge_and_unload()
    c.near(states(model, x, ids), adapted, SAME_MATHS, f"{case.name}: merged weights give the same")
    golden = load_file(folder / "golden.safetensors")
    c.far(golden["logits.0"], golden["logits_tau.0"], f"{case.name}: tau matters")


def check(root: Path) -> int:
    c = Checks()
    for case in CASES:
        folder = root / case.name
        model, x = read_model(folder)[0], inputs_of(case)
        check_mask(c, case, model, x)
        check_embedding(c, case, model, x)
        check_positions(c, case, model, x)
        check_files(c, case, folder)
        if case.adapter is not None:
            check_adapter(c, case, folder)
        print(f"checked {case.name}")
    print("all hold" if c.failed == 0 else f"{c.failed} failed")
    return min(c.failed, 1)
