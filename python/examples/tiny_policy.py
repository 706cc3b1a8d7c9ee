"""A vision-language policy of some 100 KB with random weights, and drawn scenes to train it on.

It is LLaVA's architecture with a tokenizer that is trained here on the captions. Nothing is
downloaded; it learns nothing worth having, but all of a trainer's path runs on a CPU in seconds.
"""

from __future__ import annotations

import json
import subprocess
from pathlib import Path
from typing import Any

from datasets import Dataset, Image, Sequence
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import (
    CLIPImageProcessorPil,
    CLIPVisionConfig,
    LlamaConfig,
    LlavaConfig,
    LlavaForConditionalGeneration,
    LlavaProcessor,
    PreTrainedTokenizerFast,
)

IMAGE_SIZE, PATCH_SIZE = 28, 14
PROMPT = "Describe the image."
CHAT = (
    "{% for m in messages %}{{ m['role'] }}: "
    "{% if m['content'] is string %}{{ m['content'] }}"
    "{% else %}{% for part in m['content'] %}"
    "{% if part['type'] == 'image' %}<image>{% else %}{{ part['text'] }}{% endif %}"
    "{% endfor %}{% endif %}\n{% endfor %}"
    "{% if add_generation_prompt %}assistant: {% endif %}"
)


def draw_scenes(binary: Path, folder: Path, count: int, seed: int = 1) -> list[dict[str, Any]]:
    """Draws images, and gives the lines of their responses."""
    command = [binary, "scenes", "--split", "train", "--seed", str(seed), "--count", str(count)]
    subprocess.run([*command, "--out", folder], check=True, capture_output=True)
    lines = (folder / "data.jsonl").read_text().splitlines()
    return [{**row, "image": str(folder / row["image"])} for row in map(json.loads, lines)]


def prompts(rows: list[dict[str, Any]], *, with_pixels: bool = True) -> Dataset:
    """A data set of one prompt per image, as TRL's trainers take it.

    With pixels the prompts are for the VLM; without, the image is a column `picture` of paths that
    a text policy never sees.
    """
    paths = sorted({row["image"] for row in rows})
    if not with_pixels:
        return Dataset.from_dict({"prompt": [PROMPT] * len(paths), "picture": paths})
    asked = [[{"role": "user", "content": PROMPT}]] * len(paths)
    data = Dataset.from_dict({"prompt": asked, "images": [[path] for path in paths]})
    return data.cast_column("images", Sequence(Image()))


def tokenizer(rows: list[dict[str, Any]]) -> PreTrainedTokenizerFast:
    """A byte-level BPE of 320 tokens."""
    made = Tokenizer(models.BPE())
    made.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    made.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=320,
        special_tokens=["<pad>", "<s>", "</s>", "<image>"],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    made.train_from_iterator([row["response"] for row in rows], trainer)
    return PreTrainedTokenizerFast(
        tokenizer_object=made,
        pad_token="<pad>",
        bos_token="<s>",
        eos_token="</s>",
        extra_special_tokens={"image_token": "<image>"},
        padding_side="left",
        chat_template=CHAT,
    )


def language_config(tokens: PreTrainedTokenizerFast) -> LlamaConfig:
    """A language model of 32 dimensions and two layers."""
    return LlamaConfig(
        vocab_size=len(tokens),
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=2,
        num_attention_heads=2,
        num_key_value_heads=2,
        max_position_embeddings=512,
        pad_token_id=tokens.pad_token_id,
        bos_token_id=tokens.bos_token_id,
        eos_token_id=tokens.eos_token_id,
    )


def policy(tokens: PreTrainedTokenizerFast) -> tuple[LlavaForConditionalGeneration, LlavaProcessor]:
    """The policy and its processor."""
    vision = CLIPVisionConfig(
        hidden_size=16,
        intermediate_size=32,
        num_hidden_layers=2,
        num_attention_heads=2,
        image_size=IMAGE_SIZE,
        patch_size=PATCH_SIZE,
    )
    config = LlavaConfig(
        vision_config=vision,
        text_config=language_config(tokens),
        image_token_id=tokens.convert_tokens_to_ids("<image>"),
        image_seq_length=(IMAGE_SIZE // PATCH_SIZE) ** 2,
    )
    processor = LlavaProcessor(
        image_processor=CLIPImageProcessorPil(
            size={"shortest_edge": IMAGE_SIZE},
            crop_size={"height": IMAGE_SIZE, "width": IMAGE_SIZE},
        ),
        tokenizer=tokens,
        patch_size=PATCH_SIZE,
        vision_feature_select_strategy="default",
        num_additional_image_tokens=1,
        chat_template=CHAT,
    )
    return LlavaForConditionalGeneration(config), processor
