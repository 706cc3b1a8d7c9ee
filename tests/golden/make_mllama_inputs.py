#!/usr/bin/env python3
"""Writes what transformers 4.54.1 makes of images and texts for Mllama.

    python make_mllama_inputs.py            # write
    python make_mllama_inputs.py --check    # verify the committed files

Into mllama/instruct: a tokenizer of Llama 3's kind, a chat template, a preprocessor, `self_test.json` (image
file, prompt and response through transformers to logits) and `texts.json` (ids of prompts and responses).
Into mllama_images.safetensors: canvases. Needs requirements-mllama.txt, images/ and mllama/. See README.md.
"""

from __future__ import annotations

import argparse
import base64
import io
import json
import sys
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from safetensors.numpy import load_file, save_file
from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, pre_tokenizers, processors, trainers
from transformers import MllamaImageProcessor, MllamaProcessor, PreTrainedTokenizerFast
from transformers.models.mllama.image_processing_mllama import get_image_size_fit_to_canvas, get_optimal_tiled_canvas
from transformers.utils import logging

from mllama_cases import CASES
from mllama_reference import read_model

HERE = Path(__file__).resolve().parent
FOLDER, CANVASES = HERE / "mllama/instruct", HERE / "mllama_images.safetensors"
CASE = next(case for case in CASES if case.name == "instruct")
# Llama 3's, as its tokenizer.json spells it.
WORDS = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+"
    r"|\s+(?!\S)|\s+"
)
SPECIAL = [
    "<|begin_of_text|>",
    "<|end_of_text|>",
    "<|start_header_id|>",
    "<|end_header_id|>",
    "<|eot_id|>",
    "<|python_tag|>",
    "<|finetune_right_pad_id|>",
    "<|reserved_special_token_0|>",
]
TEXT = """The picture shows three red circles above a small blue square, and there is a green triangle on the left.
There are two squares below it. The large heart is white; the sign says "OPEN 24 hours". It isn't raining, they're
dry, and we've counted 1234 leaves. Is the yellow star larger than the circle? No: it is smaller, but brighter.
A man with a black dog walks along the beach while the sun sets behind the mountains. There is no bicycle."""
TEMPLATE = """{{- bos_token }}
{%- if not date_string is defined %}
    {%- if strftime_now is defined %}
        {%- set date_string = strftime_now("%d %b %Y") %}
    {%- else %}
        {%- set date_string = "26 Jul 2024" %}
    {%- endif %}
{%- endif %}
{%- if messages[0]['role'] == 'system' %}
    {%- set system_message = messages[0]['content'] | trim %}
    {%- set messages = messages[1:] %}
{%- else %}
    {%- set system_message = "" %}
{%- endif %}
{%- set image_ns = namespace(has_images=false) %}
{%- for message in messages %}
    {%- for content in message['content'] %}
        {%- if content['type'] == 'image' %}
            {%- set image_ns.has_images = true %}
        {%- endif %}
    {%- endfor %}
{%- endfor %}
{%- if image_ns.has_images and not system_message == "" %}
    {{- raise_exception("a system message and an image do not go together") }}
{%- endif %}
{%- if not image_ns.has_images %}
    {{- '<|start_header_id|>system<|end_header_id|>\\n\\nToday is ' + date_string + '.<|eot_id|>' }}
{%- endif %}
{%- for message in messages %}
    {{- '<|start_header_id|>' + message['role'] + '<|end_header_id|>\\n\\n' }}
    {%- if message['content'] is string %}
        {{- message['content'] }}
    {%- else %}
        {%- for content in message['content'] %}
            {%- if content['type'] == 'image' %}
                {{- '<|image|>' }}
            {%- elif content['type'] == 'text' %}
                {{- content['text'] }}
            {%- endif %}
        {%- endfor %}
    {%- endif %}
    {{- '<|eot_id|>' }}
{%- endfor %}
{%- if add_generation_prompt %}
    {{- '<|start_header_id|>assistant<|end_header_id|>\\n\\n' }}
{%- endif %}
"""
PROMPTS = ["", "describe", "What is there?\n", " Is  it\tred?", "Zürich — 1234567 “naïve” 红猫 👍", "it's\n\n\nI'LL\r\n go "]
RESPONSES = [
    "There are three red circles above a small blue square.",
    "It isn't raining; they're dry.\n\nNo bicycle, 12345 leaves!\r\n",
    "  “é” 红猫👍\t\n x ",
    "A",
]
SAMPLES = ["china", "flower", "noise_37x53", "tall_5x201", "wide_300x7", "exact_64x64", "pixel_1x1", "row_61x1", "column_1x61"]
TILES = (20, 32)
MEAN, STD = [0.48145466, 0.4578275, 0.40821073], [0.26862954, 0.26130258, 0.27577711]


def make_tokenizer() -> Tokenizer:
    tokenizer = Tokenizer(models.BPE(ignore_merges=True))
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(WORDS), "isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    tokenizer.decoder = decoders.ByteLevel()
    size = CASE.text["vocab_size"] - len(SPECIAL)
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(vocab_size=size, initial_alphabet=sorted(alphabet), show_progress=False)
    tokenizer.train_from_iterator(TEXT.splitlines(), trainer)
    assert tokenizer.get_vocab_size() == size, tokenizer.get_vocab_size()
    tokenizer.add_special_tokens([AddedToken(name, special=True) for name in [*SPECIAL, "<|image|>"]])
    assert tokenizer.token_to_id("<|image|>") == CASE.image_token
    bos = SPECIAL[0]
    tokenizer.post_processor = processors.Sequence(
        [
            processors.ByteLevel(trim_offsets=True),
            processors.TemplateProcessing(f"{bos} $A", f"{bos} $A {bos}:1 $B:1", [(bos, tokenizer.token_to_id(bos))]),
        ]
    )
    return tokenizer


def processor(tokenizer: Tokenizer) -> MllamaProcessor:
    fast = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, bos_token=SPECIAL[0], eos_token=SPECIAL[4], pad_token=SPECIAL[6]
    )
    side = CASE.vision["image_size"]
    images = MllamaImageProcessor(size={"height": side, "width": side}, image_mean=MEAN, image_std=STD)
    return MllamaProcessor(images, fast, chat_template=TEMPLATE)


def prompt_of(p: MllamaProcessor, text: str) -> str:
    content = [{"type": "image"}, {"type": "text", "text": text}]
    return p.apply_chat_template([{"role": "user", "content": content}], add_generation_prompt=True)


def ids_of(p: MllamaProcessor, text: str) -> list[int]:
    return p.tokenizer(text, add_special_tokens=False)["input_ids"]


def texts(p: MllamaProcessor) -> dict:
    return {
        "prompts": [{"text": t, "ids": ids_of(p, prompt_of(p, t))} for t in PROMPTS],
        "responses": [{"text": t, "ids": ids_of(p, t)} for t in RESPONSES],
    }


@torch.inference_mode()
def self_test(p: MllamaProcessor) -> dict:
    model = read_model(FOLDER)[0]
    cases = []
    for name, prompt, response in [
        ("exact_64x64.png", PROMPTS[1], RESPONSES[0]),
        ("noise_37x53.png", PROMPTS[2], RESPONSES[1]),
        ("wide_300x7.png", PROMPTS[4], RESPONSES[2]),
    ]:
        file = (HERE / "images" / name).read_bytes()
        image = Image.open(io.BytesIO(file)).convert("RGB")
        inputs = p(images=image, text=prompt_of(p, prompt), add_special_tokens=False, return_tensors="pt")
        own = torch.tensor([ids_of(p, response)])
        # Rows of the response see what the prompt's last row sees.
        mask = inputs.pop("cross_attention_mask")
        mask = torch.cat([mask, mask[:, -1:].expand(-1, own.shape[1], -1, -1)], 1)
        ids = torch.cat([inputs.pop("input_ids"), own], 1)
        inputs.pop("attention_mask")
        out = model.model(input_ids=ids, cross_attention_mask=mask, use_cache=False, **inputs)
        logits = model.score(out.last_hidden_state[0, -own.shape[1] :])[:, 0]
        image = base64.b64encode(file).decode()
        cases.append({"image": image, "prompt": prompt, "response": response, "logits": logits.tolist()})
    reference = "transformers 4.54.1, torch 2.13.0, CPU f32"
    return {"reference": reference, "tolerance": {"absolute": 2e-4, "relative": 0.0}, "cases": cases}


def canvas_of(tiles: np.ndarray, ratio: int) -> np.ndarray:
    """Tiles [T,3,S,S] put together again: [3,rows*S,columns*S]."""
    ratios = [(r, c) for r in range(1, 5) for c in range(1, 5) if r * c <= 4]
    rows, columns = ratios[ratio - 1]
    side = tiles.shape[-1]
    whole = tiles[: rows * columns].reshape(rows, columns, 3, side, side).transpose(2, 0, 3, 1, 4)
    return whole.reshape(3, rows * side, columns * side)


def canvases() -> dict[str, np.ndarray]:
    out = {}
    rgb = load_file(HERE / "images/golden.safetensors")
    for side in TILES:
        plain = MllamaImageProcessor(size={"height": side, "width": side}, do_rescale=False, do_normalize=False)
        for name in SAMPLES:
            made = plain(images=Image.fromarray(rgb[f"{name}.rgb"]), return_tensors="np")
            ratio = int(made["aspect_ratio_ids"][0, 0])
            canvas = canvas_of(made["pixel_values"][0, 0], ratio)
            assert (canvas == canvas.round()).all()
            out[f"{name}.canvas.{side}"] = np.ascontiguousarray(canvas.transpose(1, 2, 0).astype(np.uint8))
            out[f"{name}.ratio.{side}"] = np.array([ratio], np.int32)
    whole = MllamaImageProcessor(size={"height": 32, "width": 32}, image_mean=MEAN, image_std=STD)
    made = whole(images=Image.fromarray(rgb["china.rgb"]), return_tensors="np")
    ratio = int(made["aspect_ratio_ids"][0, 0])
    out["china.pixel_values.32"] = np.ascontiguousarray(canvas_of(made["pixel_values"][0, 0], ratio))
    out["fits"] = fits()
    return out


def fits() -> np.ndarray:
    """Rows of: tile, most tiles, height, width, canvas height and width, image height and width."""
    dice = np.random.default_rng(20261126)
    rows = []
    for at in range(1500):
        side, most = [(448, 4), (560, 4), (32, 4), (14, 2), (100, 6)][at % 5]
        height, width = (int(x) for x in dice.integers(1, 40 if at % 7 == 0 else 2600, 2))
        if at % 11 == 0:
            height, width = side * int(dice.integers(1, 5)), side * int(dice.integers(1, 5))
        canvas = [int(x) for x in get_optimal_tiled_canvas(height, width, most, side)]
        fit = [int(x) for x in get_image_size_fit_to_canvas(height, width, *canvas, side)]
        rows.append([side, most, height, width, *canvas, *fit])
    return np.array(rows, np.int32)


def files() -> dict[Path, bytes]:
    tokenizer = make_tokenizer()
    p = processor(tokenizer)
    side = CASE.vision["image_size"]
    preprocessor = {
        "do_convert_rgb": True,
        "do_normalize": True,
        "do_pad": True,
        "do_rescale": True,
        "do_resize": True,
        "image_mean": MEAN,
        "image_processor_type": "MllamaImageProcessor",
        "image_std": STD,
        "max_image_tiles": 4,
        "resample": 2,
        "rescale_factor": 1 / 255,
        "size": {"height": side, "width": side},
    }
    config = {"bos_token": SPECIAL[0], "eos_token": SPECIAL[4], "pad_token": SPECIAL[6], "tokenizer_class": "PreTrainedTokenizerFast"}
    as_json = lambda value: (json.dumps(value, indent=1, ensure_ascii=False) + "\n").encode()  # noqa: E731
    return {
        FOLDER / "tokenizer.json": (tokenizer.to_str() + "\n").encode(),
        FOLDER / "tokenizer_config.json": as_json(config),
        FOLDER / "chat_template.json": as_json({"chat_template": TEMPLATE}),
        FOLDER / "preprocessor_config.json": as_json(preprocessor),
        FOLDER / "texts.json": as_json(texts(p)),
        FOLDER / "self_test.json": as_json(self_test(p)),
    }


def same(stored: dict[str, np.ndarray], now: dict[str, np.ndarray]) -> bool:
    return stored.keys() == now.keys() and all(np.array_equal(stored[k], now[k]) for k in now)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--check", action="store_true", help="verify instead of writing")
    args = parser.parse_args()
    logging.set_verbosity_error()
    torch.set_num_threads(1)
    made, images = files(), canvases()
    if args.check:
        wrong = [str(path.name) for path, content in made.items() if path.read_bytes() != content]
        wrong += [] if same(load_file(CANVASES), images) else [CANVASES.name]
        print("all hold" if not wrong else f"FAILED  {wrong}")
        return min(len(wrong), 1)
    for path, content in made.items():
        path.write_bytes(content)
    save_file(images, CANVASES)
    print(f"wrote {len(made)} files and {len(images)} tensors")
    return 0


if __name__ == "__main__":
    sys.exit(main())
