"""What mllama.py times: a random Llama 3.2 Vision, its inputs, and how transformers 4.54.1 scores them.

The shape keeps the published model's proportions: a cross-attention layer in five, a global layer behind
four local ones, K/V heads for four query heads each, heads of 80 in the tower, an MLP 3.5 times as wide as
the decoder. An image of 4 tiles has 1,028 states, a sixth of the published 560-pixel tiles'.
"""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import NamedTuple

import torch
from safetensors.torch import save_file
from torch import Tensor, nn
from transformers import DynamicCache, MllamaConfig, PreTrainedTokenizerFast
from transformers.models.mllama.modeling_mllama import MllamaModel

REPOSITORY = Path(__file__).resolve().parent.parent
# Tokenizer, chat template and preprocessor are those of the golden files.
INSTRUCT = REPOSITORY / "tests/golden/mllama/instruct"
RESPONSES, RESPONSE = 8, 64
PROMPT = "Describe the picture: what is there, and where?"
CANVAS, RATIO_ID, TILE, IMAGE_TOKEN, VOCABULARY = (2, 2), 6, 224, 400, 32_000
HIDDEN = 512
TEXT = {
    "cross_attention_layers": [3, 8],
    "hidden_size": HIDDEN,
    "intermediate_size": 1792,
    "model_type": "mllama_text_model",
    "num_attention_heads": 8,
    "num_hidden_layers": 10,
    "num_key_value_heads": 2,
    "pad_token_id": 4,
    "rope_scaling": {
        "rope_type": "llama3",
        "factor": 8.0,
        "low_freq_factor": 1.0,
        "high_freq_factor": 4.0,
        "original_max_position_embeddings": 8192,
    },
    "vocab_size": VOCABULARY,
}
VISION = {
    "attention_heads": 4,
    "hidden_size": 320,
    "image_size": TILE,
    "intermediate_layers_indices": [1, 2, 4, 6, 7],
    "intermediate_size": 1280,
    "model_type": "mllama_vision_model",
    "num_global_layers": 2,
    "num_hidden_layers": 8,
    "patch_size": 14,
    "vision_output_dim": 320 * 6,
}
CONFIG = {
    "architectures": ["MllamaForConditionalGeneration"],
    "image_token_index": IMAGE_TOKEN,
    "model_type": "mllama",
    "text_config": TEXT,
    "vision_config": VISION,
}


class Inputs(NamedTuple):
    pixels: Tensor  # f32 [G,3,H,W]
    prompt: Tensor  # i64 [G,P]
    response: Tensor  # i64 [G,R,S]


# === the model and the inputs ===


def random_model() -> tuple[MllamaModel, nn.Linear]:
    """Weights of variance 1 / fan-in, so that states stay of order 1 through all layers; gates far from 0."""
    torch.manual_seed(20)
    model = MllamaModel(MllamaConfig(**CONFIG)).eval()
    norms = {f"{n}.weight" for n, m in model.named_modules() if "Norm" in type(m).__name__}
    for name, p in model.named_parameters():
        if name in norms:
            p.data = 1 + 0.1 * torch.randn_like(p)
        elif "gate" in name and p.numel() == 1:
            p.data.normal_(std=0.8)
        elif "embed" in name and "patch" not in name:
            p.data.normal_()
        elif p.dim() > 1:
            p.data.normal_(std=p[0].numel() ** -0.5)
        else:
            p.data.normal_(std=0.02)
    return model, nn.Linear(HIDDEN, 1)


def write_model(folder: Path, model: MllamaModel, head: nn.Linear) -> None:
    """A folder that can be served."""
    folder.mkdir()
    for name in ("tokenizer.json", "tokenizer_config.json", "chat_template.json"):
        shutil.copy(INSTRUCT / name, folder / name)
    preprocessor = json.loads((INSTRUCT / "preprocessor_config.json").read_text())
    preprocessor["size"] = {"height": TILE, "width": TILE}
    reward = {"prompt": PROMPT, "threshold": 0.5}
    files = {"config.json": CONFIG, "preprocessor_config.json": preprocessor, "reward_config.json": reward}
    for name, value in files.items():
        (folder / name).write_text(json.dumps(value, indent=2) + "\n")
    hub = {k.replace("language_model.", "language_model.model.", 1): v for k, v in model.state_dict().items()}
    save_file({k: v.contiguous() for k, v in hub.items()}, folder / "model.safetensors", {"format": "pt"})
    save_file({"score.weight": head.weight.data, "score.bias": head.bias.data}, folder / "reward_head.safetensors")


def prompt_ids(folder: Path) -> Tensor:
    """The prompt in the folder's chat template, i64 [P]: a user header, the image, the text, the other header."""
    template = json.loads((folder / "chat_template.json").read_text())["chat_template"]
    tokenizer = PreTrainedTokenizerFast.from_pretrained(folder)
    messages = [{"role": "user", "content": [{"type": "image"}, {"type": "text", "text": PROMPT}]}]
    ids = tokenizer.apply_chat_template(messages, chat_template=template, add_generation_prompt=True)
    return torch.tensor(ids)


def random_inputs(prompt: Tensor, groups: int, seed: int) -> Inputs:
    """New images and responses for each seed."""
    random = torch.Generator().manual_seed(seed)
    height, width = (side * TILE for side in CANVAS)
    pixels = torch.rand((groups, 3, height, width), generator=random) * 4 - 2
    response = torch.randint(IMAGE_TOKEN + 1, VOCABULARY, (groups, RESPONSES, RESPONSE), generator=random)
    return Inputs(pixels, prompt.repeat(groups, 1), response)


def write_inputs(file: Path, inputs: Inputs) -> None:
    pixels, prompt, response = inputs
    save_file({"pixel_values": pixels, "prompt_ids": prompt, "response_ids": response}, file)


# === transformers ===


def image(pixels: Tensor) -> dict[str, Tensor]:
    """What `MllamaImageProcessor` makes of canvases f32 [N,3,H,W]."""
    count, (rows, columns) = len(pixels), CANVAS
    tiles = pixels.view(count, 3, rows, TILE, columns, TILE).permute(0, 2, 4, 1, 3, 5)
    return {
        "pixel_values": tiles.reshape(count, 1, rows * columns, 3, TILE, TILE),
        "aspect_ratio_ids": torch.full((count, 1), RATIO_ID),
        "aspect_ratio_mask": torch.ones((count, 1, rows * columns), dtype=torch.long),
    }


def cross_mask(ids: Tensor) -> Tensor:
    """As `MllamaProcessor` makes it, i64 [N,T,1,tiles]: the image is seen from its place on."""
    sees = (ids == IMAGE_TOKEN).cumsum(1)
    return sees[:, :, None, None].expand(-1, -1, 1, CANVAS[0] * CANVAS[1])


@torch.inference_mode()
def own_prefix(model: MllamaModel, head: nn.Linear, inputs: Inputs) -> Tensor:
    """Logits [G,R,S], every sequence with its own image and prompt, a group at a time."""
    groups, responses, tokens = inputs.response.shape
    pixels, prompt = (t.repeat_interleave(responses, 0) for t in inputs[:2])
    ids = torch.cat([prompt, inputs.response.flatten(0, 1)], 1)
    states = []
    for i, p in zip(ids.split(responses), pixels.split(responses), strict=True):
        masks = {"attention_mask": torch.ones_like(i), "cross_attention_mask": cross_mask(i)}
        out = model(input_ids=i, **image(p), **masks, use_cache=False)
        states.append(out.last_hidden_state[:, -tokens:])
    return head(torch.cat(states)).view(groups, responses, tokens)


@torch.inference_mode()
def shared_prefix(model: MllamaModel, head: nn.Linear, inputs: Inputs) -> Tensor:
    """The same, all at a time; responses attend to copies of their image's and prompt's keys and values."""
    pixels, prompt, response = inputs
    cache = DynamicCache()
    model(input_ids=prompt, **image(pixels), cross_attention_mask=cross_mask(prompt), past_key_values=cache)
    cache.batch_repeat_interleave(response.shape[1])
    ids = response.flatten(0, 1)
    seen = torch.ones((*ids.shape, 1, CANVAS[0] * CANVAS[1]), dtype=torch.long)
    out = model(input_ids=ids, cross_attention_mask=seen, past_key_values=cache)
    return head(out.last_hidden_state).view(response.shape)
