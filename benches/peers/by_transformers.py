"""transformers: every response with its own prefix, or prefixes computed once and shared by hand."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor, nn
from transformers import DynamicCache, PaliGemmaModel
from transformers.utils import logging

from worker import Contestant, fastest
from workload import GROUPS, Inputs, image_tokens, own_prefix, random_model, read_inputs


@torch.inference_mode()
def shared_prefix(model: PaliGemmaModel, head: nn.Linear, inputs: Inputs, batch: int) -> Tensor:
    """Logits [G,R,S], `batch` groups at a time; the responses attend to copies of their prefix's K/V."""
    groups, responses, tokens = inputs.response.shape
    states = []
    for pixels, prompt, response in zip(*(t.split(batch) for t in inputs), strict=True):
        ids = torch.cat([image_tokens(len(prompt)), prompt], 1)
        cache = DynamicCache(config=model.config.text_config)
        model(
            input_ids=ids,
            pixel_values=pixels,
            token_type_ids=torch.zeros_like(ids),
            attention_mask=torch.ones_like(ids),
            past_key_values=cache,
        )
        cache.batch_repeat_interleave(responses)
        first = ids.shape[1] + 1  # positions of PaliGemma start at 1
        out = model.language_model(
            input_ids=response.flatten(0, 1),
            position_ids=torch.arange(first, first + tokens)[None],
            past_key_values=cache,
        )
        states.append(out.last_hidden_state)
    return head(torch.cat(states)).view(groups, responses, tokens)


def contestant(variant: str, folder: Path, threads: int) -> Contestant:
    logging.set_verbosity_error()
    torch.set_num_threads(threads)
    model, head = random_model()
    inputs = read_inputs(folder)
    score, batches = {"own": (own_prefix, [1, 4, 8, 32]), "shared": (shared_prefix, [1, 2, GROUPS])}[variant]

    def run(choice: tuple[str, int]) -> list[float]:
        attention, batch = choice
        model.set_attn_implementation(attention)
        return score(model, head, inputs, batch).flatten().tolist()

    best = fastest([(attention, batch) for attention in ("eager", "sdpa") for batch in batches], run)
    unit = "sequences" if variant == "own" else "groups"
    return Contestant(lambda: run(best), ["torch", "transformers"], f"{best[0]}, {best[1]} {unit} at a time")
