"""What transformers' `generate` writes, greedily, for the tiny Mllama models: mllama_generation.json.

As generation.json of PaliGemma: an adapter's case has its LoRA deltas times its tau, `gaps` are the differences of
the two largest logits at each step, `given` is what is written behind the case's first response, and `rated`
holds ln p of that response's tokens.
"""

from __future__ import annotations

import json
from pathlib import Path

import torch
from torch import Tensor
from transformers import GenerationConfig

from mllama_cases import CASES, Case, Inputs, inputs_of
from mllama_reference import RewardModel, cross_mask, read_model, scale_lora

FILE = "mllama_generation.json"
TOKENS = 24
NOTHING = torch.empty(0, dtype=torch.long)


def arguments(model: RewardModel, x: Inputs, ids: Tensor) -> dict:
    return {
        "input_ids": ids[None],
        "pixel_values": x.tiles,
        "aspect_ratio_ids": x.ratio_id,
        "aspect_ratio_mask": x.ratio_mask,
        "attention_mask": torch.ones_like(ids)[None],
        "cross_attention_mask": cross_mask(model, x, ids),
    }


@torch.inference_mode()
def rated(model: RewardModel, x: Inputs, response: Tensor) -> list[float]:
    ids = torch.cat([x.prompt, response])
    out = model(**arguments(model, x, ids), use_cache=False)
    log = out.logits[0, -len(response) - 1 : -1].log_softmax(-1)
    return [round(p, 5) for p in log.gather(1, response[:, None])[:, 0].tolist()]


@torch.inference_mode()
def greedy(model: RewardModel, x: Inputs, given: Tensor) -> dict:
    ids = torch.cat([x.prompt, given])
    # No id is -1, so nothing ends it.
    config = GenerationConfig(
        max_new_tokens=TOKENS,
        do_sample=False,
        eos_token_id=-1,
        pad_token_id=0,
        return_dict_in_generate=True,
        output_logits=True,
    )
    done = model.generate(**arguments(model, x, ids), generation_config=config)
    logits = torch.cat(done.logits)
    top = logits.topk(2, dim=-1).values
    tokens = done.sequences[0, len(ids) :]
    if len(tokens) != TOKENS:
        raise SystemExit(f"{len(tokens)} tokens came")
    chosen = logits.log_softmax(-1).gather(1, tokens[:, None])[:, 0]
    return {
        "tokens": tokens.tolist(),
        "gaps": [round(g, 5) for g in (top[:, 0] - top[:, 1]).tolist()],
        "log_probability": round(chosen.sum().item(), 5),
    }


def generation_of(case: Case, folder: Path) -> dict:
    x = inputs_of(case)
    model, adapter = read_model(folder)
    tau = 0.0
    if adapter is not None:
        tau = case.adapter.tau
        scale_lora(adapter, tau)
    made = {"tau": tau} | greedy(model, x, NOTHING)
    return made | {"given": greedy(model, x, x.responses[0]), "rated": rated(model, x, x.responses[0])}


def write_generation(root: Path) -> None:
    made = {case.name: generation_of(case, root / case.name) for case in CASES}
    lines = ",\n".join(f"{json.dumps(name)}: {json.dumps(case)}" for name, case in made.items())
    (root.parent / FILE).write_text(f"{{\n{lines}\n}}\n")


def worst_generation(case: Case, folder: Path) -> float:
    """The largest difference from the file in any ln p; infinite where other tokens are written."""
    stored, made = json.loads((folder.parent.parent / FILE).read_text())[case.name], generation_of(case, folder)
    pairs = [(stored, made), (stored["given"], made["given"])]
    if stored["tau"] != made["tau"] or any(a["tokens"] != b["tokens"] for a, b in pairs):
        return float("inf")
    sums = [abs(a["log_probability"] - b["log_probability"]) for a, b in pairs]
    return max(sums + [abs(a - b) for a, b in zip(stored["rated"], made["rated"], strict=True)])
