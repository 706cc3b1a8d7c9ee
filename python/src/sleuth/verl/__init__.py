"""Reward functions and a reward manager for veRL.

`compute_score` is a custom reward function; `sleuth.verl.manager` has a manager that takes images
and token ids from the batch itself and builds the dense tensor.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from typing import Any, Literal

from sleuth import aio
from sleuth._batches import PATIENCE, image_of, patient
from sleuth.client import Client
from sleuth.errors import InputError, InvalidRewardError
from sleuth.item import Item
from sleuth.verdict import Verdict

__all__ = ["OnInvalid", "acompute_score", "compute_score", "extra_info_of"]

OnInvalid = Literal["raise", "nan"]
"""What becomes of an item without a reward: an error that ends the step, or a score of NaN."""


def compute_score(
    data_source: str,
    solution_str: str,
    ground_truth: Any,
    extra_info: Mapping[str, Any] | None = None,
    *,
    url: str,
    token: str | None = None,
    patience: float = PATIENCE,
    image_key: str = "image",
    prompt_key: str = "question",
    on_invalid: OnInvalid = "raise",
    options: Mapping[str, Any] | None = None,
    **_: Any,
) -> dict[str, Any]:
    """A custom reward function for veRL's managers.

        reward.custom_reward_function.path=pkg://sleuth.verl
        reward.custom_reward_function.name=compute_score
        +reward.custom_reward_function.reward_kwargs.url=http://127.0.0.1:50051

    Args:
        data_source: Not looked at.
        solution_str: The response.
        ground_truth: Not looked at.
        extra_info: Of the data set's row: holds the image under `image_key`, and the prompt under
            `prompt_key`; without one the model's own is used.
        url: The server.
        token: For the server.
        patience: Seconds to wait for a server that is gone.
        image_key: Where `extra_info` has the image: a path, an encoded file, a PIL image, what
            datasets stores, or a list of one of these.
        prompt_key: Where it has the prompt.
        on_invalid: `raise` ends the step with the reason. `nan` gives a score of NaN, never 0, with
            `sleuth_valid` false: only for trainers that leave such rows out.
        options: Other fields of an `Item`.

    Returns:
        `score`, and the keys of `extra_info_of`; the same keys for every sample.

    Raises:
        InvalidRewardError: There is no reward, with `on_invalid="raise"`.
        InputError: `extra_info` has no image.
        UnavailableError: The server is gone.
    """
    item = _item(solution_str, extra_info, image_key, prompt_key, options)
    return _result(client_of(url, token, patience).score_batch([item])[0], on_invalid)


async def acompute_score(
    data_source: str,
    solution_str: str,
    ground_truth: Any,
    extra_info: Mapping[str, Any] | None = None,
    *,
    url: str,
    token: str | None = None,
    patience: float = PATIENCE,
    image_key: str = "image",
    prompt_key: str = "question",
    on_invalid: OnInvalid = "raise",
    options: Mapping[str, Any] | None = None,
    **_: Any,
) -> dict[str, Any]:
    """As `compute_score`, a coroutine: veRL then has more samples on their way than threads."""
    item = _item(solution_str, extra_info, image_key, prompt_key, options)
    return _result((await async_client_of(url, token, patience).score_batch([item]))[0], on_invalid)


def extra_info_of(verdict: Verdict) -> dict[str, Any]:
    """What veRL logs of a verdict: the same keys for every sample.

    Returns:
        `sleuth_valid`: whether there is a reward. `sleuth_reason`: why not, else empty.
        `sleuth_flagged`: flagged spans. `sleuth_version`: the version that scored.
    """
    return {
        "sleuth_valid": verdict.valid,
        "sleuth_reason": verdict.reason,
        "sleuth_flagged": len(verdict.flagged) if verdict.valid else 0,
        "sleuth_version": verdict.version,
    }


@cache
def client_of(url: str, token: str | None, patience: float) -> Client:
    """One client per server and process."""
    return Client(url, token=token, settings=patient(patience))


@cache
def async_client_of(url: str, token: str | None, patience: float) -> aio.Client:
    """One client per server and process."""
    return aio.Client(url, token=token, settings=patient(patience))


def _item(
    response: str,
    extra_info: Mapping[str, Any] | None,
    image_key: str,
    prompt_key: str,
    options: Mapping[str, Any] | None,
) -> Item:
    info = extra_info or {}
    if image_key not in info:
        raise InputError(
            f"extra_info: has no {image_key!r}, but {sorted(info)}; veRL passes no images to "
            "reward functions, so put a path there, or use sleuth.verl.manager.RewardManager"
        )
    image = image_of(info[image_key], f"extra_info[{image_key!r}]")
    return Item(image, response, info.get(prompt_key), **(options or {}))


def _result(verdict: Verdict, on_invalid: OnInvalid) -> dict[str, Any]:
    if on_invalid not in ("raise", "nan"):
        raise InputError(f"on_invalid: {on_invalid!r} is neither raise nor nan")
    if not verdict.valid and on_invalid == "raise":
        raise InvalidRewardError(verdict)
    return {"score": verdict.reward_or(float("nan")), **extra_info_of(verdict)}
