"""A policy that describes drawn scenes: the backbone of `models/mini`, read by transformers.

The image and the prompt are computed once for all responses to them, in sampling and in training.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from torch import Tensor, nn
from transformers import (
    AutoTokenizer,
    DynamicCache,
    PaliGemmaForConditionalGeneration,
    PreTrainedTokenizerFast,
    SiglipImageProcessorPil,
)

PROMPT = "Describe the image."


@dataclass(frozen=True)
class Responses:
    """What a policy said; all tensors are of shape (B, T).

    Attributes:
        ids: Tokens, with the end token where it came; padding behind it.
        mask: Which are tokens, the end token included.
        log_probs: Of the tokens when they were sampled.
    """

    ids: Tensor
    mask: Tensor
    log_probs: Tensor

    def token_ids(self) -> list[list[int]]:
        """Each response's ids, up to its end token."""
        return [row[: int(m.sum())].tolist() for row, m in zip(self.ids, self.mask, strict=True)]


class ScenePolicy(nn.Module):
    """PaliGemma as a policy. The vision tower stays as it is; the rest may be trained.

    Args:
        folder: A PaliGemma folder.
        tokens: Longest response.
    """

    def __init__(self, folder: Path, tokens: int = 64) -> None:
        super().__init__()
        self.tokens = tokens
        self.tokenizer: PreTrainedTokenizerFast = AutoTokenizer.from_pretrained(folder)
        self.processor: Any = SiglipImageProcessorPil.from_pretrained(folder)
        self.model: Any = PaliGemmaForConditionalGeneration.from_pretrained(
            folder, dtype=torch.float32
        )
        self.model.model.vision_tower.requires_grad_(False)
        ids = self.tokenizer(PROMPT + "\n", add_special_tokens=False)["input_ids"]
        self.prompt = torch.tensor([self.tokenizer.bos_token_id, *ids])

    @torch.no_grad()
    def see(self, images: Sequence[str]) -> Tensor:
        """What the vision tower makes of images, (N, P, D)."""
        pictures = [Image.open(image).convert("RGB") for image in images]
        pixels = self.processor(pictures, return_tensors="pt")["pixel_values"]
        return self.model.model.vision_tower(pixels).last_hidden_state

    def sample(self, seen: Tensor, each: int, generator: torch.Generator) -> Responses:
        """Samples `each` responses to every image at temperature 1.

        Returns:
            Rows of an image are adjacent.
        """
        with torch.no_grad():
            cache, logits = self._prefix(seen, each)
            end, pad = self.tokenizer.eos_token_id, self.tokenizer.pad_token_id
            alive = torch.ones(len(logits), dtype=torch.bool)
            ids, masks, log_probs = [], [], []
            for _ in range(self.tokens):
                logs = logits.log_softmax(-1)
                chosen = torch.multinomial(logs.exp(), 1, generator=generator).squeeze(1)
                chosen = torch.where(alive, chosen, pad)
                ids.append(chosen)
                masks.append(alive)
                log_probs.append(logs.gather(1, chosen[:, None]).squeeze(1))
                alive = alive & (chosen != end)
                if not alive.any():
                    break
                logits = self._continue(chosen[:, None], cache)[:, -1]
        return Responses(*(torch.stack(rows, 1) for rows in (ids, masks, log_probs)))

    def log_probs(self, seen: Tensor, responses: Responses) -> Tensor:
        """Log-probabilities of all tokens of the vocabulary at each response token, (B, T, V)."""
        cache, first = self._prefix(seen, len(responses.ids) // len(seen))
        rest = self._continue(responses.ids[:, :-1], cache)
        return torch.cat([first[:, None], rest], 1).log_softmax(-1)

    def _prefix(self, seen: Tensor, each: int) -> tuple[DynamicCache, Tensor]:
        """Keys and values of images and prompt, and the logits behind, `each` times."""
        inner = self.model.model
        features = inner.multi_modal_projector(seen)
        prompt = inner.get_input_embeddings()(self.prompt).expand(len(seen), -1, -1)
        embedded = torch.cat([features, prompt], 1)
        # Image and prompt see each other fully.
        mask = torch.zeros(len(seen), 1, embedded.shape[1], embedded.shape[1])
        cache = DynamicCache(config=self.model.config.text_config)
        states = inner.language_model(
            inputs_embeds=embedded, attention_mask=mask, past_key_values=cache, use_cache=True
        ).last_hidden_state
        cache.batch_repeat_interleave(each)
        return cache, self.model.lm_head(states[:, -1]).repeat_interleave(each, 0)

    def _continue(self, ids: Tensor, cache: DynamicCache) -> Tensor:
        """Logits behind each of the ids, (B, T, V); adds them to the cache."""
        states = self.model.model.language_model(
            input_ids=ids, past_key_values=cache, use_cache=True
        ).last_hidden_state
        return self.model.lm_head(states)
