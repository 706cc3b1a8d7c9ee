"""Rewards of veRL's reward loop on a CPU: one batch of a random policy, without its trainer.

    python examples/verl_rewards.py

The settings are what a run of veRL takes, with `+` in front of keys that it does not know:

    reward.reward_manager.source=importlib
    reward.reward_manager.module.path=pkg://sleuth.verl.manager
    reward.reward_manager.name=RewardManager
    +reward.reward_kwargs.url=http://127.0.0.1:50051
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from omegaconf import DictConfig, OmegaConf
from tensordict import TensorDict
from verl import DataProto
from verl.trainer.ppo.reward import load_reward_manager

import sleuth


def config_for(url: str, **more: Any) -> DictConfig:
    """The part of veRL's settings that is about rewards."""
    manager = {
        "source": "importlib",
        "name": "RewardManager",
        "module": {"path": "pkg://sleuth.verl.manager", "name": "custom_reward_manager"},
    }
    kwargs = {"url": url, **more}
    return OmegaConf.create({"reward": {"reward_manager": manager, "reward_kwargs": kwargs}})


def batch_of(image: Any, responses: Sequence[Sequence[int]], prompt: str, pad: int) -> DataProto:
    """A batch as veRL's rollouts leave it: prompts padded on the left, responses on the right."""
    count, length, prompt_length = len(responses), max(map(len, responses)), 4
    ids = torch.full((count, length), pad)
    mask = torch.zeros((count, prompt_length + length), dtype=torch.long)
    mask[:, 1:prompt_length] = 1
    for row, response in enumerate(responses):
        ids[row, : len(response)] = torch.tensor(response)
        mask[row, prompt_length : prompt_length + len(response)] = 1
    asked = [{"type": "image", "image": image}, {"type": "text", "text": prompt}]
    messages = np.empty(count, dtype=object)
    for row in range(count):
        messages[row] = [{"role": "user", "content": asked}]
    fields = {
        "raw_prompt": messages,
        "uid": np.array(["one"] * count, dtype=object),
        "extra_info": np.array([{}] * count, dtype=object),
    }
    tensors = {
        "prompts": torch.full((count, prompt_length), pad),
        "responses": ids,
        "attention_mask": mask,
    }
    return DataProto(batch=TensorDict(tensors, batch_size=count), non_tensor_batch=fields)


async def rewards_of(manager: Any, data: DataProto) -> list[dict[str, Any]]:
    """What veRL's RewardLoopWorker does with a batch."""
    singles = [manager.run_single(data[n : n + 1]) for n in range(len(data))]
    return list(await asyncio.gather(*singles))


def main() -> None:
    """Scores a batch and prints the dense tensor."""
    import tempfile

    import tiny_policy

    from sleuth.server import find_binary

    with tempfile.TemporaryDirectory() as folder, sleuth.local() as client:
        rows = tiny_policy.draw_scenes(find_binary(), Path(folder), 1)
        tokens = tiny_policy.tokenizer(rows)
        responses = [
            [*tokens.encode(row["response"], add_special_tokens=False), tokens.eos_token_id]
            for row in rows[:4]
        ]
        data = batch_of(rows[0]["image"], responses, tiny_policy.PROMPT, tokens.pad_token_id)
        manager = load_reward_manager(config_for(client.server.url), tokens)
        results = manager.loop.run_until_complete(rewards_of(manager, data))
        table = type(manager).assemble_rm_scores(data, [r["reward_score"] for r in results])
        for result, row in zip(results, table, strict=True):
            print(result["reward_extra_info"]["score"], row[:8].tolist())


if __name__ == "__main__":
    main()
