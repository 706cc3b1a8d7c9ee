#!/usr/bin/env python3
"""Writes tiny random Mllama reward models and what transformers 4.54.1 and PEFT compute with them.

    python make_mllama.py            # write every case
    python make_mllama.py --check    # verify the reference and the committed files

As make_paligemma.py, with requirements of its own: requirements-mllama.txt. See README.md.
"""

from __future__ import annotations

import argparse
import json
import shutil
import sys
from pathlib import Path

import torch
from peft import LoraConfig, get_peft_model
from safetensors.torch import save_file
from torch import Tensor, nn
from transformers import MllamaConfig
from transformers.utils import logging

from mllama_cases import CASES, GATE_STD, Case, config_of, normal
from mllama_check import check
from mllama_generation import write_generation
from mllama_reference import OldLayout, RewardModel, golden_of, read_base

ROOT = Path(__file__).resolve().parent / "mllama"


def randomised(case: Case) -> RewardModel:
    """A model whose states are far from zero: norms around one, gates and biases too."""
    model = RewardModel(MllamaConfig(**config_of(case)))
    norms = {f"{n}.weight" for n, m in model.named_modules() if "Norm" in type(m).__name__}
    for name, p in model.named_parameters():
        mean, std = 0.0, case.weight_std
        if name in norms:
            mean, std = 1.0, 0.3
        elif name.endswith("gate") or ".gate_attn" in name or ".gate_ffn" in name:
            std = GATE_STD
        elif "patch_embedding" in name:
            std = 0.05
        elif "embed" in name or name == "score.weight":
            std = 1.0
        p.data = normal(("mllama", case.name, name), p.shape, std, mean)
    return model


def stored_name(name: str, names: str) -> str:
    """The name on disk of an in-memory name of transformers 4.52 and later."""
    if names == "new":
        return name
    if name.startswith("lm_head."):
        return f"language_model.{name}"
    return name.replace("model.language_model.", "model.language_model.model.", 1).removeprefix("model.")


def write_base(case: Case, model: RewardModel, folder: Path) -> None:
    write_json(folder / "config.json", config_of(case))
    tensors = {
        stored_name(name, case.names): value.to(case.dtype).clone().contiguous()
        for name, value in model.state_dict().items()
        if not name.startswith("score.")
    }
    if case.shards == 1:
        save_file(tensors, folder / "model.safetensors", {"format": "pt"})
        return
    weight_map = {}
    for i in range(case.shards):
        file = f"model-{i + 1:05}-of-{case.shards:05}.safetensors"
        part = {k: v for j, (k, v) in enumerate(sorted(tensors.items())) if j % case.shards == i}
        save_file(part, folder / file, {"format": "pt"})
        weight_map |= dict.fromkeys(part, file)
    total = sum(v.nbytes for v in tensors.values())
    index = {"metadata": {"total_size": total}, "weight_map": dict(sorted(weight_map.items()))}
    write_json(folder / "model.safetensors.index.json", index)


def write_head(folder: Path, weight: Tensor, bias: Tensor, dtype: torch.dtype) -> None:
    tensors = {"score.weight": weight.detach().to(dtype), "score.bias": bias.detach().to(dtype)}
    save_file(tensors, folder / "reward_head.safetensors")


def write_adapter(case: Case, folder: Path) -> None:
    """Lets PEFT save an adapter whose B matrices are not zero."""
    model = read_base(folder)
    model.score.weight.data = normal(("mllama", case.name, "score.weight"), model.score.weight.shape, 1.0)
    model.score.bias.data = normal(("mllama", case.name, "score.bias"), (1,), 0.2)
    wrapped: nn.Module = OldLayout(model) if case.adapter.names == "old" else model
    config = LoraConfig(modules_to_save=["score"], lora_dropout=0.1, **case.adapter.options)
    peft_model = get_peft_model(wrapped, config)
    for name, p in peft_model.named_parameters():
        if "lora_" in name:
            p.data = normal(("mllama", case.name, name), p.shape, 0.2)
    peft_model.save_pretrained(folder / "adapter")
    (folder / "adapter/README.md").unlink()
    path = folder / "adapter/adapter_config.json"
    saved = json.loads(path.read_text())
    saved["base_model_name_or_path"] = None
    write_json(path, saved)


def write_json(path: Path, value: dict) -> None:
    path.write_text(json.dumps(value, indent=2, sort_keys=True) + "\n")


def write(case: Case) -> None:
    folder = ROOT / case.name
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    model = randomised(case)
    write_base(case, model, folder)
    write_json(folder / "reward_config.json", {"prompt": "describe", "threshold": 0.5})
    if case.adapter is None:
        write_head(folder, model.score.weight, model.score.bias, case.head_dtype)
    else:
        write_adapter(case, folder)
    save_file(golden_of(case, folder), folder / "golden.safetensors")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--check", action="store_true", help="verify instead of writing")
    args = parser.parse_args()
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    torch.set_num_threads(1)
    torch.use_deterministic_algorithms(True)
    if args.check:
        return check(ROOT)
    for case in CASES:
        write(case)
        size = sum(f.stat().st_size for f in (ROOT / case.name).rglob("*") if f.is_file())
        print(f"wrote {case.name} ({size / 1000:.0f} kB)")
    write_generation(ROOT)
    return 0


if __name__ == "__main__":
    sys.exit(main())
