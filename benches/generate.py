#!/usr/bin/env python3
"""Times generation by `sleuth bench --generate` against transformers on the same random PaliGemma.

    python generate.py                                   # exit 1 where sleuth writes fewer tokens per second
    python generate.py --sleuth ../target/debug/sleuth --tokens 32

The model of against_transformers.py (61 million f32 parameters): one image, a prompt of 16 tokens, and 8
candidates that are sampled at temperature 1 without an end. transformers runs one batched `generate` with its K/V
cache, in inference mode, with whichever of its attention kernels is faster here; it is given the batch of 8 rows,
so its prefix is computed 8 times. So two ratios are printed: of all tokens in all of the time, and of the tokens
after the first in the time after it, where the prefix plays no part. The sides run in turns in one process tree;
each turn's first pass is dropped.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from statistics import median

import torch
from safetensors.torch import save_file
from torch import Tensor
from transformers import GenerationConfig, PaliGemmaForConditionalGeneration
from transformers.utils import logging

from against_transformers import CONFIG, IMAGE_TOKEN, REPOSITORY, inputs, random_model, write_model


@torch.inference_mode()
def generate(model: PaliGemmaForConditionalGeneration, item: dict[str, Tensor], candidates: int, tokens: int) -> float:
    vision = CONFIG["vision_config"]
    images = torch.full((1, (vision["image_size"] // vision["patch_size"]) ** 2), IMAGE_TOKEN)
    ids = torch.cat([images, item["prompt_ids"]], 1)
    # No id is -1, so nothing ends a candidate.
    config = GenerationConfig(
        do_sample=True, temperature=1.0, top_k=0, top_p=1.0, num_return_sequences=candidates, max_new_tokens=tokens,
        eos_token_id=-1, pad_token_id=0,
    )
    start = time.perf_counter()
    out = model.generate(
        input_ids=ids,
        pixel_values=item["pixel_values"],
        attention_mask=torch.ones_like(ids),
        token_type_ids=torch.zeros_like(ids),
        generation_config=config,
    )
    seconds = time.perf_counter() - start
    if out.shape != (candidates, ids.shape[1] + tokens):
        raise SystemExit(f"transformers gave {list(out.shape)}")
    return seconds


def time_transformers(model, item, args) -> tuple[list[float], list[float]]:
    passes = [
        (generate(model, item, args.candidates, args.tokens), generate(model, item, args.candidates, 1))
        for _ in range(args.repeat + 1)
    ]
    return [p[0] for p in passes[1:]], [p[1] for p in passes[1:]]


def time_sleuth(args, folder: Path, file: Path) -> tuple[list[float], list[float]]:
    command = [args.sleuth, "bench", "--model", folder, "--inputs", file, "--repeat", args.repeat]
    command += ["--generate", args.tokens, "--candidates", args.candidates, "--threads", args.threads]
    done = subprocess.run(
        [str(c) for c in [*command, "--format", "json"]], stdout=subprocess.PIPE, text=True, check=False
    )
    if done.returncode != 0:
        raise SystemExit(f"`sleuth bench` ended with {done.returncode}")
    report = json.loads(done.stdout)
    return report["seconds"], report["first_seconds"]


def faster_attention(model, item, args) -> str:
    taken = {}
    for name in ("eager", "sdpa", "eager", "sdpa"):
        model.set_attn_implementation(name)
        taken.setdefault(name, []).append(generate(model, item, args.candidates, args.tokens))
    best = min(taken, key=lambda name: min(taken[name]))
    model.set_attn_implementation(best)
    return best


def measure(args, scratch: Path) -> dict:
    torch.set_num_threads(args.threads)
    base, head = random_model()
    write_model(scratch / "model", base, head)
    item = {k: v[:1].clone() for k, v in inputs().items()}
    save_file(item, scratch / "item.safetensors")
    model = PaliGemmaForConditionalGeneration.from_pretrained(scratch / "model", dtype=torch.float32).eval()
    report = {
        "threads": args.threads,
        "load_before": os.getloadavg()[0],
        "attention": faster_attention(model, item, args),
        "candidates": args.candidates,
        "tokens": args.tokens,
    }
    taken = {"transformers": ([], []), "sleuth": ([], [])}
    for turn in range(args.rounds):
        for name in list(taken)[:: -1 if turn % 2 else 1]:
            if name == "transformers":
                times = time_transformers(model, item, args)
            else:
                times = time_sleuth(args, scratch / "model", scratch / "item.safetensors")
            for kept, new in zip(taken[name], times, strict=True):
                kept += new
            time.sleep(args.rest)
    later = args.candidates * (args.tokens - 1)
    for name, (whole, first) in taken.items():
        report[name] = {
            "tokens_per_second": args.candidates * args.tokens / median(whole),
            "later_tokens_per_second": later / median(w - f for w, f in zip(whole, first, strict=True)),
            "first_token_seconds": median(first),
            "passes": len(whole),
        }
    for key in ("tokens_per_second", "later_tokens_per_second"):
        report[f"{key}_ratio"] = report["sleuth"][key] / report["transformers"][key]
    return report


def table(report: dict) -> str:
    lines = [f"{'':14}{'tokens/s':>12}{'after the first':>18}{'to first token':>18}"]
    for name in ("transformers", "sleuth"):
        side = report[name]
        rates = f"{side['tokens_per_second']:12.1f}{side['later_tokens_per_second']:18.1f}"
        lines.append(f"{name:14}{rates}{1000 * side['first_token_seconds']:16.1f}ms")
    ratios = f"{report['tokens_per_second_ratio']:12.2f}{report['later_tokens_per_second_ratio']:18.2f}"
    lines.append(f"{'ratio':14}{ratios}")
    return "\n".join(lines)


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--sleuth", default=REPOSITORY / "target/release/sleuth", type=Path, help="the binary")
    parser.add_argument("--rounds", type=int, default=4, help="turns of both sides")
    parser.add_argument("--repeat", type=int, default=3, help="timed passes in a turn")
    parser.add_argument("--rest", type=float, default=0.1, help="seconds between turns, for idle threads to settle")
    parser.add_argument("--threads", type=int, default=2, help="threads of each side")
    parser.add_argument("--tokens", type=int, default=64, help="tokens of each candidate")
    parser.add_argument("--candidates", type=int, default=8, help="candidates from the prefix")
    parser.add_argument("--limit", type=float, default=1.0, help="fail where a ratio of tokens per second is lower")
    parser.add_argument("--json", type=Path, help="also write the report here")
    args = parser.parse_args()
    if not os.access(args.sleuth, os.X_OK):
        parser.error(f"{args.sleuth} is no executable; build it, or give --sleuth")
    return args


def main() -> int:
    args = arguments()
    logging.set_verbosity_error()
    with tempfile.TemporaryDirectory() as scratch:
        report = measure(args, Path(scratch))
    print(table(report), file=sys.stderr)
    if report["load_before"] > 0.5:
        print(f"the machine was busy (load {report['load_before']:.1f}): do not cite these times", file=sys.stderr)
    text = json.dumps(report, indent=2)
    print(text)
    if args.json:
        args.json.write_text(text + "\n")
    slow = [k for k in ("tokens_per_second_ratio", "later_tokens_per_second_ratio") if report[k] < args.limit]
    for key in slow:
        print(f"FAILED  {key} is {report[key]:.2f}, under {args.limit}", file=sys.stderr)
    return min(len(slow), 1)


if __name__ == "__main__":
    sys.exit(main())
