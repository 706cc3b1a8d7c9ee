"""What a step of a trainer brings: drawn images, responses as a policy's ids, what generates them.

Responses are the captions of `sleuth scenes`, two of an image each, so that the server scores text
of the kind it was trained on; what generates them takes a policy's time, and the ids are given.
"""

from __future__ import annotations

import json
import subprocess
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerFast

import sleuth

REPOSITORY = Path(__file__).resolve().parents[2]
CAPTIONS = 8


def draw(binary: Path, folder: Path, count: int) -> list[tuple[Path, list[dict[str, Any]]]]:
    """Images, each with the lines of its captions."""
    command = [
        str(binary),
        "scenes",
        "--split",
        "train",
        "--count",
        str(count),
        "--out",
        str(folder),
    ]
    subprocess.run([str(part) for part in command], check=True, capture_output=True)
    rows = map(json.loads, (folder / "data.jsonl").read_text().splitlines())
    captions: dict[str, list[dict[str, Any]]] = {}
    for row in rows:
        if "-caption" in row["id"]:
            captions.setdefault(row["image"], []).append(row)
    return [(folder / image, own) for image, own in captions.items()]


def texts(captions: list[dict[str, Any]], count: int) -> list[str]:
    """Responses that differ, of two captions each."""
    told = [row["response"] for row in captions]
    pairs = [(n % CAPTIONS, (n + 1 + n // CAPTIONS) % CAPTIONS) for n in range(count)]
    return [f"{told[a]} {told[b]}" for a, b in pairs]


def tokenizer(told: list[str]) -> Any:
    """A byte-level BPE to which most words are one token, as they are to a policy's."""
    made = Tokenizer(models.BPE())
    made.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    made.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=2000,
        special_tokens=["<pad>", "<s>", "</s>"],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    made.train_from_iterator(told, trainer)
    wrap: Any = PreTrainedTokenizerFast
    return wrap(tokenizer_object=made, pad_token="<pad>", bos_token="<s>", eos_token="</s>")


@dataclass(frozen=True)
class Rollout:
    """One response of a step."""

    image: sleuth.Image
    prompt: str
    group: sleuth.Group
    ids: list[int]


def steps(
    binary: Path, folder: Path, count: int, images: int, responses: int
) -> tuple[Any, list[list[Rollout]]]:
    """A tokenizer, and steps of rollouts that have no image in common."""
    drawn = draw(binary, folder, count * images)
    tokens = tokenizer([row["response"] for _, captions in drawn for row in captions])
    rollouts = []
    for path, captions in drawn:
        image, group = sleuth.Image.of(path), sleuth.Group(path.stem, responses)
        for text in texts(captions, responses):
            ids = [*tokens.encode(text, add_special_tokens=False), tokens.eos_token_id]
            rollouts.append(Rollout(image, captions[0]["prompt"], group, ids))
    size = images * responses
    return tokens, [rollouts[at : at + size] for at in range(0, len(rollouts), size)]


class Policy(Protocol):
    """Generates responses token by token, all of a step side by side."""

    def tokens(self, rollouts: list[Rollout]) -> Iterator[float]:
        """Yields when each token was there, on `time.perf_counter`'s clock."""


class Elsewhere:
    """A policy on other hardware: its tokens come by the clock, whatever happens here."""

    def __init__(self, per_second: float) -> None:
        self._interval = 1 / per_second

    def tokens(self, rollouts: list[Rollout]) -> Iterator[float]:
        """A token of each response at once; nothing waits for whoever takes them."""
        began = time.perf_counter()
        for n in range(max(len(r.ids) for r in rollouts)):
            due = began + n * self._interval
            time.sleep(max(due - time.perf_counter(), 0))
            yield due


class OnTheseCores:
    """A policy of torch on the cores that the server has: a Llama with random weights.

    Its passes are real, with keys and values cached; what it samples is put aside, and the given
    ids go in as the next tokens.
    """

    def __init__(self, tokens: Any, hidden: int, layers: int, threads: int) -> None:
        import torch
        from transformers import LlamaConfig, LlamaForCausalLM

        torch.set_num_threads(threads)
        torch.manual_seed(1)
        self._tokens = tokens
        config = LlamaConfig(
            vocab_size=len(tokens),
            hidden_size=hidden,
            intermediate_size=4 * hidden,
            num_hidden_layers=layers,
            num_attention_heads=hidden // 64,
            num_key_value_heads=hidden // 64,
            max_position_embeddings=1024,
        )
        model: Any = LlamaForCausalLM(config)
        self._model = model.eval()

    def tokens(self, rollouts: list[Rollout]) -> Iterator[float]:
        """A token of each response that has not ended, in one pass of the batch."""
        import torch

        asked = self._tokens.encode(rollouts[0].prompt, add_special_tokens=False)
        longest = max(len(r.ids) for r in rollouts)
        given = torch.tensor([r.ids + [0] * (longest - len(r.ids)) for r in rollouts])
        with torch.inference_mode():
            out = self._model(torch.tensor([asked] * len(rollouts)), use_cache=True)
            for n in range(longest):
                out.logits[:, -1].softmax(-1).multinomial(1)
                yield time.perf_counter()
                if n + 1 < longest:
                    out = self._model(
                        given[:, n : n + 1], past_key_values=out.past_key_values, use_cache=True
                    )
