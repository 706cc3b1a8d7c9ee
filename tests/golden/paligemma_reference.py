"""What transformers and PEFT compute for a case: the reference."""

from __future__ import annotations

from pathlib import Path

import torch
from peft import PeftModel
from peft.tuners.lora import LoraLayer
from safetensors.torch import load_file
from torch import Tensor, nn
from transformers import PaliGemmaForConditionalGeneration

from paligemma_cases import Case, Inputs, inputs_of


class RewardModel(PaliGemmaForConditionalGeneration):
    """PaliGemma with TLDR's head beside its parts: what a trainer of today adapts."""

    _keys_to_ignore_on_load_missing = (r"score\.",)

    def __init__(self, config):
        super().__init__(config)
        self.score = nn.Linear(config.text_config.hidden_size, 1)


class OldLayout(nn.Module):
    """The same modules under the paths they had up to transformers 4.51.

    It has no `config` on purpose: PEFT would rename its keys to those of today.
    """

    def __init__(self, inner: RewardModel):
        super().__init__()
        self.vision_tower = nn.Module()
        self.vision_tower.vision_model = inner.model.vision_tower
        self.multi_modal_projector = inner.model.multi_modal_projector
        self.language_model = nn.Module()
        self.language_model.model = inner.model.language_model
        self.score = inner.score


def read_base(folder: Path, attention: str = "eager") -> RewardModel:
    model, info = RewardModel.from_pretrained(
        folder, dtype=torch.float32, attn_implementation=attention, output_loading_info=True
    )
    if info["missing_keys"] or info["unexpected_keys"] or info["mismatched_keys"]:
        raise SystemExit(f"{folder.name}: transformers does not read its own layout: {info}")
    return model.eval()


def read_model(folder: Path, attention: str = "eager") -> tuple[RewardModel, PeftModel | None]:
    """The model as stored. LoRA layers live inside it; the PEFT wrapper is returned to scale them."""
    model = read_base(folder, attention)
    adapter = folder / "adapter"
    if not adapter.is_dir():
        head = load_file(folder / "reward_head.safetensors")
        model.score.weight.data = head["score.weight"].float()
        model.score.bias.data = head["score.bias"].float()
        return model, None
    keys = load_file(adapter / "adapter_model.safetensors")
    old = any(k.startswith("base_model.model.language_model.model.") for k in keys)
    wrapped = OldLayout(model) if old else model
    peft_model = PeftModel.from_pretrained(wrapped, adapter).eval()
    read_back(peft_model, keys)
    model.score = wrapped.score
    return model, peft_model


def read_back(peft_model: PeftModel, keys: dict[str, Tensor]) -> None:
    """Fails unless each stored adapter tensor is in the model, so that no golden is of the base."""
    state = peft_model.state_dict()
    for key, value in keys.items():
        inner = key.replace("score.", "score.modules_to_save.default.")
        inner = inner.replace("lora_A.", "lora_A.default.").replace("lora_B.", "lora_B.default.")
        if inner not in state or not torch.equal(state[inner], value):
            raise SystemExit(f"PEFT did not load {key}")


@torch.inference_mode()
def states(model: RewardModel, x: Inputs, response: Tensor, types: str = "causal", **kwargs) -> Tensor:
    """Final-norm states f32 [N + P + S, hidden]. `types` is a suffix attention, or "absent"."""
    vision_config = model.config.vision_config
    n = (vision_config.image_size // vision_config.patch_size) ** 2
    ids = torch.cat([torch.full((n,), model.config.image_token_index), x.prompt, response])[None]
    prefix = n + len(x.prompt)
    token_types = torch.zeros_like(ids)
    if types == "causal":
        token_types[:, prefix:] = 1
    given = {} if types == "absent" else {"token_type_ids": token_types}
    out = model.model(
        input_ids=ids, pixel_values=x.pixels, attention_mask=torch.ones_like(ids), use_cache=False, **given, **kwargs
    )
    return out.last_hidden_state[0]


@torch.inference_mode()
def image_rows(model: RewardModel, x: Inputs) -> Tensor:
    return model.model.get_image_features(x.pixels).pooler_output.reshape(-1, model.config.text_config.hidden_size)


def scale_lora(peft_model: PeftModel, factor: float) -> None:
    for module in peft_model.modules():
        if isinstance(module, LoraLayer):
            module.scale_layer(factor)


@torch.inference_mode()
def golden_of(case: Case, folder: Path, attention: str = "eager") -> dict[str, Tensor]:
    x = inputs_of(case)
    model, peft_model = read_model(folder, attention)
    prefix = states(model, x, torch.empty(0, dtype=torch.long))
    out = {
        "pixel_values": x.pixels,
        "prompt_ids": x.prompt,
        "image_features": image_rows(model, x),
        "prefix_hidden": prefix,
    }
    for r, ids in enumerate(x.responses):
        hidden = states(model, x, ids, case.suffix)[len(prefix) :]
        out[f"response_ids.{r}"] = ids
        out[f"hidden.{r}"] = hidden
        out[f"logits.{r}"] = model.score(hidden)[:, 0]
    if peft_model is not None:
        tau = case.adapter.tau
        scale_lora(peft_model, tau)
        out["tau"] = torch.tensor([tau])
        for r, ids in enumerate(x.responses):
            out[f"logits_tau.{r}"] = model.score(states(model, x, ids, case.suffix)[len(prefix) :])[:, 0]
    return {k: v.clone().contiguous() for k, v in out.items()}
