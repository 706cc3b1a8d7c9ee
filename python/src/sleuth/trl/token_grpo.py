"""GRPO with an advantage per token instead of one per completion."""

from __future__ import annotations

from typing import Any

import torch
from trl import GRPOTrainer

from sleuth._batches import token_rewards
from sleuth.errors import InputError
from sleuth.trl import AsyncReward, Reward

__all__ = ["TokenGRPOTrainer", "token_advantages"]


class TokenGRPOTrainer(GRPOTrainer):
    """A `GRPOTrainer` whose advantages come from the rewards of tokens.

    One of `reward_funcs` must be a `Reward` or `AsyncReward` made with the policy's tokenizer.
    Advantages are those of `token_advantages`, over the standard deviation unless `scale_rewards`
    is `none`. Other reward functions are logged, and do not count.

    Works with every `loss_type` of TRL 1.16 whose advantages may be of shape (B, T): its
    `_compute_loss` says which shape it takes.

    Args:
        *args: As of `GRPOTrainer`.
        decay: How much of a token's advantage is that of the token behind it, at least 0 and
            below 1. With 0 a wrong word is blamed alone, and not what led to it.
        **kwargs: As of `GRPOTrainer`.
    """

    def __init__(self, *args: Any, decay: float = 0.9, **kwargs: Any) -> None:
        if not 0 <= decay < 1:
            raise InputError(f"decay must be at least 0 and below 1, not {decay}")
        self.decay = decay
        super().__init__(*args, **kwargs)

    def _generate_and_score_completions(self, inputs: list[dict[str, Any]]) -> dict[str, Any]:
        output: dict[str, Any] = super()._generate_and_score_completions(inputs)
        ours = [f for f in self.reward_funcs if isinstance(f, (Reward, AsyncReward))]
        if not ours or ours[0].tokenizer is None:
            raise InputError(
                "reward_funcs: TokenGRPOTrainer needs a sleuth.trl.Reward with the policy's "
                "tokenizer: Reward(server, tokenizer=tokenizer)"
            )
        ids = output["completion_ids"]
        rewards = torch.from_numpy(token_rewards(ours[0].verdicts, ids.shape[1])).to(ids.device)
        generations = self.num_generations if self.model.training else self.num_generations_eval
        output["advantages"] = token_advantages(
            rewards,
            generations,
            decay=self.decay,
            scale=self.scale_rewards != "none",
            gather=self.accelerator.gather,
            rank=self.accelerator.process_index,
        )
        return output


def token_advantages(
    rewards: torch.Tensor,
    generations: int,
    *,
    decay: float = 0.0,
    scale: bool = True,
    gather: Any = lambda tensor: tensor,
    rank: int = 0,
) -> torch.Tensor:
    """Advantages of tokens within their groups.

    A token's own is its reward less the mean of all tokens of its group, over their standard
    deviation; 0 where it has no reward. To it come those of the tokens behind it in the response,
    each times `decay` per token between. All are then times the root of 1 - decay², which leaves
    them the variance that they would have if rewards were independent.

    Args:
        rewards: Of shape (B, T); NaN where there is none. Rows of a group are adjacent, over all
            processes.
        generations: Rows of a group.
        decay: At least 0 and below 1.
        scale: Whether to divide by the group's standard deviation.
        gather: Concatenates a tensor of shape (B, 3) over processes.
        rank: This process's place among them.

    Returns:
        Of shape (B, T); 0 in a row without rewards, and behind a row's last reward.
    """
    there = ~torch.isnan(rewards)
    known = torch.where(there, rewards, 0.0).double()
    sums = torch.stack([there.sum(1).double(), known.sum(1), known.square().sum(1)], dim=1)
    count, total, squares = gather(sums).view(-1, generations, 3).sum(1).unbind(1)
    mean = total / count.clamp(min=1)
    std = (squares / count.clamp(min=1) - mean.square()).clamp(min=0).sqrt()
    mine = slice(rank * len(rewards), (rank + 1) * len(rewards))
    mean, std = (x.repeat_interleave(generations)[mine].unsqueeze(1) for x in (mean, std))
    advantages = (known - mean) / (std + 1e-4) if scale else known - mean
    own = torch.where(there, advantages, 0.0)
    return _with_later(own, decay).to(rewards.dtype)


def _with_later(own: torch.Tensor, decay: float) -> torch.Tensor:
    if decay == 0:
        return own
    out, later = torch.empty_like(own), torch.zeros_like(own[:, 0])
    for t in reversed(range(own.shape[1])):
        later = own[:, t] + decay * later
        out[:, t] = later
    return out * (1 - decay**2) ** 0.5
