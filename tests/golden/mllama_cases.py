"""The tiny Mllama reward models: their shapes, files and random inputs."""

from __future__ import annotations

import zlib
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from transformers.models.mllama.image_processing_mllama import split_to_tiles

WEIGHT_STD = 0.2
GATE_STD = 0.8

# Wavelengths are 2 pi theta^(2i/d): with theta 10000 and heads of 16 they are 6, 20, 63, 199, 628 and so on,
# so that those below 64 stay, those above 256 are divided, and one lies between.
BANDS = {
    "rope_type": "llama3",
    "factor": 8.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 256,
}
RATIOS = [(1, 1), (1, 2), (1, 3), (1, 4), (2, 1), (2, 2), (3, 1), (4, 1)]  # rows, columns


@dataclass(frozen=True)
class Adapter:
    """A LoRA adapter on the decoder and the projector, the reward head saved with it."""

    names: str  # "old": language_model.model.layers…; "new": model.language_model.layers…
    options: dict
    tau: float = 0.5


@dataclass(frozen=True)
class Case:
    """One model folder. `text` and `vision` go into config.json as they are."""

    name: str
    text: dict
    vision: dict
    canvas: tuple[int, int]  # tiles, rows by columns
    before: int = 0  # prompt tokens before <|image|>
    after: int = 4  # prompt tokens behind it
    names: str = "old"  # "old": hub layout; "new": in memory from 4.52 on
    dtype: torch.dtype = torch.float32
    head_dtype: torch.dtype = torch.float32
    weight_std: float = WEIGHT_STD
    shards: int = 1
    response_lens: tuple[int, ...] = (4, 1, 9)
    adapter: Adapter | None = None

    @property
    def image_token(self) -> int:
        """The first of the eight rows that the embedding has above the vocabulary."""
        return self.text["vocab_size"]


def text(hidden, layers, heads, kv, mlp, cross, vocab=160, rope=BANDS, **more) -> dict:
    return {
        "cross_attention_layers": cross,
        "hidden_size": hidden,
        "intermediate_size": mlp,
        "model_type": "mllama_text_model",
        "num_attention_heads": heads,
        "num_hidden_layers": layers,
        "num_key_value_heads": kv,
        "pad_token_id": 4,
        "rope_scaling": rope,
        "vocab_size": vocab,
        **more,
    }


def vision(hidden, local, states, glob, heads, mlp, image, patch, **more) -> dict:
    return {
        "attention_heads": heads,
        "hidden_size": hidden,
        "image_size": image,
        "intermediate_layers_indices": states,
        "intermediate_size": mlp,
        "model_type": "mllama_vision_model",
        "num_global_layers": glob,
        "num_hidden_layers": local,
        "patch_size": patch,
        "vision_output_dim": hidden * (1 + len(states)),
        **more,
    }


def published() -> tuple[dict, dict]:
    """Only what has no default: 40 layers, 8 of them cross; 32 local and 8 global ones, five states."""
    t = text(16, 40, 2, 1, 24, [])
    for key in ("cross_attention_layers", "num_hidden_layers"):
        del t[key]
    v = vision(16, 32, [3, 7, 15, 23, 30], 8, 2, 24, 28, 14)
    for key in ("intermediate_layers_indices", "num_global_layers", "num_hidden_layers", "patch_size"):
        del v[key]
    return t, v


CASES = [
    # Depths, layer patterns, eps and theta by default; one tile; a user header before the image.
    Case(
        "published_defaults",
        *published(),
        canvas=(1, 1),
        before=5,
        dtype=torch.bfloat16,
        weight_std=0.12,
        response_lens=(6, 1, 17),
    ),
    # Four real tiles, the image first, K/V heads in groups, text longer than a page of keys.
    Case(
        "four_tiles",
        text(64, 4, 4, 2, 56, [1, 3], rms_norm_eps=1e-6, rope_theta=10000.0),
        vision(24, 3, [0, 2], 2, 3, 40, 21, 7, norm_eps=1e-6),
        canvas=(2, 2),
        after=61,
        dtype=torch.bfloat16,
        response_lens=(7, 70, 11),
    ),
    # Three tiles side by side and an absent one, tokens before the image, states out of order.
    Case(
        "wide_image",
        text(48, 5, 3, 1, 40, [2, 3], rope_theta=10000.0),
        vision(16, 4, [3, 1, 2], 1, 2, 24, 28, 14),
        canvas=(1, 3),
        before=3,
        after=6,
        dtype=torch.float16,
        head_dtype=torch.float16,
        shards=3,
        response_lens=(5, 12, 2),
    ),
    # Four tiles above each other; the first and the last layer look at the image; plain rotary angles; f32.
    Case(
        "tall_image",
        text(40, 4, 4, 4, 36, [0, 3], rope={"rope_type": "default"}, rope_theta=500.0),
        vision(20, 2, [1], 1, 2, 28, 28, 14, hidden_act="gelu_pytorch_tanh"),
        canvas=(4, 1),
        before=2,
        names="new",
        response_lens=(8, 3),
    ),
    # Two tiles of at most two, one canvas of each kind, a cross layer between; bf16.
    Case(
        "two_tiles",
        text(32, 3, 2, 1, 40, [1], rope_theta=10000.0, hidden_act="gelu"),
        vision(
            16, 2, [1, 0], 2, 2, 24, 28, 14, max_num_tiles=2, supported_aspect_ratios=[[1, 1], [1, 2], [2, 1]]
        ),
        canvas=(2, 1),
        before=1,
        names="new",
        dtype=torch.bfloat16,
        head_dtype=torch.bfloat16,
        response_lens=(6, 3, 10),
    ),
    # A folder with everything: make_mllama_inputs.py puts tokenizer, template and preprocessor beside it.
    Case(
        "instruct",
        text(32, 4, 2, 1, 40, [1, 3], vocab=400, rope_theta=10000.0),
        vision(16, 3, [0, 2], 1, 2, 24, 28, 14),
        canvas=(1, 2),
        before=5,
        dtype=torch.bfloat16,
        response_lens=(5, 2),
    ),
    # TLDR's time: modules named as up to 4.51, rank above the width of k and v, gates untouched.
    Case(
        "adapter_wide_rank",
        text(32, 3, 2, 1, 28, [1], rope_theta=10000.0),
        vision(16, 2, [0], 1, 2, 24, 28, 14),
        canvas=(1, 2),
        before=3,
        adapter=Adapter(
            "old",
            {
                "r": 24,
                "lora_alpha": 6,
                "target_modules": r"language_model\..*(q_proj|k_proj|v_proj|o_proj|gate_proj|up_proj|down_proj)"
                r"|multi_modal_projector",
            },
        ),
    ),
    # Today's names, alpha / sqrt(r), a rank of its own for cross layers, bf16 base.
    Case(
        "adapter_rslora",
        text(32, 4, 2, 1, 28, [1, 2], rope_theta=10000.0),
        vision(16, 2, [0, 1], 1, 2, 24, 28, 14),
        canvas=(3, 1),
        dtype=torch.bfloat16,
        adapter=Adapter(
            "new",
            {
                "r": 6,
                "lora_alpha": 3,
                "use_rslora": True,
                "target_modules": r".*language_model\..*(q_proj|v_proj|o_proj|up_proj)|.*multi_modal_projector",
                "rank_pattern": {r"cross_attn\.q_proj": 3},
                "alpha_pattern": {r"cross_attn\.q_proj": 5},
            },
            tau=0.25,
        ),
    ),
]


@dataclass
class Inputs:
    canvas: Tensor  # f32 [3,rows*S,columns*S]
    tiles: Tensor  # f32 [1,1,T,3,S,S], zeros behind the canvas's tiles
    ratio_id: Tensor  # i64 [1,1]
    ratio_mask: Tensor  # i64 [1,1,T]
    prompt: Tensor  # i64 [P], <|image|> among them
    responses: list[Tensor]  # i64 [S]


def generator(*key) -> torch.Generator:
    return torch.Generator().manual_seed(zlib.crc32("/".join(map(str, key)).encode()))


def normal(key, shape, std, mean=0.0) -> Tensor:
    return torch.randn(shape, generator=generator(*key)) * std + mean


def config_of(case: Case) -> dict:
    return {
        "architectures": ["MllamaForConditionalGeneration"],
        "image_token_index": case.image_token,
        "model_type": "mllama",
        "text_config": case.text,
        "vision_config": case.vision,
    }


def ids(case: Case, what: str, n: int) -> Tensor:
    return torch.randint(5, case.text["vocab_size"], (n,), generator=generator("mllama", case.name, what))


def inputs_of(case: Case) -> Inputs:
    rows, columns = case.canvas
    side, most = case.vision["image_size"], case.vision.get("max_num_tiles", 4)
    ratios = [r for r in RATIOS if r[0] * r[1] <= most]
    g = generator("mllama", case.name, "canvas")
    canvas = torch.rand((3, rows * side, columns * side), generator=g) * 3 - 1.5
    tiles = torch.zeros((1, 1, most, 3, side, side))
    tiles[0, 0, : rows * columns] = torch.from_numpy(split_to_tiles(np.asarray(canvas), rows, columns))
    mask = torch.zeros((1, 1, most), dtype=torch.long)
    mask[..., : rows * columns] = 1
    image = torch.tensor([case.image_token])
    prompt = torch.cat([ids(case, "before", case.before), image, ids(case, "after", case.after)])
    responses = [ids(case, f"response.{r}", n) for r, n in enumerate(case.response_lens)]
    return Inputs(canvas, tiles, torch.tensor([[ratios.index(case.canvas) + 1]]), mask, prompt, responses)
