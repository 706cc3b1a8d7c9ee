"""Reward functions for TRL's GRPO and RLOO trainers.

    from sleuth.trl import Reward
    trainer = GRPOTrainer(model, reward_funcs=Reward("http://127.0.0.1:50051"), ...)

`sleuth.trl.token_grpo` has a trainer whose advantages are per token.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from sleuth import aio
from sleuth._batches import (
    IMAGE_COLUMNS,
    PATIENCE,
    ImageColumn,
    completion_text,
    groups,
    image_in,
    of_one_length,
    patient,
    text_of,
)
from sleuth.client import Client, ContextOptions
from sleuth.errors import InputError
from sleuth.item import Item
from sleuth.policy import PolicyTokens, Tokenizer
from sleuth.verdict import Verdict

if TYPE_CHECKING:
    from typing_extensions import Unpack

__all__ = ["AsyncReward", "Reward"]


class _Scored:
    """Makes items of a batch, and rewards of verdicts."""

    def __init__(
        self,
        tokenizer: Tokenizer | None = None,
        image_column: str | None = None,
        prompt: Callable[[Any], str | None] | None = text_of,
        **options: Unpack[ContextOptions],
    ) -> None:
        self.__name__ = "sleuth"
        self.tokenizer, self.image_column = tokenizer, image_column
        self.prompt, self.options = prompt, options
        self.verdicts: list[Verdict] = []

    def items(
        self,
        prompts: Sequence[Any],
        completions: Sequence[Any],
        completion_ids: Sequence[Sequence[int]] | None,
        step: int | None,
        columns: Mapping[str, Any],
    ) -> list[Item]:
        """One item per completion."""
        images = self._images(prompts, columns)
        of_one_length(prompts=prompts, completions=completions, images=images)
        asked = [self.prompt(prompt) if self.prompt else None for prompt in prompts]
        policies: Sequence[PolicyTokens | None] = [None] * len(prompts)
        if self.tokenizer is not None:
            if completion_ids is None:
                raise InputError(
                    "completion_ids: TRL passes them since 0.18; rewards of policy "
                    "tokens need them, or make the reward without a tokenizer"
                )
            of_one_length(completions=completions, completion_ids=completion_ids)
            policies = [PolicyTokens.from_ids(self.tokenizer, ids) for ids in completion_ids]
        column = ImageColumn()
        encoded = [column.of(image, f"images[{n}]") for n, image in enumerate(images)]
        scope = None if step is None else f"step-{step}"
        of_group = groups(encoded, asked, scope)
        items = []
        for n, policy in enumerate(policies):
            options: ContextOptions = {"group": of_group[n], **self.options}
            response = None if policy is not None else completion_text(completions[n])
            items.append(Item(encoded[n], response, asked[n], policy, **options))
        return items

    def rewards(
        self,
        verdicts: list[Verdict],
        log_extra: Callable[[str, list[Any]], None] | None,
        log_metric: Callable[[str, float], None] | None,
    ) -> list[float | None]:
        """Rewards, None where there is none; TRL leaves those completions out."""
        self.verdicts = verdicts
        if log_extra is not None:
            log_extra("sleuth_reason", [verdict.reason for verdict in verdicts])
        if log_metric is not None and verdicts:
            invalid = sum(not verdict.valid for verdict in verdicts)
            log_metric("sleuth/invalid", invalid / len(verdicts))
        return [verdict.reward_or(None) for verdict in verdicts]

    def _images(self, prompts: Sequence[Any], columns: Mapping[str, Any]) -> Sequence[Any]:
        if self.image_column is not None:
            if self.image_column not in columns:
                raise InputError(
                    f"image_column: the data set has no column {self.image_column!r}, but "
                    f"{sorted(columns)}"
                )
            images: Sequence[Any] = columns[self.image_column]
            return images
        for name in IMAGE_COLUMNS:
            if columns.get(name) is not None:
                found: Sequence[Any] = columns[name]
                return found
        within = [image_in(prompt) for prompt in prompts]
        if any(image is None for image in within):
            raise InputError(
                "images: neither a column `image` or `images` nor an image in every prompt; name "
                "it with Reward(image_column=...), and keep it with remove_unused_columns=False"
            )
        return within


class Reward(_Scored):
    """A reward function for `GRPOTrainer` and `RLOOTrainer`: one number per completion.

    A completion without a reward gets None: TRL leaves it out of its group's mean and gives it no
    advantage. `verdicts` are those of the last call.

    Args:
        server: Its URL, or a client.
        tokenizer: The policy's; with it `verdicts` have rows per policy token, and responses are
            what `completion_ids` spell.
        image_column: The data set's column of images; None for `image` or `images`, or what the
            prompts' messages hold.
        prompt: Makes the prompt that is judged from TRL's; None for the model's own. By default a
            string as it is, and of messages the last text of the user.
        patience: Seconds to wait for a server that is gone, where its URL is given.
        **options: Other fields of an `Item`, such as `aggregation` or `timeout`.
    """

    def __init__(
        self,
        server: str | Client,
        *,
        tokenizer: Tokenizer | None = None,
        image_column: str | None = None,
        prompt: Callable[[Any], str | None] | None = text_of,
        patience: float = PATIENCE,
        **options: Unpack[ContextOptions],
    ) -> None:
        super().__init__(tokenizer, image_column, prompt, **options)
        if isinstance(server, aio.Client):
            raise TypeError("server must be a URL or a sleuth.Client; AsyncReward takes this one")
        if isinstance(server, str):
            server = Client(server, settings=patient(patience))
        self.client = server

    def __call__(
        self,
        *,
        prompts: Sequence[Any],
        completions: Sequence[Any],
        completion_ids: Sequence[Sequence[int]] | None = None,
        trainer_state: Any = None,
        log_extra: Callable[[str, list[Any]], None] | None = None,
        log_metric: Callable[[str, float], None] | None = None,
        **columns: Any,
    ) -> list[float | None]:
        """As TRL calls it.

        Raises:
            InputError: The batch has no images, or columns of different length.
            UnavailableError: The server is gone; training stops rather than learn from nothing.
        """
        step = getattr(trainer_state, "global_step", None)
        items = self.items(prompts, completions, completion_ids, step, columns)
        return self.rewards(self.client.score_batch(items), log_extra, log_metric)


class AsyncReward(_Scored):
    """As `Reward`, a coroutine: TRL runs it beside other asynchronous reward functions.

    Args:
        server: Its URL, or a `sleuth.aio.Client`.
        tokenizer: As for `Reward`.
        image_column: As for `Reward`.
        prompt: As for `Reward`.
        patience: As for `Reward`.
        **options: As for `Reward`.
    """

    def __init__(
        self,
        server: str | aio.Client,
        *,
        tokenizer: Tokenizer | None = None,
        image_column: str | None = None,
        prompt: Callable[[Any], str | None] | None = text_of,
        patience: float = PATIENCE,
        **options: Unpack[ContextOptions],
    ) -> None:
        super().__init__(tokenizer, image_column, prompt, **options)
        if isinstance(server, Client):
            raise TypeError("server must be a URL or a sleuth.aio.Client; Reward takes this one")
        if isinstance(server, str):
            server = aio.Client(server, settings=patient(patience))
        self.client = server

    async def __call__(
        self,
        *,
        prompts: Sequence[Any],
        completions: Sequence[Any],
        completion_ids: Sequence[Sequence[int]] | None = None,
        trainer_state: Any = None,
        log_extra: Callable[[str, list[Any]], None] | None = None,
        log_metric: Callable[[str, float], None] | None = None,
        **columns: Any,
    ) -> list[float | None]:
        """As TRL calls it; see `Reward.__call__`."""
        step = getattr(trainer_state, "global_step", None)
        items = self.items(prompts, completions, completion_ids, step, columns)
        return self.rewards(await self.client.score_batch(items), log_extra, log_metric)
