#!/usr/bin/env python3
"""Writes a PaliGemma-3B-448-sized model with random bf16 weights and a group of eight responses.

    python benches/paligemma_3b.py /tmp/3b
    sleuth bench --model /tmp/3b --inputs /tmp/3b/inputs.safetensors --repeat 1
    python benches/paligemma_3b.py /tmp/shallow --layers 1    # one layer of the tower, one of the decoder
    python benches/paligemma_3b.py /tmp/3b --no-weights       # for sleuth train --dry-run

Needs numpy only, 6 GB of disk and about a minute. Weights have variance 1 / fan-in. The tokenizer is that of
models/mini, whose ids are few of the 257,216.
"""

from __future__ import annotations

import argparse
import json
import shutil
from pathlib import Path

import numpy as np

VISION = {
    "hidden_size": 1152,
    "image_size": 448,
    "intermediate_size": 4304,
    "model_type": "siglip_vision_model",
    "num_attention_heads": 16,
    "num_hidden_layers": 27,
    "patch_size": 14,
}
TEXT = {
    "head_dim": 256,
    "hidden_size": 2048,
    "intermediate_size": 16384,
    "model_type": "gemma",
    "num_attention_heads": 8,
    "num_hidden_layers": 18,
    "num_key_value_heads": 1,
    "vocab_size": 257216,
}
CONFIG = {
    "architectures": ["PaliGemmaForConditionalGeneration"],
    "model_type": "paligemma",
    "image_token_index": 257152,
    "projection_dim": TEXT["hidden_size"],
    "text_config": TEXT,
    "vision_config": VISION,
    "vocab_size": TEXT["vocab_size"],
}
RESPONSES, PROMPT, RESPONSE = 8, 24, 64
WRITE_ROWS = 4096
MINI = Path(__file__).parent / "../models/mini"


def shapes() -> dict[str, tuple[int, ...]]:
    """Every tensor under its published name."""
    v, wide = VISION["hidden_size"], VISION["intermediate_size"]
    t, mlp = TEXT["hidden_size"], TEXT["intermediate_size"]
    q = TEXT["num_attention_heads"] * TEXT["head_dim"]
    kv = TEXT["num_key_value_heads"] * TEXT["head_dim"]
    patches = (VISION["image_size"] // VISION["patch_size"]) ** 2
    tower = "vision_tower.vision_model"
    out = {
        f"{tower}.embeddings.patch_embedding.weight": (v, 3, VISION["patch_size"], VISION["patch_size"]),
        f"{tower}.embeddings.patch_embedding.bias": (v,),
        f"{tower}.embeddings.position_embedding.weight": (patches, v),
        f"{tower}.post_layernorm.weight": (v,),
        f"{tower}.post_layernorm.bias": (v,),
        "multi_modal_projector.linear.weight": (t, v),
        "multi_modal_projector.linear.bias": (t,),
        "language_model.model.embed_tokens.weight": (TEXT["vocab_size"], t),
        "language_model.model.norm.weight": (t,),
    }
    for i in range(VISION["num_hidden_layers"]):
        layer = f"{tower}.encoder.layers.{i}"
        for name in ("q_proj", "k_proj", "v_proj", "out_proj"):
            out |= {f"{layer}.self_attn.{name}.weight": (v, v), f"{layer}.self_attn.{name}.bias": (v,)}
        out |= {f"{layer}.mlp.fc1.weight": (wide, v), f"{layer}.mlp.fc1.bias": (wide,)}
        out |= {f"{layer}.mlp.fc2.weight": (v, wide), f"{layer}.mlp.fc2.bias": (v,)}
        for name in ("layer_norm1", "layer_norm2"):
            out |= {f"{layer}.{name}.weight": (v,), f"{layer}.{name}.bias": (v,)}
    for i in range(TEXT["num_hidden_layers"]):
        layer = f"language_model.model.layers.{i}"
        out |= {
            f"{layer}.self_attn.q_proj.weight": (q, t),
            f"{layer}.self_attn.k_proj.weight": (kv, t),
            f"{layer}.self_attn.v_proj.weight": (kv, t),
            f"{layer}.self_attn.o_proj.weight": (t, q),
            f"{layer}.mlp.gate_proj.weight": (mlp, t),
            f"{layer}.mlp.up_proj.weight": (mlp, t),
            f"{layer}.mlp.down_proj.weight": (t, mlp),
            f"{layer}.input_layernorm.weight": (t,),
            f"{layer}.post_attention_layernorm.weight": (t,),
        }
    return out


def bf16(values: np.ndarray) -> bytes:
    return (values.view(np.uint32) >> 16).astype("<u2").tobytes()


def write_weights(file: Path) -> None:
    random = np.random.default_rng(20)
    header, at = {}, 0
    for name, shape in shapes().items():
        end = at + 2 * int(np.prod(shape))
        header[name] = {"dtype": "BF16", "shape": shape, "data_offsets": [at, end]}
        at = end
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    with file.open("wb") as out:
        out.write(len(text).to_bytes(8, "little") + text)
        for name, shape in shapes().items():
            rows, width = shape[0], int(np.prod(shape[1:]))
            if len(shape) == 1:
                ones = "norm" in name and "weight" in name and "language" not in name
                values = random.standard_normal(rows, dtype=np.float32) * np.float32(0.02)
                out.write(bf16(values + np.float32(ones)))
                continue
            for start in range(0, rows, WRITE_ROWS):
                part = (min(WRITE_ROWS, rows - start), width)
                out.write(bf16(random.standard_normal(part, dtype=np.float32) * np.float32(width**-0.5)))


def write_tensors(file: Path, tensors: dict[str, np.ndarray]) -> None:
    kinds = {"float32": "F32", "int64": "I64"}
    header, at = {}, 0
    for name, tensor in tensors.items():
        end = at + tensor.nbytes
        header[name] = {"dtype": kinds[str(tensor.dtype)], "shape": tensor.shape, "data_offsets": [at, end]}
        at = end
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    data = b"".join(tensor.tobytes() for tensor in tensors.values())
    file.write_bytes(len(text).to_bytes(8, "little") + text + data)


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("folder", type=Path)
    parser.add_argument("--layers", type=int, help="of the tower and of the decoder, instead of 27 and 18")
    parser.add_argument("--no-weights", action="store_true")
    arguments = parser.parse_args()
    folder = arguments.folder
    folder.mkdir(parents=True, exist_ok=True)
    if arguments.layers:
        VISION["num_hidden_layers"] = TEXT["num_hidden_layers"] = arguments.layers
    shutil.copy(MINI / "tokenizer.json", folder)
    preprocessor = json.loads((MINI / "preprocessor_config.json").read_text())
    preprocessor |= {"image_seq_length": 1024, "size": {"height": VISION["image_size"], "width": VISION["image_size"]}}
    (folder / "preprocessor_config.json").write_text(json.dumps(preprocessor, indent=2))
    (folder / "config.json").write_text(json.dumps(CONFIG, indent=2))
    random = np.random.default_rng(7)
    t, size = TEXT["hidden_size"], VISION["image_size"]
    head = random.standard_normal((1, t), dtype=np.float32) * np.float32(t**-0.5)
    write_tensors(
        folder / "reward_head.safetensors", {"score.weight": head, "score.bias": np.zeros(1, np.float32)}
    )
    write_tensors(
        folder / "inputs.safetensors",
        {
            "pixel_values": random.uniform(-1, 1, (1, 3, size, size)).astype(np.float32),
            "prompt_ids": random.integers(200, 250_000, (1, PROMPT)),
            "response_ids": random.integers(200, 250_000, (1, RESPONSES, RESPONSE)),
        },
    )
    if arguments.no_weights:
        return
    write_weights(folder / "model.safetensors")
    print(f"{folder}: {(folder / 'model.safetensors').stat().st_size / 1e9:.2f} GB")


if __name__ == "__main__":
    main()
