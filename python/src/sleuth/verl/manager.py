"""A reward manager for veRL whose tensor holds a reward at every token.

reward.reward_manager.source=importlib
reward.reward_manager.module.path=pkg://sleuth.verl.manager
reward.reward_manager.name=RewardManager
+reward.reward_kwargs.url=http://127.0.0.1:50051
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from verl.experimental.reward_loop.reward_manager.base import RewardManagerBase

from sleuth._batches import PATIENCE, image_in, image_of, text_of
from sleuth.errors import InputError, InvalidRewardError
from sleuth.item import Item
from sleuth.policy import PolicyTokens
from sleuth.verdict import Verdict
from sleuth.verl import async_client_of, extra_info_of

__all__ = ["RewardManager", "TokenScore"]


class TokenScore(float):
    """A response's reward as a number, with those of its tokens beside it.

    veRL's streaming path takes it as a float; `RewardManager.assemble_rm_scores` takes the tokens.

    Attributes:
        tokens: Rewards of the policy's tokens, of length T; NaN where there is none.
        reason: Why there is no reward; empty where there is one.
    """

    tokens: list[float]
    reason: str

    def __new__(cls, reward: float, tokens: list[float], reason: str = "") -> TokenScore:
        """Makes one."""
        score = super().__new__(cls, reward)
        score.tokens, score.reason = tokens, reason
        return score

    def __reduce__(self) -> tuple[Any, ...]:
        """Pickles with its tokens, as Ray sends it between processes."""
        return TokenScore, (float(self), self.tokens, self.reason)

    @classmethod
    def of(cls, verdict: Verdict) -> TokenScore:
        """Of a verdict; NaN where it is invalid."""
        if not verdict.valid:
            return cls(math.nan, [], verdict.reason)
        return cls(verdict.reward, [float(r) for r in verdict.tokens.reward])


class RewardManager(RewardManagerBase):
    """Scores each sample's response ids against the image of its own prompt.

    `reward.reward_kwargs` holds: `url`; `token`; `patience`, seconds to wait for a server that is
    gone; `on_invalid`, which is `raise`, or `neutral`: a
    row without a reward gets the mean return of its group's other rows, so that it has no advantage
    in GRPO, and `sleuth_valid` is false (only where veRL calls `assemble_rm_scores`); `options`,
    other fields of an `Item`.

    The image is that of `multi_modal_data`, of the prompt's messages, or of `extra_info["image"]`.
    """

    def __init__(self, config: Any, tokenizer: Any, compute_score: Any = None, **_: Any) -> None:
        super().__init__(config, tokenizer, compute_score)
        settings = dict(config.reward.get("reward_kwargs") or {})
        if not settings.get("url"):
            raise InputError(
                "reward.reward_kwargs.url: name the server, as +reward.reward_kwargs.url="
            )
        self.on_invalid = settings.get("on_invalid", "raise")
        if self.on_invalid not in ("raise", "neutral"):
            raise InputError("reward.reward_kwargs.on_invalid: raise or neutral")
        self.url, self.token = settings["url"], settings.get("token")
        self.patience = float(settings.get("patience", PATIENCE))
        self.options: dict[str, Any] = dict(settings.get("options") or {})

    async def run_single(self, data: Any) -> dict[str, Any]:
        """Scores the last sequence of a sample, as veRL calls it.

        Returns:
            `reward_score`, a `TokenScore`, and `reward_extra_info` with `score` and the keys of
            `sleuth.verl.extra_info_of`.

        Raises:
            InvalidRewardError: There is no reward, unless `on_invalid` is `neutral`.
        """
        row = data[-1:][0]
        ids = row.batch["responses"]
        length = int(row.batch["attention_mask"][-ids.shape[-1] :].sum())
        policy = PolicyTokens.from_ids(self.tokenizer, ids[:length])
        fields = row.non_tensor_batch
        item = Item(
            image_of(_image(fields), "multi_modal_data"),
            prompt=text_of(_plain(fields.get("raw_prompt"))),
            policy=policy,
            **{"group": str(fields["uid"]) if "uid" in fields else None, **self.options},
        )
        client = async_client_of(self.url, self.token, self.patience)
        verdict = (await client.score_batch([item]))[0]
        if not verdict.valid and self.on_invalid == "raise":
            raise InvalidRewardError(verdict)
        score = TokenScore.of(verdict)
        extra = {"score": float(score), **extra_info_of(verdict)}
        return {"reward_score": score, "reward_extra_info": extra}

    @classmethod
    def assemble_rm_scores(cls, data: Any, scores: Sequence[float]) -> torch.Tensor:
        """The dense tensor: each token's reward at its place, 0 where a token has none.

        Args:
            data: The batch, with `responses` of shape (B, T) and, for rows without a reward, `uid`.
            scores: B `TokenScore`s.

        Returns:
            Of shape (B, T) and dtype float32.

        Raises:
            InputError: A score is not of this manager, has more tokens than its response, or is
                without a reward as all of its group.
        """
        table = torch.zeros_like(data.batch["responses"], dtype=torch.float32)
        missing = []
        for row, score in enumerate(scores):
            if not isinstance(score, TokenScore):
                raise InputError(f"scores[{row}]: a TokenScore of this manager, not {score!r}")
            if math.isnan(score):
                missing.append(row)
            elif len(score.tokens) > table.shape[1]:
                raise InputError(f"scores[{row}]: {len(score.tokens)} tokens for {table.shape[1]}")
            else:
                rewards = torch.tensor(score.tokens, dtype=torch.float32)
                # A token without bytes, such as <eos>, adds nothing to the return.
                table[row, : len(rewards)] = rewards.nan_to_num(0.0)
        _fill_neutral(table, data, scores, missing)
        return table


def _fill_neutral(
    table: torch.Tensor, data: Any, scores: Sequence[float], missing: list[int]
) -> None:
    """Gives rows without a reward the mean return of their group, at the last token."""
    if not missing:
        return
    group = [str(uid) for uid in data.non_tensor_batch.get("uid", [""] * len(scores))]
    lengths = data.batch["attention_mask"][:, data.batch["prompts"].size(1) :].sum(dim=1)
    returns = table.sum(dim=1)
    for row in missing:
        others = [n for n, uid in enumerate(group) if uid == group[row] and n not in missing]
        if not others:
            reason = getattr(scores[row], "reason", "")
            raise InputError(f"scores[{row}]: no row of its group has a reward ({reason})")
        table[row, int(lengths[row]) - 1] = returns[others].mean()


def _image(fields: Mapping[str, Any]) -> Any:
    for key in ("image", "images"):
        data = (_plain(fields.get("multi_modal_data")) or {}).get(key)
        if data is not None and len(data):
            return data
    within = image_in(_plain(fields.get("raw_prompt")))
    if within is not None:
        return within
    info = _plain(fields.get("extra_info")) or {}
    if info.get("image") is None:
        raise InputError(
            "multi_modal_data: the sample has no image; there must be one in multi_modal_data, in "
            'the messages of raw_prompt, or in extra_info["image"]'
        )
    return info["image"]


def _plain(value: Any) -> Any:
    """What veRL put into an array of objects."""
    return value.tolist() if hasattr(value, "tolist") else value
