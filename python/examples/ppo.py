"""PPO with a reward at every token: a plain loop, with a tiny random policy on a CPU.

    python examples/ppo.py

TRL 1.16 has no PPO any more, and what it had took one scalar at the last token. Here Sleuth's
reward of each of the policy's own tokens is that token's reward, and generalised advantage
estimation does the rest.
"""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import tiny_policy
import torch
from torch import Tensor, nn
from transformers import LlamaForCausalLM, PreTrainedTokenizerFast

import sleuth
from sleuth.server import find_binary


@dataclass(frozen=True)
class Settings:
    """What PPO is told.

    Attributes:
        prompts: Images of a step.
        responses: Responses per image: they share the image's and prompt's computation.
        tokens: Longest response.
        epochs: Passes over a step's responses.
        centre: Taken from every token's reward: without it, longer responses earn more.
        kl: Weight of the penalty for leaving the first policy.
        gamma: Discount per token.
        lam: GAE's lambda.
        clip: PPO's clip range.
        learning_rate: Of Adam.
    """

    prompts: int = 2
    responses: int = 4
    tokens: int = 24
    epochs: int = 2
    centre: float = 0.5
    kl: float = 0.05
    gamma: float = 1.0
    lam: float = 0.95
    clip: float = 0.2
    learning_rate: float = 1e-3


@dataclass(frozen=True)
class Rollout:
    """Responses of a step; all tensors but `ids` are of shape (B, T).

    Attributes:
        ids: Prompts and responses, (B, P + T).
        prompt_length: P.
        mask: Which response positions hold tokens, up to the end token.
        log_probs: Of the response's tokens when they were sampled.
        reference: The same by the first policy.
        values: Of the states in front of the tokens.
    """

    ids: Tensor
    prompt_length: int
    mask: Tensor
    log_probs: Tensor
    reference: Tensor
    values: Tensor

    def responses(self) -> list[list[int]]:
        """The responses' token ids, each up to its end token."""
        tails = self.ids[:, self.prompt_length :]
        return [row[: int(m.sum())].tolist() for row, m in zip(tails, self.mask, strict=True)]


class ActorCritic(nn.Module):
    """A language model and a value head on its last hidden states."""

    def __init__(self, tokens: PreTrainedTokenizerFast) -> None:
        super().__init__()
        self.model = LlamaForCausalLM(tiny_policy.language_config(tokens))
        self.value = nn.Linear(self.model.config.hidden_size, 1)

    def forward(self, ids: Tensor, prompt_length: int) -> tuple[Tensor, Tensor]:
        """Log-probabilities and values of the tokens after the prompt, (B, T) each."""
        out = self.model(ids, output_hidden_states=True)
        before = slice(prompt_length - 1, -1)
        log_probs = out.logits[:, before].log_softmax(-1)
        chosen = log_probs.gather(-1, ids[:, prompt_length:, None]).squeeze(-1)
        return chosen, self.value(out.hidden_states[-1][:, before]).squeeze(-1)


def token_rewards(
    client: sleuth.Client,
    images: Sequence[sleuth.ImageLike],
    responses: Sequence[Sequence[int]],
    tokens: PreTrainedTokenizerFast,
    length: int,
) -> tuple[Tensor, Tensor]:
    """Scores responses per policy token.

    Returns:
        Rewards of shape (B, length), NaN where a token has none, and which responses are valid,
        (B,). One without a reward must move nothing.
    """
    items = [
        sleuth.Item(
            image,
            prompt=tiny_policy.PROMPT,
            policy=sleuth.PolicyTokens.from_ids(tokens, ids),
            group=str(image),
        )
        for image, ids in zip(images, responses, strict=True)
    ]
    verdicts = client.score_batch(items)
    valid = torch.tensor([verdict.valid for verdict in verdicts])
    return torch.from_numpy(sleuth.token_rewards(verdicts, length)), valid


def estimate_advantages(
    rewards: Tensor, values: Tensor, mask: Tensor, gamma: float, lam: float
) -> tuple[Tensor, Tensor]:
    """Generalised advantage estimation over tokens.

    Args:
        rewards: Of each token, (B, T).
        values: Of the state in front of it, (B, T).
        mask: Which positions count, (B, T).
        gamma: Discount.
        lam: GAE's lambda.

    Returns:
        Advantages and returns, (B, T) each.
    """
    advantages = torch.zeros_like(rewards)
    later = torch.zeros(len(rewards))
    following = torch.zeros(len(rewards))
    for t in reversed(range(rewards.shape[1])):
        there = mask[:, t].float()
        delta = rewards[:, t] + gamma * following - values[:, t]
        later = there * (delta + gamma * lam * later)
        following = there * values[:, t]
        advantages[:, t] = later
    return advantages, advantages + values


class Trainer:
    """PPO over one client, policy and tokenizer."""

    def __init__(
        self,
        client: sleuth.Client,
        tokens: PreTrainedTokenizerFast,
        images: Sequence[sleuth.ImageLike],
        settings: Settings | None = None,
        seed: int = 0,
    ) -> None:
        torch.manual_seed(seed)
        self.client, self.tokens, self.images = client, tokens, images
        self.settings = settings or Settings()
        self.policy, self.first = ActorCritic(tokens), ActorCritic(tokens)
        self.first.load_state_dict(self.policy.state_dict())
        self.optimizer = torch.optim.Adam(self.policy.parameters(), self.settings.learning_rate)
        self.steps = 0

    def step(self) -> dict[str, float]:
        """Samples, scores, and improves the policy."""
        s = self.settings
        begin = self.steps * s.prompts
        images = [self.images[(begin + n) % len(self.images)] for n in range(s.prompts)]
        images = [image for image in images for _ in range(s.responses)]
        rollout = self.sample(len(images))
        scored, valid = token_rewards(
            self.client, images, rollout.responses(), self.tokens, rollout.mask.shape[1]
        )
        covered = ~torch.isnan(scored)
        rewards = torch.where(covered, scored - s.centre, 0.0)
        rewards = rewards - s.kl * (rollout.log_probs - rollout.reference)
        # A response without a reward counts nowhere: not as 0, and not by its penalty.
        mask = rollout.mask & valid[:, None]
        advantages, returns = estimate_advantages(rewards, rollout.values, mask, s.gamma, s.lam)
        losses = [self.improve(rollout, mask, advantages, returns) for _ in range(s.epochs)]
        self.steps += 1
        return {
            "reward": float(scored[covered].mean()) if covered.any() else float("nan"),
            "invalid": float((~valid).float().mean()),
            "loss": losses[-1],
        }

    @torch.no_grad()
    def sample(self, count: int) -> Rollout:
        """Generates `count` responses."""
        prompt = self.tokens(tiny_policy.PROMPT + "\n", return_tensors="pt").input_ids
        ids = self.policy.model.generate(
            prompt.expand(count, -1),
            attention_mask=torch.ones(count, prompt.shape[1], dtype=torch.long),
            do_sample=True,
            max_new_tokens=self.settings.tokens,
            pad_token_id=self.tokens.pad_token_id,
        )
        length = prompt.shape[1]
        ended = (ids[:, length:] == self.tokens.eos_token_id).long().cumsum(1)
        mask = (ended - (ids[:, length:] == self.tokens.eos_token_id).long()) == 0
        log_probs, values = self.policy(ids, length)
        reference, _ = self.first(ids, length)
        return Rollout(ids, length, mask, log_probs, reference, values)

    def improve(self, rollout: Rollout, mask: Tensor, advantages: Tensor, returns: Tensor) -> float:
        """One clipped step on all responses."""
        if not mask.any():
            return float("nan")
        spread = advantages[mask].std(correction=0)
        whitened = (advantages - advantages[mask].mean()) / (spread + 1e-6)
        log_probs, values = self.policy(rollout.ids, rollout.prompt_length)
        ratio = (log_probs - rollout.log_probs).exp()
        clipped = ratio.clamp(1 - self.settings.clip, 1 + self.settings.clip)
        policy_loss = -torch.min(ratio * whitened, clipped * whitened)[mask].mean()
        loss = policy_loss + 0.5 * (values - returns)[mask].square().mean()
        self.optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(self.policy.parameters(), 1.0)
        self.optimizer.step()
        return float(loss)


def main() -> None:
    """Trains a few steps and prints the mean token reward of each."""
    arguments: Any = argparse.ArgumentParser(description=__doc__)
    arguments.add_argument("--steps", type=int, default=4)
    steps = arguments.parse_args().steps
    with tempfile.TemporaryDirectory() as folder, sleuth.local() as client:
        rows = tiny_policy.draw_scenes(find_binary(), Path(folder) / "scenes", 8)
        images = sorted({row["image"] for row in rows})
        trainer = Trainer(client, tiny_policy.tokenizer(rows), images)
        for n in range(steps):
            told = trainer.step()
            print(n, {name: round(value, 4) for name, value in told.items()})


if __name__ == "__main__":
    main()
