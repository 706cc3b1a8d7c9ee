"""Writes mini.safetensors and the adapter's self_test.json: what transformers and PEFT make of models/mini on a picture
of the repository. A server proves itself by the latter before it serves.

    .venv/bin/python make_mini.py                       # write
    .venv/bin/python make_mini.py --check               # verify on the machine that wrote
    .venv/bin/python make_mini.py --check --elsewhere   # on another CPU, which sums in another order
"""

from __future__ import annotations

import base64
import json
import sys
from pathlib import Path
from types import SimpleNamespace

import peft
import torch
import transformers
from PIL import Image
from safetensors.torch import load_file, save_file
from tokenizers import Tokenizer
from transformers import AutoImageProcessor

from paligemma_reference import read_model, states

HERE = Path(__file__).parent
MODEL = HERE / "../../models/mini"
PICTURE = HERE / "../../docs/scene.png"
OUT = HERE / "mini.safetensors"
SELF_TEST = MODEL / "adapter/self_test.json"
PROMPT = "Describe the image."
RESPONSES = (
    "There are two objects. A small red star is left of a blue ring.",
    "The large green square is at the top.",
    "There is no heart.",
)


@torch.inference_mode()
def golden() -> dict[str, torch.Tensor]:
    model, _ = read_model(MODEL)
    tokenizer = Tokenizer.from_file(str(MODEL / "tokenizer.json"))
    bos = tokenizer.token_to_id("<bos>")
    prompt = torch.tensor([bos, *tokenizer.encode(PROMPT + "\n", add_special_tokens=False).ids])
    processor = AutoImageProcessor.from_pretrained(MODEL, use_fast=False)
    pixels = processor(Image.open(PICTURE).convert("RGB"), return_tensors="pt")["pixel_values"].float()
    x = SimpleNamespace(pixels=pixels, prompt=prompt)
    prefix = (model.config.vision_config.image_size // model.config.vision_config.patch_size) ** 2 + len(prompt)
    out = {}
    for r, text in enumerate(RESPONSES):
        ids = torch.tensor(tokenizer.encode(text, add_special_tokens=False).ids)
        out[f"response_ids.{r}"] = ids
        out[f"logits.{r}"] = model.score(states(model, x, ids)[prefix:])[:, 0].clone().contiguous()
    return out


def self_test(made: dict[str, torch.Tensor]) -> dict[str, object]:
    image = base64.b64encode(PICTURE.read_bytes()).decode()
    cases = [
        {"image": image, "prompt": PROMPT, "response": text, "logits": made[f"logits.{r}"].tolist()}
        for r, text in enumerate(RESPONSES)
    ]
    reference = f"transformers {transformers.__version__}, peft {peft.__version__}"
    return {"reference": reference, "tolerance": {"absolute": 5e-4, "relative": 1e-4}, "cases": cases}


def main() -> None:
    made = golden()
    if "--check" not in sys.argv:
        save_file(made, OUT)
        SELF_TEST.write_text(json.dumps(self_test(made)) + "\n")
        return
    stored = load_file(OUT)
    proof = json.loads(SELF_TEST.read_text())["cases"]
    if [case["logits"] for case in proof] != [stored[f"logits.{r}"].tolist() for r in range(len(RESPONSES))]:
        raise SystemExit("self_test.json and mini.safetensors do not belong together")
    worst = max((made[k].float() - stored[k].float()).abs().max().item() for k in made)
    allowed = 1e-4 if "--elsewhere" in sys.argv else 1e-5
    if made.keys() != stored.keys() or worst > allowed:
        raise SystemExit(f"mini.safetensors is off by {worst}")
    print("all hold")


if __name__ == "__main__":
    main()
