"""A policy learns from token rewards to say fewer wrong things of drawn scenes.

    python examples/learn.py --out runs/later-1.jsonl --seed 1

The policy is the backbone of `models/mini`, of whose statements a third are wrong when it samples;
its rewards are those of `models/mini`, through a real server. What it says is judged by what was
drawn (`sleuth scenes --judge`), which no reward knows.
"""

from __future__ import annotations

import argparse
import copy
import json
import random
import subprocess
import tempfile
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from scene_policy import PROMPT, Responses, ScenePolicy
from torch import Tensor

import sleuth
from sleuth.server import find_binary
from sleuth.trl.token_grpo import token_advantages

CREDITS = ("tokens", "later", "response")


@dataclass(frozen=True)
class Settings:
    """What GRPO is told.

    Attributes:
        credit: `tokens`: every token has the advantage of its own reward; `later`: also of those
            behind it, each weighted by `decay` per token; `response`: all tokens of a response
            have that of its reward.
        decay: Of `later`.
        steps: Updates.
        images: Images of a step.
        responses: Responses per image.
        kl: Weight of the divergence from the first policy, in nats per token.
        learning_rate: Of Adam; rises over the first ten steps and falls linearly to 0.
        evaluate_every: Steps between evaluations.
    """

    credit: str = "later"
    decay: float = 0.9
    steps: int = 150
    images: int = 8
    responses: int = 8
    kl: float = 0.05
    learning_rate: float = 3e-4
    evaluate_every: int = 25


@dataclass(frozen=True)
class Scene:
    """A drawn image and the name by which its truth is known."""

    image: str
    group_id: str


@dataclass(frozen=True)
class Worlds:
    """Scenes to learn from, and scenes with things that those never show."""

    train: list[Scene]
    held_out: list[Scene]


class Log:
    """Lines of JSON in a file, and short ones in the terminal."""

    def __init__(self, path: Path) -> None:
        self.file = path.open("w")
        self.began = time.monotonic(), time.process_time()

    def tell(self, kind: str, step: int, what: dict[str, Any]) -> None:
        """One step or evaluation, with the seconds and CPU seconds that have passed."""
        wall, cpu = time.monotonic() - self.began[0], time.process_time() - self.began[1]
        line = {"kind": kind, "step": step, "seconds": wall, "cpu_seconds": cpu, **what}
        print(json.dumps(line), file=self.file, flush=True)
        shown = {name: round(value, 3) for name, value in what.items() if isinstance(value, float)}
        print(kind, step, f"{wall:.0f} s", shown, flush=True)


class Judge:
    """Knows what is true of scenes."""

    def __init__(self, binary: Path) -> None:
        self.binary = binary

    def draw(self, folder: Path, split: str, seed: int, count: int) -> list[Scene]:
        """Draws scenes of a split."""
        command = [self.binary, "scenes", "--split", split, "--seed", str(seed)]
        command += ["--count", str(count), "--out", folder]
        subprocess.run(command, check=True, capture_output=True)
        rows = map(json.loads, (folder / "data.jsonl").read_text().splitlines())
        found = {row["image"]: row["group_id"] for row in rows if "caption" in row["group_id"]}
        return [Scene(str(folder / image), group) for image, group in found.items()]

    def judge(self, scenes: Sequence[Scene], texts: Sequence[str]) -> list[dict[str, Any]]:
        """For each text, how many of its sentences are right, wrong, unclear and unreadable."""
        lines = [
            json.dumps({"group_id": scene.group_id, "response": text})
            for scene, text in zip(scenes, texts, strict=True)
        ]
        command = [self.binary, "scenes", "--judge", "-"]
        done = subprocess.run(
            command, input="\n".join(lines), check=True, capture_output=True, text=True
        )
        return [json.loads(line) for line in done.stdout.splitlines()]


def truth_of(judged: Sequence[dict[str, Any]], texts: Sequence[str]) -> dict[str, Any]:
    """What the truth says of texts: rates in 0 to 1, counts per text."""
    sentences = [sentence for one in judged for sentence in one["sentences"]]
    false = [s for s in sentences if s["truth"] in (None, "false")]
    distinct = [len({s.strip().lower() for s in text.split(".") if s.strip()}) for text in texts]
    return {
        "wrong": len(false) / max(len(sentences), 1),
        "responses_with_wrong": sum(o["wrong"] + o["unreadable"] > 0 for o in judged) / len(judged),
        "unreadable": sum(s["truth"] is None for s in sentences) / max(len(sentences), 1),
        "statements": len(sentences) / len(texts),
        "distinct_statements": sum(distinct) / len(texts),
        "claims": dict(Counter(s["claim"] or "unreadable" for s in sentences).most_common()),
        "wrong_claims": dict(Counter(s["claim"] or "unreadable" for s in false).most_common()),
    }


def score(
    client: sleuth.Client, policy: ScenePolicy, images: Sequence[str], responses: Responses
) -> tuple[Tensor, Tensor]:
    """Scores responses.

    Returns:
        Rewards of the policy's tokens, (B, T), and of responses, (B,); NaN where there is none.
    """
    items = [
        sleuth.Item(
            image,
            prompt=PROMPT,
            policy=sleuth.PolicyTokens.from_ids(policy.tokenizer, ids),
            group=image,
        )
        for image, ids in zip(images, responses.token_ids(), strict=True)
    ]
    verdicts = client.score_batch(items)
    whole = [verdict.reward_or(float("nan")) for verdict in verdicts]
    tokens = sleuth.token_rewards(verdicts, responses.ids.shape[1])
    return torch.from_numpy(tokens), torch.tensor(whole)


def advantages_of(tokens: Tensor, whole: Tensor, mask: Tensor, s: Settings) -> Tensor:
    """Advantages of tokens, (B, T): within the responses to one image, of mean 0 and variance 1.

    A response without a reward has none, and counts in no mean.
    """
    if s.credit != "response":
        decay = s.decay if s.credit == "later" else 0.0
        return token_advantages(tokens, s.responses, decay=decay).float()
    grouped = whole.view(-1, s.responses)
    mean = grouped.nanmean(1, keepdim=True)
    std = (grouped - mean).square().nanmean(1, keepdim=True).sqrt()
    advantage = ((grouped - mean) / (std + 1e-4)).nan_to_num(0.0)
    return advantage.view(-1, 1) * mask


class Learner:
    """Trains a policy on the rewards of a server."""

    def __init__(self, client: sleuth.Client, policy: ScenePolicy, s: Settings, seed: int) -> None:
        self.client, self.policy, self.settings = client, policy, s
        self.first = copy.deepcopy(policy).requires_grad_(False)
        trained = [p for p in policy.parameters() if p.requires_grad]
        self.optimizer = torch.optim.Adam(trained, s.learning_rate, betas=(0.9, 0.95))
        self.schedule = torch.optim.lr_scheduler.LambdaLR(
            self.optimizer, lambda n: min((n + 1) / 10, 1 - n / s.steps)
        )
        self.generator = torch.Generator().manual_seed(seed)

    def step(self, scenes: Sequence[Scene]) -> dict[str, float]:
        """Samples, scores, and improves the policy once."""
        s, policy = self.settings, self.policy
        seen = policy.see([scene.image for scene in scenes])
        said = policy.sample(seen, s.responses, self.generator)
        images = [scene.image for scene in scenes for _ in range(s.responses)]
        began = time.monotonic()
        tokens, whole = score(self.client, policy, images, said)
        scored = time.monotonic() - began
        advantages = advantages_of(tokens, whole, said.mask, s)
        logs = policy.log_probs(seen, said)
        with torch.no_grad():
            first = self.first.log_probs(seen, said)
        chosen = logs.gather(2, said.ids[..., None]).squeeze(2)
        divergence = (logs.exp() * (logs - first)).sum(2)
        # One update per sample: the ratio of PPO is 1, and its gradient is that of the logarithm.
        losses = s.kl * divergence - advantages * chosen
        loss = losses[said.mask].mean()
        self.optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(policy.parameters(), 1.0)
        self.optimizer.step()
        self.schedule.step()
        return {
            "reward": float(whole.nanmean()),
            "token_reward": float(tokens.nanmean()),
            "invalid": float(whole.isnan().float().mean()),
            "tokens": float(said.mask.sum(1).float().mean()),
            "kl": float(divergence.detach()[said.mask].mean()),
            "entropy": float(-(logs.exp() * logs).detach().sum(2)[said.mask].mean()),
            "score_seconds": scored,
        }

    def evaluate(self, judge: Judge, scenes: Sequence[Scene], seed: int) -> dict[str, Any]:
        """Four responses to each scene, by the truth and by the rewards."""
        generator = torch.Generator().manual_seed(seed)
        every, texts, rewards, lengths = [], [], [], []
        for at in range(0, len(scenes), 16):
            some = scenes[at : at + 16]
            said = self.policy.sample(self.policy.see([x.image for x in some]), 4, generator)
            asked = [scene for scene in some for _ in range(4)]
            rewards.append(score(self.client, self.policy, [x.image for x in asked], said)[1])
            every += asked
            texts += self.policy.tokenizer.batch_decode(said.token_ids(), skip_special_tokens=True)
            lengths.append(said.mask.sum(1).float())
        truth = truth_of(judge.judge(every, texts), texts)
        reward, tokens = torch.cat(rewards).nanmean(), torch.cat(lengths).mean()
        return {"reward": float(reward), "tokens": float(tokens), **truth, "examples": texts[:8]}


def learn(learner: Learner, judge: Judge, scenes: Worlds, seed: int, log: Log) -> None:
    """Trains, and tells of every step and evaluation."""
    order = random.Random(seed)
    log.tell("evaluation", 0, learner.evaluate(judge, scenes.held_out, 1))
    for n in range(1, learner.settings.steps + 1):
        log.tell("step", n, learner.step(order.sample(scenes.train, learner.settings.images)))
        if n % learner.settings.evaluate_every == 0:
            log.tell("evaluation", n, learner.evaluate(judge, scenes.held_out, 1))


def main() -> None:
    """Runs the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, required=True, help="log to write, a line of JSON each")
    parser.add_argument("--credit", choices=CREDITS, default=Settings.credit)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--steps", type=int, default=Settings.steps)
    parser.add_argument("--scenes", type=int, default=400, help="images to learn from")
    parser.add_argument("--held-out", type=int, default=150, help="images to be judged on")
    parser.add_argument("--model", type=Path, default=Path("models/mini"))
    arguments: Any = parser.parse_args()
    seed, judge = arguments.seed, Judge(find_binary())
    settings = Settings(credit=arguments.credit, steps=arguments.steps)
    with tempfile.TemporaryDirectory() as name, sleuth.local() as client:
        folder = Path(name)
        scenes = Worlds(
            judge.draw(folder / "train", "train", 1000 + seed, arguments.scenes),
            judge.draw(folder / "test", "test", 77, arguments.held_out),
        )
        learner = Learner(client, ScenePolicy(arguments.model), settings, seed)
        learn(learner, judge, scenes, seed, Log(arguments.out))


if __name__ == "__main__":
    main()
