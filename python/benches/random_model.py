"""A random PaliGemma that a server loads, with the tokenizer of models/mini.

Its rewards mean nothing; its cost is that of a model some twenty times models/mini.
"""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import torch
from safetensors.torch import save_file
from transformers import PaliGemmaConfig, PaliGemmaModel

HIDDEN, SIZE = 512, 224
VISION = {
    "hidden_size": 384,
    "image_size": SIZE,
    "intermediate_size": 1536,
    "model_type": "siglip_vision_model",
    "num_attention_heads": 6,
    "num_hidden_layers": 8,
    "patch_size": 14,
    "projection_dim": HIDDEN,
    "vision_use_head": False,
}
TEXT = {
    "head_dim": 64,
    "hidden_size": HIDDEN,
    "intermediate_size": 2048,
    "model_type": "gemma",
    "num_attention_heads": 8,
    "num_hidden_layers": 8,
    "num_key_value_heads": 1,
}


def write_model(mini: Path, folder: Path) -> int:
    """Writes the folder; gives the number of parameters."""
    torch.manual_seed(20)
    config = json.loads((mini / "config.json").read_text())
    text = {**TEXT, "vocab_size": config["text_config"]["vocab_size"]}
    config |= {"hidden_size": HIDDEN, "projection_dim": HIDDEN, "torch_dtype": "float32"}
    config |= {"text_config": text, "vision_config": VISION}
    model = PaliGemmaModel(PaliGemmaConfig(**config))
    # Of variance 1 / fan-in, so that states stay of order 1 through all layers.
    for parameter in model.parameters():
        if parameter.dim() > 1:
            parameter.data.normal_(std=parameter[0].numel() ** -0.5)
    folder.mkdir()
    tensors = {hub_name(k): v.contiguous() for k, v in model.state_dict().items()}
    save_file(tensors, folder / "model.safetensors", {"format": "pt"})
    head = torch.nn.Linear(HIDDEN, 1)
    score = {"score.weight": head.weight.data, "score.bias": head.bias.data}
    save_file(score, folder / "reward_head.safetensors")
    (folder / "config.json").write_text(json.dumps(config))
    preprocessing = json.loads((mini / "preprocessor_config.json").read_text())
    preprocessing["size"] = {"height": SIZE, "width": SIZE}
    (folder / "preprocessor_config.json").write_text(json.dumps(preprocessing))
    reward = {"prompt": "Describe the image.", "suffix_attention": "causal", "threshold": 0.5}
    (folder / "reward_config.json").write_text(json.dumps(reward))
    for name in ("tokenizer.json", "tokenizer_config.json"):
        shutil.copy(mini / name, folder / name)
    return sum(p.numel() for p in model.parameters())


def hub_name(name: str) -> str:
    """A tensor's name in published checkpoints."""
    name = name.replace("vision_tower.", "vision_tower.vision_model.", 1)
    return name.replace("language_model.", "language_model.model.", 1)
