"""The tiny PaliGemma reward models: their shapes, files and random inputs."""

from __future__ import annotations

import zlib
from dataclasses import dataclass, field

import torch
from torch import Tensor

BOS, NEWLINE = 2, 108
WEIGHT_STD = 0.2

# A bare `q_proj` would also hit the frozen vision tower, so targets are told apart by path.
DECODER_LINEARS = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]
NOT_VISION = r".*vision_tower.*"


@dataclass(frozen=True)
class Adapter:
    """A LoRA adapter on the decoder and the projector, the reward head saved with it."""

    names: str  # "old": language_model.model.layers…; "new": model.language_model.layers…
    options: dict
    tau: float = 0.5
    decoy_head: bool = False  # also writes a reward_head.safetensors, which must lose


@dataclass(frozen=True)
class Case:
    """One model folder. `text` and `vision` go into config.json as they are."""

    name: str
    text: dict
    vision: dict
    names: str = "old"  # "old": hub layout; "new": 4.52 to 4.57 in memory; "v5": 5.x in memory
    dtype: torch.dtype = torch.float32
    head_dtype: torch.dtype = torch.float32
    image_token: int = 150
    shards: int = 1
    suffix: str = "causal"
    prompt_len: int = 5  # with <bos> and newline
    response_lens: tuple[int, ...] = (4, 1, 9)
    adapter: Adapter | None = None
    top: dict = field(default_factory=dict)


def text(hidden, layers, heads, kv, mlp, vocab=160, **more) -> dict:
    return {
        "hidden_size": hidden,
        "intermediate_size": mlp,
        "model_type": "gemma",
        "num_attention_heads": heads,
        "num_hidden_layers": layers,
        "num_key_value_heads": kv,
        "vocab_size": vocab,
        **more,
    }


def vision(hidden, layers, heads, mlp, patch, **more) -> dict:
    return {
        "hidden_size": hidden,
        "intermediate_size": mlp,
        "model_type": "siglip_vision_model",
        "num_attention_heads": heads,
        "num_hidden_layers": layers,
        "patch_size": patch,
        "projector_hidden_act": "gelu_fast",
        "vision_use_head": False,
        **more,
    }


CASES = [
    # As Google publishes it: no head_dim (256), hidden_act, rms_norm_eps, rope_theta, image_size (224).
    Case(
        "published_defaults",
        text(16, 2, 2, 1, 40),
        vision(16, 1, 2, 24, 14),
        dtype=torch.bfloat16,
        response_lens=(6, 1, 17),
    ),
    # A K/V head per query head; heads x head_dim (4 x 12) is not the hidden size (28).
    Case(
        "many_kv_heads",
        text(28, 3, 4, 4, 52, head_dim=12, hidden_act="gelu_pytorch_tanh", rms_norm_eps=1e-6, rope_theta=10000.0),
        vision(24, 2, 3, 40, 14, image_size=28),
        response_lens=(7, 2, 11, 5),
    ),
    # Three files in f16, 2 K/V heads for 6, other eps and theta, an image token past the vocabulary,
    # the legacy spelling of the activation (still tanh-GELU) and a long response.
    Case(
        "grouped_sharded",
        text(32, 4, 6, 2, 48, vocab=200, head_dim=8, hidden_act="gelu", rms_norm_eps=1e-5, rope_theta=500.0),
        vision(18, 3, 2, 30, 8, image_size=48, layer_norm_eps=1e-5),
        dtype=torch.float16,
        head_dtype=torch.float16,
        image_token=200,
        shards=3,
        prompt_len=9,
        response_lens=(3, 70, 12),
    ),
    # In-memory names of transformers 4.52 to 4.57, the tied LM head written out.
    Case(
        "new_names",
        text(20, 1, 2, 1, 36, head_dim=16),
        vision(16, 1, 4, 20, 10, image_size=30),
        names="new",
        prompt_len=2,
        response_lens=(5, 8, 2),
    ),
    # In-memory names of transformers 5 (no `vision_model` level), rope_parameters for rope_theta.
    Case(
        "v5_names",
        text(24, 2, 3, 1, 32, head_dim=8, rope_parameters={"rope_theta": 2000.0, "rope_type": "default"}),
        vision(12, 2, 2, 28, 10, image_size=30),
        names="v5",
        dtype=torch.bfloat16,
        head_dtype=torch.bfloat16,
        response_lens=(6, 3, 10),
    ),
    # A checkpoint trained without the prefix mask: everything sees everything.
    Case(
        "full_suffix",
        text(24, 2, 4, 2, 40, head_dim=10),
        vision(16, 2, 2, 24, 14, image_size=28),
        suffix="full",
        response_lens=(6, 1, 9),
    ),
    # Rank 24 is above the width of k and v (8) and of the vision tower (16); old names.
    Case(
        "adapter_wide_rank",
        text(20, 2, 3, 1, 28, head_dim=8),
        vision(16, 1, 2, 24, 14, image_size=28),
        adapter=Adapter(
            "old",
            {
                "r": 24,
                "lora_alpha": 6,
                "target_modules": r"(language_model\..*|multi_modal_projector\.)"
                r"(q_proj|k_proj|v_proj|o_proj|gate_proj|up_proj|down_proj|linear)",
            },
        ),
    ),
    # alpha / sqrt(r), new names, bf16 base, a reward_head.safetensors that the adapter's head beats.
    Case(
        "adapter_rslora",
        text(24, 3, 4, 1, 32, head_dim=8),
        vision(16, 1, 2, 24, 8, image_size=48),
        dtype=torch.bfloat16,
        adapter=Adapter(
            "new",
            {
                "r": 6,
                "lora_alpha": 3,
                "use_rslora": True,
                "target_modules": [*DECODER_LINEARS, "linear"],
                "exclude_modules": NOT_VISION,
            },
            decoy_head=True,
        ),
    ),
    # Ranks and alphas by pattern, targets by regular expression, some linears untouched.
    Case(
        "adapter_patterns",
        text(24, 2, 4, 2, 36, head_dim=6),
        vision(16, 2, 2, 24, 10, image_size=30),
        dtype=torch.float16,
        adapter=Adapter(
            "new",
            {
                "r": 4,
                "lora_alpha": 8,
                "target_modules": r".*language_model\.layers\.\d+\.(self_attn\.[qvo]_proj|mlp\.(gate|down)_proj)"
                r"|.*multi_modal_projector\.linear",
                "rank_pattern": {"q_proj": 7, r"layers\.1\.mlp\.down_proj": 2, "multi_modal_projector.linear": 5},
                "alpha_pattern": {"q_proj": 3, r"layers\.0\.self_attn\.v_proj": 20},
            },
            tau=0.25,
        ),
    ),
]


@dataclass
class Inputs:
    pixels: Tensor  # f32 [1,3,H,W]
    prompt: Tensor  # i64 [P]
    responses: list[Tensor]  # i64 [S]


def generator(*key) -> torch.Generator:
    return torch.Generator().manual_seed(zlib.crc32("/".join(map(str, key)).encode()))


def normal(key, shape, std, mean=0.0) -> Tensor:
    return torch.randn(shape, generator=generator(*key)) * std + mean


def inputs_of(case: Case) -> Inputs:
    size = case.vision.get("image_size", 224)
    pixels = torch.rand((1, 3, size, size), generator=generator(case.name, "pixels")) * 2 - 1
    top = min(case.image_token, case.text["vocab_size"])

    def ids(key, n: int) -> Tensor:
        return torch.randint(3, top, (n,), generator=generator(case.name, key))

    prompt = torch.cat([torch.tensor([BOS]), ids("prompt", case.prompt_len - 2), torch.tensor([NEWLINE])])
    return Inputs(pixels, prompt, [ids(f"response{r}", n) for r, n in enumerate(case.response_lens)])


def config_of(case: Case) -> dict:
    dtype = str(case.dtype).removeprefix("torch.")
    return {
        "architectures": ["PaliGemmaForConditionalGeneration"],
        "bos_token_id": 2,
        "eos_token_id": 1,
        "hidden_size": case.text["hidden_size"],
        "ignore_index": -100,
        "image_token_index": case.image_token,
        "model_type": "paligemma",
        "pad_token_id": 0,
        "projection_dim": case.text["hidden_size"],
        "text_config": case.text,
        "dtype" if case.names == "v5" else "torch_dtype": dtype,
        "vision_config": {**case.vision, "projection_dim": case.text["hidden_size"]},
        "vocab_size": case.text["vocab_size"],
        **case.top,
    }
