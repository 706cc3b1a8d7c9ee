"""What transformers 4.54.1 and PEFT compute for a case: the reference."""

from __future__ import annotations

from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import torch
from peft import PeftModel
from peft.tuners.lora import LoraLayer
from safetensors.torch import load_file
from torch import Tensor, nn
from transformers import MllamaForConditionalGeneration
from transformers.models.mllama.processing_mllama import (
    convert_sparse_cross_attention_mask_to_dense,
    get_cross_attention_token_mask,
)

from mllama_cases import Case, Inputs, inputs_of


class RewardModel(MllamaForConditionalGeneration):
    """Mllama with TLDR's head beside its parts."""

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
        self.vision_model = inner.model.vision_model
        self.multi_modal_projector = inner.model.multi_modal_projector
        self.language_model = nn.Module()
        self.language_model.model = inner.model.language_model
        self.score = inner.score


@dataclass
class States:
    final: Tensor  # [P+S, hidden], after the final norm
    layers: list[Tensor]  # the same of what each layer gives
    seen: Tensor  # [tiles, patches + 1, vision output]
    projected: Tensor  # [tiles, patches + 1, hidden]


def read_base(folder: Path, attention: str = "eager") -> RewardModel:
    model, info = RewardModel.from_pretrained(
        folder, torch_dtype=torch.float32, attn_implementation=attention, output_loading_info=True
    )
    missing = [k for k in info["missing_keys"] if not k.startswith("score.")]
    if missing or info["unexpected_keys"] or info["mismatched_keys"]:
        raise SystemExit(f"{folder.name}: transformers does not read its own layout: {info}")
    model.score = nn.Linear(model.config.text_config.hidden_size, 1)  # what no file holds stays without memory
    return model.eval()


def read_model(folder: Path, attention: str = "eager") -> tuple[RewardModel, PeftModel | None]:
    """The model as stored. LoRA layers live inside it; the PEFT wrapper is returned to scale them."""
    model = read_base(folder, attention)
    adapter = folder / "adapter"
    if not adapter.is_dir():
        head = load_file(folder / "reward_head.safetensors")
        model.score.weight = nn.Parameter(head["score.weight"].float())
        model.score.bias = nn.Parameter(head["score.bias"].float())
        return model, None
    keys = load_file(adapter / "adapter_model.safetensors")
    old = any(k.startswith("base_model.model.language_model.model.") for k in keys)
    wrapped = OldLayout(model) if old else model
    peft_model = PeftModel.from_pretrained(wrapped, adapter).eval()
    read_back(peft_model, keys)
    model.score = wrapped.score
    if old:
        model.model.multi_modal_projector = wrapped.multi_modal_projector
    return model, peft_model


def read_back(peft_model: PeftModel, keys: dict[str, Tensor]) -> None:
    """Fails unless each stored adapter tensor is in the model, so that no golden is of the base."""
    state = peft_model.state_dict()
    for key, value in keys.items():
        inner = key.replace("score.", "score.modules_to_save.default.")
        inner = inner.replace("lora_A.", "lora_A.default.").replace("lora_B.", "lora_B.default.")
        if inner not in state or not torch.equal(state[inner], value):
            raise SystemExit(f"PEFT did not load {key}")


def cross_mask(model: RewardModel, x: Inputs, ids: Tensor) -> Tensor:
    """As `MllamaProcessor` makes it: i64 [1, tokens, 1, tiles]."""
    tokens = get_cross_attention_token_mask(ids.tolist(), model.config.image_token_index)
    most = model.config.vision_config.max_num_tiles
    dense = convert_sparse_cross_attention_mask_to_dense([tokens], [[int(x.ratio_mask.sum())]], most, len(ids))
    return torch.from_numpy(dense)


@torch.inference_mode()
def states(model: RewardModel, x: Inputs, response: Tensor) -> States:
    ids = torch.cat([x.prompt, response])
    caught = {}
    hooks = [
        module.register_forward_hook(lambda _, __, out, name=name: caught.__setitem__(name, out))
        for name, module in (("seen", model.model.vision_model), ("projected", model.model.multi_modal_projector))
    ]
    out = model.model(
        input_ids=ids[None],
        pixel_values=x.tiles,
        aspect_ratio_ids=x.ratio_id,
        aspect_ratio_mask=x.ratio_mask,
        attention_mask=torch.ones_like(ids)[None],
        cross_attention_mask=cross_mask(model, x, ids),
        use_cache=False,
        output_hidden_states=True,
    )
    for hook in hooks:
        hook.remove()
    # `hidden_states` are the inputs of the layers, and at last the normed output.
    norm = model.model.language_model.norm
    layers = [norm(state[0]) for state in out.hidden_states[1:-1]]
    seen = caught["seen"][0] if isinstance(caught["seen"], tuple) else caught["seen"].last_hidden_state
    return States(out.last_hidden_state[0], layers, seen[0, 0], caught["projected"][0, 0])


@contextmanager
def as_meta(model: RewardModel, x: Inputs):
    """Meta's rule: of rows that see no image the attention's output is 0 too, not the MLP's alone."""
    before = x.prompt.tolist().index(model.config.image_token_index)

    def hook(_, __, out):
        out[0][:, :before] = 0.0
        return out

    text = model.model.language_model
    hooks = [text.layers[i].cross_attn.register_forward_hook(hook) for i in text.cross_attention_layers]
    yield
    for hook in hooks:
        hook.remove()


def scale_lora(peft_model: PeftModel, factor: float) -> None:
    for module in peft_model.modules():
        if isinstance(module, LoraLayer):
            module.scale_layer(factor)


@torch.inference_mode()
def golden_of(case: Case, folder: Path, attention: str = "eager") -> dict[str, Tensor]:
    x = inputs_of(case)
    model, peft_model = read_model(folder, attention)
    prefix = len(x.prompt)
    logits = lambda ids: model.score(states(model, x, ids).final[prefix:])[:, 0]  # noqa: E731
    empty = states(model, x, torch.empty(0, dtype=torch.long))
    out = {
        "canvas": x.canvas,
        "prompt_ids": x.prompt,
        "vision_output": empty.seen,
        "image_states": empty.projected,
        "prefix_hidden": empty.final,
    }
    for r, ids in enumerate(x.responses):
        whole = states(model, x, ids)
        out[f"response_ids.{r}"] = ids
        out[f"hidden.{r}"] = whole.final[prefix:]
        out[f"logits.{r}"] = model.score(whole.final[prefix:])[:, 0]
        if r == 0:
            for depth, layer in enumerate(whole.layers):
                out[f"layer.{depth}"] = layer[prefix:]
    if case.before:
        with as_meta(model, x):
            for r, ids in enumerate(x.responses):
                out[f"logits_meta.{r}"] = logits(ids)
    if peft_model is not None:
        tau = case.adapter.tau
        scale_lora(peft_model, tau)
        out["tau"] = torch.tensor([tau])
        for r, ids in enumerate(x.responses):
            out[f"logits_tau.{r}"] = logits(ids)
    return {k: v.clone().contiguous() for k, v in out.items()}
