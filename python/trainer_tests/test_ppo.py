import math

import ppo
import pytest
import torch

import sleuth


@pytest.fixture
def images(rows):
    return sorted({row["image"] for row in rows})


def trainer_of(client, tokens, images, monkeypatch, **settings):
    """A trainer, and what enters advantage estimation."""
    entered, rollouts = [], []
    estimate, sample = ppo.estimate_advantages, ppo.Trainer.sample

    def spy(rewards, values, mask, gamma, lam):
        entered.append((rewards.clone(), mask.clone()))
        return estimate(rewards, values, mask, gamma, lam)

    def keep(self, count):
        rollouts.append(sample(self, count))
        return rollouts[-1]

    monkeypatch.setattr(ppo, "estimate_advantages", spy)
    monkeypatch.setattr(ppo.Trainer, "sample", keep)
    trainer = ppo.Trainer(client, tokens, images, ppo.Settings(**settings))
    return trainer, entered, rollouts


def test_the_tensor_that_enters_advantage_estimation_holds_the_servers_rewards(
    client, tokens, images, monkeypatch
):
    centre, kl = 0.5, 0.05
    trainer, entered, rollouts = trainer_of(client, tokens, images, monkeypatch)
    before = [p.detach().clone() for p in trainer.policy.parameters()]
    told = [trainer.step() for _ in range(3)]
    assert all(t["invalid"] == 0 for t in told)
    checked = 0
    for step, ((rewards, mask), rollout) in enumerate(zip(entered, rollouts, strict=True)):
        assert rewards.shape == mask.shape == rollout.mask.shape
        penalty = kl * (rollout.log_probs - rollout.reference)
        for row, ids in enumerate(rollout.responses()):
            image = images[(step * 2 + row // 4) % len(images)]
            policy = sleuth.PolicyTokens.from_ids(tokens, ids)
            own = client.score(image, prompt="Describe the image.", policy=policy).tokens
            assert len(own) == int(mask[row].sum()) == len(ids)
            for t in range(len(ids)):
                if own.coverage[t] > 0:
                    wanted = float(own.reward[t]) - centre - float(penalty[row, t])
                    assert float(rewards[row, t]) == pytest.approx(wanted, abs=1e-6)
                    checked += 1
                else:
                    assert float(rewards[row, t]) == pytest.approx(-float(penalty[row, t]))
    assert checked > 200
    assert any((a != b).any() for a, b in zip(before, trainer.policy.parameters(), strict=True))


def test_a_response_without_a_reward_moves_nothing(client, tokens, images, monkeypatch):
    class Broken:
        """Every image but the first is broken on its way."""

        def score_batch(self, items):
            from dataclasses import replace

            return client.score_batch(
                [i if n < 4 else replace(i, image=b"broken") for n, i in enumerate(items)]
            )

    trainer, entered, _ = trainer_of(client, tokens, images, monkeypatch)
    trainer.client = Broken()
    assert trainer.step()["invalid"] == 0.5
    mask = entered[0][1]
    assert mask[:4].any()
    assert not mask[4:].any()
    trainer.images = [b"broken"] * 2
    trainer.client = client
    before = [p.detach().clone() for p in trainer.policy.parameters()]
    told = trainer.step()
    assert told["invalid"] == 1
    assert math.isnan(told["reward"])
    assert all(torch.equal(a, b) for a, b in zip(before, trainer.policy.parameters(), strict=True))


def test_advantages_are_those_of_the_textbook():
    rewards = torch.tensor([[1.0, 0.0, 2.0, 9.0]])
    values = torch.tensor([[0.5, 0.25, 1.0, 9.0]])
    mask = torch.tensor([[True, True, True, False]])
    advantages, returns = ppo.estimate_advantages(rewards, values, mask, 0.9, 0.5)
    last = 2.0 - 1.0
    middle = 0.0 + 0.9 * 1.0 - 0.25 + 0.45 * last
    first = 1.0 + 0.9 * 0.25 - 0.5 + 0.45 * middle
    assert advantages[0].tolist() == pytest.approx([first, middle, last, 0.0])
    assert returns[0, :3].tolist() == pytest.approx([first + 0.5, middle + 0.25, last + 1.0])
