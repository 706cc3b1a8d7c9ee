"""Token-level rewards for vision-language models.

    import sleuth
    client = sleuth.Client("http://127.0.0.1:50051")
    verdict = client.score("scene.png", "The heart is red.")
    print(verdict.reward, verdict.tokens.reward)

`sleuth.local()` starts a server too; `sleuth.aio` is for asyncio; `sleuth.trl`, `sleuth.verl` and
`sleuth.openrlhf` are for trainers.
"""

import atexit

from sleuth import aio
from sleuth._batches import token_rewards
from sleuth._calls import Model, Tokenized
from sleuth._session import close_all
from sleuth.client import Client
from sleuth.correction import (
    Attempt,
    Change,
    CorrectEvent,
    Correction,
    Corrector,
    Final,
    Guidance,
    Proposal,
    Rescored,
    Scored,
)
from sleuth.errors import (
    ClosedError,
    DeadlineError,
    InputError,
    InvalidRewardError,
    Refusal,
    RefusedError,
    SleuthError,
    TokenizerMismatchError,
    UnavailableError,
)
from sleuth.images import Image, ImageLike
from sleuth.item import Aggregation, Group, Item, Realignment, SentenceRule
from sleuth.opening import OpenItem
from sleuth.policy import PolicyStream, PolicyTokens
from sleuth.server import LocalServer, ServerError, local
from sleuth.settings import Retry, Settings
from sleuth.verdict import Cache, Sentence, Span, Timing, Token, Tokens, Verdict

__version__ = "0.1.0"

__all__ = [
    "Aggregation",
    "Attempt",
    "Cache",
    "Change",
    "Client",
    "ClosedError",
    "CorrectEvent",
    "Correction",
    "Corrector",
    "DeadlineError",
    "Final",
    "Group",
    "Guidance",
    "Image",
    "ImageLike",
    "InputError",
    "InvalidRewardError",
    "Item",
    "LocalServer",
    "Model",
    "OpenItem",
    "PolicyStream",
    "PolicyTokens",
    "Proposal",
    "Realignment",
    "Refusal",
    "RefusedError",
    "Rescored",
    "Retry",
    "Scored",
    "Sentence",
    "SentenceRule",
    "ServerError",
    "Settings",
    "SleuthError",
    "Span",
    "Timing",
    "Token",
    "Tokenized",
    "TokenizerMismatchError",
    "Tokens",
    "UnavailableError",
    "Verdict",
    "__version__",
    "aio",
    "local",
    "token_rewards",
]

atexit.register(close_all)
