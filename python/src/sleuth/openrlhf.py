"""A reward function and an agent for OpenRLHF.

`reward_func_for` makes what a file given as `--reward.remote_url` must define; `scored` wraps an
agent executor, which has images and token ids.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from sleuth import aio
from sleuth._batches import PATIENCE, image_of, of_one_length, patient
from sleuth.client import Client
from sleuth.errors import InputError, InvalidRewardError
from sleuth.images import ImageLike
from sleuth.item import Item
from sleuth.policy import PolicyTokens
from sleuth.verdict import Verdict

__all__ = ["image_of_label", "response_of", "reward_func_for", "scored"]

# What decoding with special tokens leaves behind a response.
ENDS = re.compile(r"(?:\s*(?:<\|[^|<>]*\|>|</s>|<eos>|<pad>|<end_of_turn>))+\s*\Z")
# So much of a prompt's end says where the response begins.
TAIL_CHARS, LEAST_TAIL_CHARS = 200, 4

RewardFunc = Callable[[Sequence[str], Sequence[str], Sequence[Any]], dict[str, Any]]


def image_of_label(label: Any) -> ImageLike:
    """The image that a label names: `{"image": ...}`, the same as JSON, or a path."""
    if isinstance(label, str) and label.lstrip().startswith("{"):
        label = json.loads(label)
    if isinstance(label, Mapping):
        if "image" not in label:
            raise InputError(f"labels: has no 'image', but {sorted(label)}")
        return label["image"]
    return label


def response_of(query: str, prompt: str) -> str:
    """What follows the prompt in a query, without special tokens behind it.

    A query is decoded from ids, in which a prompt's image may stand as many tokens; so the prompt's
    end is looked for where the whole of it does not stand in front.

    Raises:
        InputError: The query does not hold the prompt's end.
    """
    if query.startswith(prompt):
        response = query[len(prompt) :]
    else:
        tail = _shared_tail(query, prompt)
        parts, before = query.split(tail), prompt.count(tail)
        response = tail.join(parts[before:])
    return ENDS.sub("", response)


def _shared_tail(query: str, prompt: str) -> str:
    """The longest end of the prompt that the query holds as often as the prompt does, or more."""
    for length in range(min(len(prompt), TAIL_CHARS), LEAST_TAIL_CHARS - 1, -1):
        tail = prompt[-length:]
        if query.count(tail) >= prompt.count(tail):
            return tail
    raise InputError(
        "queries: the prompt's end does not stand in the query; are the prompts templated as the "
        "queries are?"
    )


def reward_func_for(
    server: str | Client,
    *,
    image: Callable[[Any], ImageLike] = image_of_label,
    prompt: Callable[[str], str | None] | None = None,
    token: str | None = None,
    patience: float = PATIENCE,
    **options: Any,
) -> RewardFunc:
    """Makes OpenRLHF's `reward_func(queries, prompts, labels)`.

        # reward.py, for --reward.remote_url reward.py
        from sleuth.openrlhf import reward_func_for
        reward_func = reward_func_for("http://127.0.0.1:50051")

    Args:
        server: Its URL, or a client.
        image: Makes the image from a label, as OpenRLHF passes no images here.
        prompt: Makes the prompt that is judged from the templated one; None for the model's own.
        token: For the server.
        patience: Seconds to wait for a server that is gone.
        **options: Other fields of an `Item`.

    Returns:
        A function that gives `rewards` and `scores`, tensors of shape (B,), and `extra_logs`. It
        raises `InvalidRewardError` where there is no reward: OpenRLHF logs that and leaves the
        sample without one, and never gets a 0.
    """
    held: list[Client] = [] if isinstance(server, str) else [server]

    def reward_func(
        queries: Sequence[str], prompts: Sequence[str], labels: Sequence[Any], **_: Any
    ) -> dict[str, Any]:
        of_one_length(queries=queries, prompts=prompts, labels=labels)
        if isinstance(server, str) and not held:
            held.append(Client(server, token=token, settings=patient(patience)))
        items = [
            Item(
                image_of(image(label), f"labels[{n}]"),
                response_of(query, asked),
                prompt(asked) if prompt is not None else None,
                **options,
            )
            for n, (query, asked, label) in enumerate(zip(queries, prompts, labels, strict=True))
        ]
        return _rewards(held[0].score_batch(items))

    return reward_func


def scored(
    base: type,
    server: str,
    *,
    token: str | None = None,
    prompt: str | None = None,
    patience: float = PATIENCE,
    **options: Any,
) -> type:
    """A single-turn agent executor whose rewards are Sleuth's, from its own images and token ids.

        # agent.py, for --train.agent_func_path agent.py
        from openrlhf.utils.agent import SingleTurnAgentExecutor
        from sleuth.openrlhf import scored
        AgentExecutor = scored(SingleTurnAgentExecutor, "http://127.0.0.1:50051")

    Args:
        base: OpenRLHF's `SingleTurnAgentExecutor`.
        server: Its URL.
        token: For the server.
        patience: Seconds to wait for a server that is gone.
        prompt: What is judged; None for the model's own prompt.
        **options: Other fields of an `Item`.

    Returns:
        A subclass. The reward goes to `reward` and `scores`; `extra_logs` has the share of flagged
        tokens. It raises `InvalidRewardError` where there is no reward.
    """

    class AgentExecutor(base):  # type: ignore[misc]
        def __init__(self) -> None:
            super().__init__(None)
            self.client = aio.Client(server, token=token, settings=patient(patience))

        async def execute(
            self, asked: str, label: Any, sampling_params: Any, max_length: int,
            hf_tokenizer: Any, llm_engine: Any, images: Any = None,
        ) -> dict[str, Any]:  # fmt: skip
            output: dict[str, Any] = await super().execute(
                asked, label, sampling_params, max_length, hf_tokenizer, llm_engine, images
            )
            tokenizer = getattr(hf_tokenizer, "tokenizer", hf_tokenizer)
            start, end = output["action_ranges"][-1]
            ids = output["observation_tokens"][start:end]
            policy = PolicyTokens.from_ids(tokenizer, ids)
            item = Item(image_of(images, "images"), None, prompt, policy, **options)
            result = _rewards(await self.client.score_batch([item]))
            logs = {name: values[0] for name, values in result["extra_logs"].items()}
            reward = float(result["rewards"][0])
            return {**output, "reward": reward, "scores": reward, "extra_logs": logs}

    return AgentExecutor


def _rewards(verdicts: Iterable[Verdict]) -> dict[str, Any]:
    import torch

    rewards, flagged = [], []
    for verdict in verdicts:
        if not verdict.valid:
            raise InvalidRewardError(verdict)
        rewards.append(verdict.reward)
        spans = sum(span.end - span.start for span in verdict.flagged)
        flagged.append(spans / max(len(verdict.tokens.response), 1))
    table = torch.tensor(rewards, dtype=torch.float32)
    return {"rewards": table, "scores": table.clone(), "extra_logs": {"sleuth_flagged": flagged}}
