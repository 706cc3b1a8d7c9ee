#!/usr/bin/env python3
"""Times `sleuth bench` against transformers on the same random PaliGemma and the same inputs.

    python against_transformers.py                       # both, exit 1 above --limit or on other logits
    python against_transformers.py --only transformers   # without a sleuth binary

The model has 61 million f32 parameters; an item is one image, a prompt of 16 tokens and a response of
64. Items run one at a time. Both sides are measured in one run, in turns, and each turn's first pass
over an item is dropped. transformers does no more than a reward needs: no language head, no cache,
inference mode, and whichever of its attention kernels is faster here.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from transformers import PaliGemmaConfig, PaliGemmaModel
from transformers.utils import logging

REPOSITORY = Path(__file__).resolve().parent.parent
GROUPS, RESPONSES, PROMPT, RESPONSE = 4, 1, 16, 64
VOCABULARY, IMAGE_TOKEN, BOS, NEWLINE = 32_000, 31_999, 2, 108
HIDDEN = 512
CONFIG = {
    "architectures": ["PaliGemmaForConditionalGeneration"],
    "bos_token_id": BOS,
    "eos_token_id": 1,
    "hidden_size": HIDDEN,
    "image_token_index": IMAGE_TOKEN,
    "model_type": "paligemma",
    "pad_token_id": 0,
    "projection_dim": HIDDEN,
    "text_config": {
        "head_dim": 64,
        "hidden_size": HIDDEN,
        "intermediate_size": 2048,
        "model_type": "gemma",
        "num_attention_heads": 8,
        "num_hidden_layers": 8,
        "num_key_value_heads": 1,
        "vocab_size": VOCABULARY,
    },
    "torch_dtype": "float32",
    "vision_config": {
        "hidden_size": 384,
        "image_size": 224,
        "intermediate_size": 1536,
        "model_type": "siglip_vision_model",
        "num_attention_heads": 6,
        "num_hidden_layers": 8,
        "patch_size": 14,
        "projection_dim": HIDDEN,
        "vision_use_head": False,
    },
    "vocab_size": VOCABULARY,
}


@dataclass
class Side:
    """What one implementation gave: seconds per item and pass, and its logits per item."""

    seconds: list[list[float]] = field(default_factory=lambda: [[] for _ in range(GROUPS)])
    logits: list[Tensor | None] = field(default_factory=lambda: [None] * GROUPS)

    def add(self, item: int, seconds: list[float], logits: Tensor) -> None:
        self.seconds[item] += seconds
        self.logits[item] = logits

    def median(self) -> float:
        return median(s for item in self.seconds for s in item)


# === the model and the inputs ===


def random_model() -> tuple[PaliGemmaModel, nn.Linear]:
    """Weights of variance 1 / fan-in, so that states stay of order 1 through all layers."""
    torch.manual_seed(20)
    model = PaliGemmaModel(PaliGemmaConfig(**CONFIG)).eval()
    norms = {f"{n}.weight" for n, m in model.named_modules() if "Norm" in type(m).__name__}
    for name, p in model.named_parameters():
        if p.dim() > 1:
            p.data.normal_(std=p[0].numel() ** -0.5)
        elif name in norms:
            p.data.add_(torch.randn_like(p), alpha=0.1)
        else:
            p.data.normal_(std=0.02)
    head = nn.Linear(HIDDEN, 1)
    return model, head


def hub_name(name: str) -> str:
    name = name.replace("vision_tower.", "vision_tower.vision_model.", 1)
    return name.replace("language_model.", "language_model.model.", 1)


def write_model(folder: Path, model: PaliGemmaModel, head: nn.Linear) -> None:
    folder.mkdir()
    (folder / "config.json").write_text(json.dumps(CONFIG, indent=2))
    tensors = {hub_name(k): v.contiguous() for k, v in model.state_dict().items()}
    save_file(tensors, folder / "model.safetensors", {"format": "pt"})
    reward = {"prompt": "describe", "suffix_attention": "causal", "threshold": 0.5}
    (folder / "reward_config.json").write_text(json.dumps(reward))
    save_file({"score.weight": head.weight.data, "score.bias": head.bias.data}, folder / "reward_head.safetensors")


def inputs() -> dict[str, Tensor]:
    random = torch.Generator().manual_seed(7)
    size = CONFIG["vision_config"]["image_size"]
    prompt = torch.randint(200, IMAGE_TOKEN, (GROUPS, PROMPT), generator=random)
    prompt[:, 0], prompt[:, -1] = BOS, NEWLINE
    return {
        "pixel_values": torch.rand((GROUPS, 3, size, size), generator=random) * 2 - 1,
        "prompt_ids": prompt,
        "response_ids": torch.randint(200, IMAGE_TOKEN, (GROUPS, RESPONSES, RESPONSE), generator=random),
    }


# === transformers ===


@torch.inference_mode()
def score(model: PaliGemmaModel, head: nn.Linear, item: dict[str, Tensor]) -> Tensor:
    """The logits of one item, f32 [1,1,S]."""
    vision = model.config.vision_config
    images = torch.full((1, (vision.image_size // vision.patch_size) ** 2), IMAGE_TOKEN)
    ids = torch.cat([images, item["prompt_ids"], item["response_ids"][:, 0]], 1)
    types = torch.zeros_like(ids)
    types[:, -RESPONSE:] = 1
    out = model(
        input_ids=ids,
        pixel_values=item["pixel_values"],
        token_type_ids=types,
        attention_mask=torch.ones_like(ids),
        use_cache=False,
    )
    return head(out.last_hidden_state[:, -RESPONSE:]).transpose(1, 2)


def time_transformers(model, head, item: dict[str, Tensor], repeat: int) -> tuple[list[float], Tensor]:
    seconds, logits = [], None
    for _ in range(repeat + 1):
        start = time.perf_counter()
        logits = score(model, head, item)
        seconds.append(time.perf_counter() - start)
    return seconds[1:], logits


def faster_attention(model, head, item: dict[str, Tensor]) -> str:
    taken = {}
    for name in ("eager", "sdpa", "eager", "sdpa"):
        model.set_attn_implementation(name)
        taken.setdefault(name, []).extend(time_transformers(model, head, item, 3)[0])
    best = min(taken, key=lambda name: median(taken[name]))
    model.set_attn_implementation(best)
    return best


# === sleuth ===


def time_sleuth(args, folder: Path, file: Path, repeat: int) -> tuple[list[float], Tensor]:
    dump = file.with_suffix(".logits")
    command = [args.sleuth, "bench", "--model", folder, "--inputs", file, "--repeat", repeat + 1]
    command += ["--dump", dump, "--format", "json", *args.sleuth_arg]
    done = subprocess.run([str(c) for c in command], stdout=subprocess.PIPE, text=True, check=False)
    if done.returncode != 0:
        raise SystemExit(f"`sleuth bench` ended with {done.returncode}")
    seconds = json.loads(done.stdout)["seconds"]
    if len(seconds) != repeat + 1:
        raise SystemExit(f"`sleuth bench` gave {len(seconds)} times for {repeat + 1} passes")
    logits = load_file(dump)["logits"]
    if logits.shape != (1, RESPONSES, RESPONSE):
        raise SystemExit(f"`sleuth bench` gave logits of shape {list(logits.shape)}")
    return seconds[1:], logits


# === the run ===


def measure(args, scratch: Path) -> dict:
    torch.set_num_threads(args.threads)
    model, head = random_model()
    write_model(scratch / "model", model, head)
    whole = inputs()
    save_file(whole, scratch / "inputs.safetensors")
    items = [{k: v[g : g + 1].clone() for k, v in whole.items()} for g in range(GROUPS)]
    for g, item in enumerate(items):
        save_file(item, scratch / f"item-{g}.safetensors")
    report = {
        "parameters": sum(p.numel() for p in model.parameters()),
        "threads": args.threads,
        "load_before": os.getloadavg()[0],
    }
    sides = {name: Side() for name in ("transformers", "sleuth") if args.only in (None, name)}
    if "transformers" in sides:
        report["attention"] = faster_attention(model, head, items[0])
    for turn in range(args.rounds):
        for g, item in enumerate(items):
            for name in list(sides)[:: -1 if turn % 2 else 1]:
                if name == "transformers":
                    sides[name].add(g, *time_transformers(model, head, item, args.repeat))
                else:
                    file = scratch / f"item-{g}.safetensors"
                    sides[name].add(g, *time_sleuth(args, scratch / "model", file, args.repeat))
                time.sleep(args.rest)
    return report | compared(sides)


def compared(sides: dict[str, Side]) -> dict:
    report = {
        name: {
            "median_seconds": side.median(),
            "median_seconds_by_item": [median(s) for s in side.seconds],
            "min_seconds": min(min(s) for s in side.seconds),
            "passes": sum(map(len, side.seconds)),
        }
        for name, side in sides.items()
    }
    if len(sides) == 2:
        ours, theirs = sides["sleuth"], sides["transformers"]
        report["ratio"] = ours.median() / theirs.median()
        report["max_logit_difference"] = max(
            (a - b).abs().max().item() for a, b in zip(ours.logits, theirs.logits, strict=True)
        )
    return report


def table(report: dict) -> str:
    lines = [f"{'':14}" + "".join(f"{'item ' + str(g):>10}" for g in range(GROUPS)) + f"{'median':>10}{'min':>10}"]
    for name in ("transformers", "sleuth"):
        if side := report.get(name):
            times = [*side["median_seconds_by_item"], side["median_seconds"], side["min_seconds"]]
            lines.append(f"{name:14}" + "".join(f"{1000 * t:8.1f}ms" for t in times))
    if "ratio" in report:
        lines.append(f"sleuth / transformers: {report['ratio']:.3f}")
        lines.append(f"largest difference of a logit: {report['max_logit_difference']:.2e}")
    return "\n".join(lines)


def verdict(report: dict, args) -> list[str]:
    wrong = []
    if report.get("ratio", 0.0) > args.limit:
        wrong.append(f"the ratio {report['ratio']:.3f} is above {args.limit}")
    difference = report.get("max_logit_difference", 0.0)
    if not difference <= args.tolerance:  # also where it is not a number
        wrong.append(f"logits differ by {difference:.2e}, more than {args.tolerance:g}")
    return wrong


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--sleuth", default=REPOSITORY / "target/release/sleuth", type=Path, help="the binary")
    parser.add_argument("--sleuth-arg", action="append", default=[], help="one more argument for `sleuth bench`")
    parser.add_argument("--only", choices=["transformers", "sleuth"], help="time one side")
    parser.add_argument("--rounds", type=int, default=4, help="turns of both sides over all items")
    parser.add_argument("--repeat", type=int, default=3, help="timed passes over an item in a turn")
    parser.add_argument("--rest", type=float, default=0.1, help="seconds between turns, for idle threads to settle")
    parser.add_argument("--threads", type=int, default=2, help="threads of torch")
    parser.add_argument("--limit", type=float, default=1.5, help="fail above this ratio of the medians")
    parser.add_argument("--tolerance", type=float, default=1e-3, help="fail above this difference of a logit")
    parser.add_argument("--json", type=Path, help="also write the report here")
    parser.add_argument("--keep", type=Path, help="an absent folder for the model and the inputs, kept afterwards")
    args = parser.parse_args()
    if args.only != "transformers" and not os.access(args.sleuth, os.X_OK):
        parser.error(f"{args.sleuth} is no executable; build it, or give --sleuth or --only transformers")
    return args


def main() -> int:
    args = arguments()
    logging.set_verbosity_error()
    if args.keep:
        args.keep.mkdir(parents=True)
        report = measure(args, args.keep)
    else:
        with tempfile.TemporaryDirectory() as scratch:
            report = measure(args, Path(scratch))
    print(table(report), file=sys.stderr)
    if report["load_before"] > 0.5:
        print(f"the machine was busy (load {report['load_before']:.1f}): do not cite these times", file=sys.stderr)
    text = json.dumps(report, indent=2)
    print(text)
    if args.json:
        args.json.write_text(text + "\n")
    wrong = verdict(report, args)
    for line in wrong:
        print(f"FAILED  {line}", file=sys.stderr)
    return min(len(wrong), 1)


if __name__ == "__main__":
    sys.exit(main())
