"""Checks `sleuth merge` against transformers and PEFT: the merged folder loads without a missing or an unexpected
tensor, and gives the states of the base with the adapter's deltas times τ.

    .venv/bin/python check_merge.py --sleuth ../../target/debug/sleuth
"""

from __future__ import annotations

import argparse
import subprocess
import tempfile
from pathlib import Path
from types import SimpleNamespace

import torch
from safetensors.torch import load_file
from transformers import AutoImageProcessor, AutoTokenizer, PaliGemmaForConditionalGeneration

from paligemma_reference import read_base, read_model, scale_lora, states

HERE = Path(__file__).parent
# Folder, τ, and the largest difference of a state: merged weights are rounded to their stored type once.
CASES = [
    (HERE / "paligemma/adapter_wide_rank", 1.0, 2e-2),
    (HERE / "paligemma/adapter_rslora", 1.0, 2e-2),
    (HERE / "paligemma/adapter_patterns", 0.25, 1e-2),
    (HERE / "paligemma/adapter_patterns", 0.0, 0.0),
    (HERE / "../../models/mini", 0.0, 0.0),
    (HERE / "../../models/mini", 0.5, 3e-2),
    (HERE / "../../models/mini", 1.0, 3e-2),
]


def inputs(folder: Path, config) -> SimpleNamespace:
    golden = folder / "golden.safetensors"
    if golden.exists():
        tensors = load_file(golden)
        return SimpleNamespace(pixels=tensors["pixel_values"], prompt=tensors["prompt_ids"])
    side = config.vision_config.image_size
    pixels = torch.rand((1, 3, side, side), generator=torch.Generator().manual_seed(5)) * 2 - 1
    return SimpleNamespace(pixels=pixels, prompt=torch.tensor([2, 300, 301, 260]))


def check(sleuth: Path, folder: Path, tau: float, tolerance: float, scratch: Path) -> None:
    out = scratch / f"{folder.name}-{tau}"
    subprocess.run(
        [sleuth, "merge", "--tau", str(tau), "--model", folder, "--out", out], check=True, stdout=subprocess.DEVNULL
    )
    merged, info = PaliGemmaForConditionalGeneration.from_pretrained(
        out, dtype=torch.float32, attn_implementation="eager", output_loading_info=True
    )
    if any(info[k] for k in ("missing_keys", "unexpected_keys", "mismatched_keys")):
        raise SystemExit(f"{out.name}: {info}")
    if (folder / "tokenizer.json").exists():
        AutoTokenizer.from_pretrained(out)
        AutoImageProcessor.from_pretrained(out)
    x = inputs(folder, merged.config)
    response = torch.tensor([5, 6, 7, 8])
    ours = states(merged.eval(), x, response)
    if tau == 0.0:
        want = states(read_base(folder), x, response)
    else:
        model, adapter = read_model(folder)
        scale_lora(adapter, tau)
        want = states(model, x, response)
    base = states(read_base(folder), x, response)
    off, moved = (ours - want).abs().max().item(), (base - want).abs().max().item()
    print(f"{folder.name:20} tau {tau:4}  off by {off:.2e}, the adapter moves states by {moved:.2e}")
    if off > tolerance or (tau > 0 and moved < 5 * off):
        raise SystemExit(f"{folder.name}: off by {off}, more than {tolerance}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--sleuth", type=Path, default=HERE / "../../target/release/sleuth")
    sleuth = parser.parse_args().sleuth.resolve()
    with tempfile.TemporaryDirectory() as scratch:
        for folder, tau, tolerance in CASES:
            check(sleuth, folder, tau, tolerance, Path(scratch))
    print("all hold")


if __name__ == "__main__":
    main()
