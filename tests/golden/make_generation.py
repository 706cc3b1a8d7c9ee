"""Writes generation.json: what transformers' `generate` writes, greedily, for random models and models/mini.

    .venv/bin/python make_generation.py           # write
    .venv/bin/python make_generation.py --check   # verify

An adapter's case has its LoRA deltas times τ, by PEFT. `gaps` are the differences of the two largest logits at
each step: where one is under 1e-3, another order of sums may choose otherwise. Of a random model `given` is what
it writes behind the case's first response, and `rated` holds ln p of that response's tokens.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from types import SimpleNamespace

import torch
from PIL import Image
from safetensors.torch import load_file
from tokenizers import Tokenizer
from transformers import AutoImageProcessor, GenerationConfig

from paligemma_reference import RewardModel, read_base, read_model, scale_lora

HERE = Path(__file__).parent
OUT = HERE / "generation.json"
MINI, PICTURE, PROMPT = HERE / "../../models/mini", HERE / "../../docs/scene.png", "Describe the image."
TOKENS = 24
# Case and factor on its adapter; 0 where it has none.
CASES = {
    "published_defaults": 0.0,
    "many_kv_heads": 0.0,
    "grouped_sharded": 0.0,
    "new_names": 0.0,
    "v5_names": 0.0,
    "adapter_rslora": 1.0,
    "adapter_patterns": 0.25,
}
MINI_TAUS = {"mini": 0.0, "mini_half": 0.5}


NOTHING = torch.empty(0, dtype=torch.long)


def inputs(model: RewardModel, x: SimpleNamespace, response: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Ids and token types: image and prompt see each other fully, what is written is causal."""
    vision = model.config.vision_config
    n = (vision.image_size // vision.patch_size) ** 2
    ids = torch.cat([torch.full((n,), model.config.image_token_index), x.prompt, response])[None]
    types = torch.zeros_like(ids)
    types[:, n + len(x.prompt) :] = 1
    return ids, types


@torch.inference_mode()
def rated(model: RewardModel, x: SimpleNamespace, response: torch.Tensor) -> list[float]:
    ids, types = inputs(model, x, response)
    out = model(
        input_ids=ids, pixel_values=x.pixels, attention_mask=torch.ones_like(ids), token_type_ids=types, use_cache=False
    )
    log = out.logits[0, -len(response) - 1 : -1].log_softmax(-1)
    return [round(p, 5) for p in log.gather(1, response[:, None])[:, 0].tolist()]


@torch.inference_mode()
def greedy(model: RewardModel, x: SimpleNamespace, given: torch.Tensor) -> dict:
    ids, types = inputs(model, x, given)
    # No id is -1, so nothing ends it.
    config = GenerationConfig(
        max_new_tokens=TOKENS, do_sample=False, eos_token_id=-1, pad_token_id=0, return_dict_in_generate=True,
        output_logits=True,
    )
    done = model.generate(
        input_ids=ids,
        pixel_values=x.pixels,
        attention_mask=torch.ones_like(ids),
        token_type_ids=types,
        generation_config=config,
    )
    logits = torch.cat(done.logits)
    top = logits.topk(2, dim=-1).values
    tokens = done.sequences[0, ids.shape[1] :]
    if len(tokens) != TOKENS:
        raise SystemExit(f"{len(tokens)} tokens came")
    chosen = logits.log_softmax(-1).gather(1, tokens[:, None])[:, 0]
    return {
        "tokens": tokens.tolist(),
        "gaps": [round(g, 5) for g in (top[:, 0] - top[:, 1]).tolist()],
        "log_probability": round(chosen.sum().item(), 5),
    }


def random_case(name: str, tau: float) -> dict:
    folder = HERE / "paligemma" / name
    golden = load_file(folder / "golden.safetensors")
    model, adapter = read_model(folder)
    if adapter is not None:
        scale_lora(adapter, tau)
    x, response = SimpleNamespace(pixels=golden["pixel_values"], prompt=golden["prompt_ids"]), golden["response_ids.0"]
    made = {"tau": tau} | greedy(model, x, NOTHING)
    return made | {"given": greedy(model, x, response), "rated": rated(model, x, response)}


def mini_case(tau: float) -> dict:
    if tau == 0.0:
        model = read_base(MINI)
    else:
        model, adapter = read_model(MINI)
        scale_lora(adapter, tau)
    tokenizer = Tokenizer.from_file(str(MINI / "tokenizer.json"))
    bos = tokenizer.token_to_id("<bos>")
    prompt = torch.tensor([bos, *tokenizer.encode(PROMPT + "\n", add_special_tokens=False).ids])
    processor = AutoImageProcessor.from_pretrained(MINI, use_fast=False)
    pixels = processor(Image.open(PICTURE).convert("RGB"), return_tensors="pt")["pixel_values"].float()
    made = {"tau": tau} | greedy(model, SimpleNamespace(pixels=pixels, prompt=prompt), NOTHING)
    return made | {"text": tokenizer.decode(made["tokens"], skip_special_tokens=False)}


def main() -> None:
    torch.set_num_threads(1)
    made = {name: random_case(name, tau) for name, tau in CASES.items()}
    made |= {name: mini_case(tau) for name, tau in MINI_TAUS.items()}
    if "--check" not in sys.argv:
        lines = ",\n".join(f"{json.dumps(name)}: {json.dumps(case)}" for name, case in made.items())
        OUT.write_text(f"{{\n{lines}\n}}\n")
        return
    stored = json.loads(OUT.read_text())
    for name, case in made.items():
        if stored[name]["tokens"] != case["tokens"]:
            raise SystemExit(f"generation.json: {name} is another now")
    print("all hold")


if __name__ == "__main__":
    main()
