"""The one workload that every contestant scores: a random PaliGemma, images, prompts and responses.

python workload.py FOLDER     # writes FOLDER/model and FOLDER/inputs.safetensors, prints the right logits
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import NamedTuple

import torch
from safetensors.torch import load_file, save_file
from tokenizers import Tokenizer, models
from torch import Tensor, nn
from transformers import PaliGemmaModel

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
from against_transformers import BOS, CONFIG, IMAGE_TOKEN, NEWLINE, VOCABULARY, random_model, write_model

GROUPS, RESPONSES, PROMPT, RESPONSE = 4, 8, 24, 64
IMAGE_SIZE = CONFIG["vision_config"]["image_size"]
PATCHES = (IMAGE_SIZE // CONFIG["vision_config"]["patch_size"]) ** 2


class Inputs(NamedTuple):
    pixels: Tensor  # f32 [G,3,H,W]
    prompt: Tensor  # i64 [G,P]
    response: Tensor  # i64 [G,R,S]


def random_inputs(groups: int, responses: int, prompt: int, response: int) -> Inputs:
    """Pixels are those of 8-bit images, so that peers that take only images see the same numbers."""
    random = torch.Generator().manual_seed(7)
    images = torch.randint(0, 256, (groups, 3, IMAGE_SIZE, IMAGE_SIZE), generator=random)
    prompts = torch.randint(200, IMAGE_TOKEN, (groups, prompt), generator=random)
    prompts[:, 0], prompts[:, -1] = BOS, NEWLINE
    tokens = torch.randint(200, IMAGE_TOKEN, (groups, responses, response), generator=random)
    return Inputs(images / 127.5 - 1, prompts, tokens)


def write_inputs(file: Path, inputs: Inputs) -> None:
    pixels, prompt, response = inputs
    save_file({"pixel_values": pixels, "prompt_ids": prompt, "response_ids": response}, file)


def read_inputs(folder: Path) -> Inputs:
    tensors = load_file(folder / "inputs.safetensors")
    return Inputs(tensors["pixel_values"], tensors["prompt_ids"], tensors["response_ids"])


def read_weights(folder: Path) -> dict[str, Tensor]:
    return load_file(folder / "model/model.safetensors") | load_file(folder / "model/reward_head.safetensors")


def write_processor(folder: Path) -> None:
    """A tokenizer of made-up words and the image processor, which only servers of text and images need."""
    words = {IMAGE_TOKEN: "<image>", BOS: "<bos>", NEWLINE: "\n", 0: "<pad>", 1: "<eos>", 3: "<unk>"}
    tokenizer = Tokenizer(models.WordLevel({words.get(i, f"w{i}"): i for i in range(VOCABULARY)}, "<unk>"))
    tokenizer.save(str(folder / "tokenizer.json"))
    special = {f"{name}_token": f"<{name}>" for name in ("bos", "eos", "pad", "unk", "image")}
    more = {"tokenizer_class": "PreTrainedTokenizerFast", "add_bos_token": False, "extra_special_tokens": ["<image>"]}
    (folder / "tokenizer_config.json").write_text(json.dumps(special | more))
    image = {
        "do_normalize": True,
        "do_rescale": True,
        "do_resize": True,
        "image_mean": [0.5] * 3,
        "image_processor_type": "SiglipImageProcessor",
        "image_seq_length": PATCHES,
        "image_std": [0.5] * 3,
        "processor_class": "PaliGemmaProcessor",
        "resample": 3,
        "rescale_factor": 1 / 255,
        "size": {"height": IMAGE_SIZE, "width": IMAGE_SIZE},
    }
    (folder / "preprocessor_config.json").write_text(json.dumps(image))


@torch.inference_mode()
def own_prefix(model: PaliGemmaModel, head: nn.Linear, inputs: Inputs, batch: int, causal: bool = False) -> Tensor:
    """Logits [G,R,S] by transformers, every sequence with its own image and prompt, `batch` at a time.

    Image and prompt see one another; where `causal`, no token sees a later one, which is wrong.
    """
    groups, responses, tokens = inputs.response.shape
    pixels, prompt = (t.repeat_interleave(responses, 0) for t in inputs[:2])
    ids = torch.cat([image_tokens(len(prompt)), prompt, inputs.response.flatten(0, 1)], 1)
    types = torch.ones_like(ids)
    types[:, : 0 if causal else -tokens] = 0
    states = [
        model(
            input_ids=i, pixel_values=p, token_type_ids=t, attention_mask=torch.ones_like(i), use_cache=False
        ).last_hidden_state[:, -tokens:]
        for i, p, t in zip(ids.split(batch), pixels.split(batch), types.split(batch), strict=True)
    ]
    return head(torch.cat(states)).view(groups, responses, tokens)


def image_tokens(count: int) -> Tensor:
    return torch.full((count, PATCHES), IMAGE_TOKEN)


def useful_gflop() -> float:
    """What the logits need: every prefix once, and of its last layer keys and values only."""
    vision, text = CONFIG["vision_config"], CONFIG["text_config"]
    wide, hidden, layers = vision["hidden_size"], text["hidden_size"], text["num_hidden_layers"]
    image_layer = 4 * wide * wide + 2 * wide * vision["intermediate_size"] + 2 * PATCHES * wide
    patch = vision["num_hidden_layers"] * image_layer + (3 * vision["patch_size"] ** 2 + hidden) * wide
    queries = text["num_attention_heads"] * text["head_dim"]
    keys = 2 * hidden * text["num_key_value_heads"] * text["head_dim"]
    other = 2 * hidden * queries + 3 * hidden * text["intermediate_size"]
    prefix, seen = PATCHES + PROMPT, PATCHES + PROMPT + (RESPONSE + 1) / 2
    prefix_row = layers * keys + (layers - 1) * (other + 2 * prefix * queries)
    response_row = layers * (keys + other + 2 * seen * queries)
    return 2 * GROUPS * (PATCHES * patch + prefix * prefix_row + RESPONSES * RESPONSE * response_row) / 1e9


def main() -> None:
    folder = Path(sys.argv[1])
    model, head = random_model()
    write_model(folder / "model", model, head)
    write_processor(folder / "model")
    inputs = random_inputs(GROUPS, RESPONSES, PROMPT, RESPONSE)
    write_inputs(folder / "inputs.safetensors", inputs)
    right, wrong = (own_prefix(model, head, inputs, 8, causal).flatten().tolist() for causal in (False, True))
    size = {"parameters": sum(p.numel() for p in model.parameters()), "gflop": useful_gflop()}
    print(json.dumps(size | {"logits": right, "causal_logits": wrong}))


if __name__ == "__main__":
    main()
