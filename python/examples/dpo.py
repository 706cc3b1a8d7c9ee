"""DPO on pairs that `sleuth correct --pairs` makes, with a tiny random policy on a CPU.

    python examples/dpo.py

Responses with a flagged word are repaired by the backbone of the served model; what was kept is the
chosen response, what came is the rejected one.
"""

from __future__ import annotations

import copy
import json
import subprocess
import tempfile
from pathlib import Path
from typing import Any

import tiny_policy
from datasets import Dataset, Image, Sequence, load_dataset
from trl import DPOConfig, DPOTrainer

from sleuth.server import find_binary


def make_pairs(binary: Path, rows: list[dict[str, Any]], folder: Path) -> Dataset:
    """Corrects responses, and reads the pairs as docs/correction.md says."""
    asked, pairs = folder / "responses.jsonl", folder / "pairs.jsonl"
    fields = ("id", "image", "prompt", "response")
    asked.write_text("".join(json.dumps({f: row[f] for f in fields}) + "\n" for row in rows))
    command = [binary, "correct", "--jsonl", asked, "--out", folder / "out.jsonl", "--pairs", pairs]
    subprocess.run([*command, "--candidates", "4"], check=True, capture_output=True)
    data = load_dataset(
        "json", data_files=str(pairs), split="train", cache_dir=str(folder / "cache")
    )
    return data.cast_column("images", Sequence(Image()))


def trainer_for(pairs: Dataset, parts: Any, out: Path, **more: Any) -> DPOTrainer:
    """A trainer of two steps; `parts` are the policy and its processor."""
    model, processor = parts
    settings = {
        "output_dir": str(out),
        "per_device_train_batch_size": 2,
        "max_steps": 2,
        "learning_rate": 1e-3,
        "logging_steps": 1,
        "max_length": None,
        "report_to": [],
        "use_cpu": True,
        "bf16": False,
        "save_strategy": "no",
        "disable_tqdm": True,
        **more,
    }
    return DPOTrainer(
        model=model,
        ref_model=copy.deepcopy(model),
        args=DPOConfig(**settings),
        train_dataset=pairs,
        processing_class=processor,
    )


def main() -> None:
    """Makes pairs, trains two steps, and prints what was logged."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        rows = tiny_policy.draw_scenes(find_binary(), folder / "scenes", 12)
        pairs = make_pairs(find_binary(), rows, folder)
        print(f"{len(pairs)} pairs of {len(rows)} responses")
        parts = tiny_policy.policy(tiny_policy.tokenizer(rows))
        trainer = trainer_for(pairs, parts, folder / "out")
        trainer.train()
        for entry in trainer.state.log_history:
            if "loss" in entry:
                print(entry["step"], round(entry["loss"], 4), round(entry["rewards/margins"], 4))


if __name__ == "__main__":
    main()
