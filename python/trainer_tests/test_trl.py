import io
import pickle
import threading

import grpo
import pytest
import sleuth_spy
import tiny_policy
import torch
from serving import SCENE, Server
from trl import GRPOConfig, GRPOTrainer

import sleuth
from sleuth.trl import AsyncReward, Reward
from sleuth.trl.token_grpo import TokenGRPOTrainer, token_advantages


@pytest.fixture
def scenes(rows):
    return tiny_policy.prompts(rows)


def train(arm, reward, scenes, tokens, tmp_path, **more):
    torch.manual_seed(0)
    trainer = grpo.trainer_for(
        arm, reward, scenes, tiny_policy.policy(tokens), tmp_path / "out", **more
    )
    before = [p.detach().clone() for p in trainer.model.parameters()]
    trainer.train()
    moved = any((a != b).any() for a, b in zip(before, trainer.model.parameters(), strict=True))
    return trainer, moved


def encoded(picture):
    file = io.BytesIO()
    picture.save(file, "PNG")
    return file.getvalue()


@pytest.mark.parametrize("arm", ["completions", "rloo"])
def test_a_trainer_learns_from_the_servers_own_rewards(client, scenes, tokens, tmp_path, arm):
    calls, reward = sleuth_spy.spied(Reward(client, tokenizer=tokens))
    trainer, moved = train(arm, reward, scenes, tokens, tmp_path)
    assert moved
    assert len(calls) == 2
    for call in calls:
        assert len(call.rewards) == 8
        for n, told in enumerate(call.rewards):
            policy = sleuth.PolicyTokens.from_ids(tokens, call.completion_ids[n])
            image = encoded(call.columns["images"][n][0])
            assert told == client.score(image, policy.text, tiny_policy.PROMPT).reward
    logged = [e for e in trainer.state.log_history if "reward" in e]
    assert [e["reward"] for e in logged] == [
        pytest.approx(sum(c.rewards) / len(c.rewards), abs=1e-5) for c in calls
    ]
    assert all(e["sleuth/invalid"] == 0 for e in logged)
    assert all("rewards/sleuth/mean" in e for e in logged)


def test_an_asynchronous_reward_gives_the_same(server, client, scenes, tokens, tmp_path):
    reward = AsyncReward(server.url, tokenizer=tokens)
    trainer, moved = train("completions", reward, scenes, tokens, tmp_path)
    assert moved
    again = Reward(client, tokenizer=tokens)
    other, _ = train("completions", again, scenes, tokens, tmp_path)
    rewards = [
        [e["reward"] for e in t.state.log_history if "reward" in e] for t in (trainer, other)
    ]
    assert rewards[0] == rewards[1]


def test_a_text_policy_takes_the_image_from_a_column(client, rows, tokens, tmp_path):
    from transformers import LlamaForCausalLM

    torch.manual_seed(0)
    calls, reward = sleuth_spy.spied(Reward(client, image_column="picture"))
    model = LlamaForCausalLM(tiny_policy.language_config(tokens))
    scenes = tiny_policy.prompts(rows, with_pixels=False)
    trainer = grpo.trainer_for("completions", reward, scenes, (model, tokens), tmp_path / "out")
    trainer.train()
    for call in calls:
        assert all(isinstance(c, str) for c in call.completions)
        for n, told in enumerate(call.rewards):
            picture, text = call.columns["picture"][n], call.completions[n]
            assert told == client.score(picture, text, tiny_policy.PROMPT).reward
    with pytest.raises(sleuth.InputError, match="image_column: the data set has no column 'photo'"):
        Reward(client, image_column="photo")(prompts=["p"], completions=["c"], picture=["x"])


def test_a_completion_without_a_reward_is_left_out_and_never_0(client, scenes, tokens, tmp_path):
    """Every third completion is made empty on its way: its group goes on without it."""

    class Emptied(Reward):
        def items(self, *arguments):
            items = super().items(*arguments)
            empty = sleuth.PolicyTokens(b"", ())
            from dataclasses import replace

            return [replace(i, policy=empty) if n % 3 == 0 else i for n, i in enumerate(items)]

    calls, reward = sleuth_spy.spied(Emptied(client, tokenizer=tokens))
    trainer, moved = train("completions", reward, scenes, tokens, tmp_path)
    assert moved
    for call in calls:
        assert [n for n, r in enumerate(call.rewards) if r is None] == [0, 3, 6]
        assert 0 not in call.rewards
    for n, entry in enumerate(e for e in trainer.state.log_history if "reward" in e):
        valid = [r for r in calls[n].rewards if r is not None]
        assert entry["reward"] == pytest.approx(sum(valid) / len(valid), abs=1e-5)
        assert entry["sleuth/invalid"] == pytest.approx(3 / 8)
    assert trainer._logs["extra"]["sleuth_reason"][0] == "response_empty"
    advantages = list(trainer._logs["advantages"])
    assert [n for n, a in enumerate(advantages) if a == 0] == [0, 3, 6]


def test_advantages_are_of_the_rewards_of_tokens(client, scenes, tokens, tmp_path):
    reward = Reward(client, tokenizer=tokens)
    seen = []

    def spy(trainer):
        loss = trainer._compute_loss

        def compute(model, inputs):
            seen.append({k: inputs[k] for k in ("advantages", "completion_ids", "completion_mask")})
            return loss(model, inputs)

        trainer._compute_loss = compute

    torch.manual_seed(0)
    parts = tiny_policy.policy(tokens)
    trainer = grpo.trainer_for("tokens", reward, scenes, parts, tmp_path / "out", max_steps=1)
    spy(trainer)
    trainer.train()
    wanted = {}
    for verdict in reward.verdicts:
        wanted[verdict.tokens.response] = verdict
    table = sleuth.token_rewards(reward.verdicts, seen[0]["completion_ids"].shape[1])
    expected = token_advantages(torch.from_numpy(table), 4, decay=0.9)
    texts = [v.tokens.response for v in reward.verdicts]
    assert len(seen) == 1
    for ids, mask, advantages in zip(*(seen[0][k] for k in (
        "completion_ids", "completion_mask", "advantages")), strict=True):  # fmt: skip
        policy = sleuth.PolicyTokens.from_ids(tokens, ids[mask.bool()])
        row = texts.index(policy.text)
        assert torch.equal(advantages, expected[row])
        own = client.score(SCENE, policy=policy)
        assert len(own.tokens) == int(mask.sum())
    assert expected.shape == seen[0]["advantages"].shape
    assert len({round(float(a), 4) for a in expected[0]}) > 3


def test_token_advantages_are_centred_in_their_group_and_0_where_there_is_no_reward():
    nan = float("nan")
    rewards = torch.tensor([[0.2, 0.4, nan], [0.9, nan, nan], [nan, nan, nan], [0.5, 0.7, 0.1]])
    plain = token_advantages(rewards, 2, scale=False)
    known = ~torch.isnan(rewards)
    assert torch.equal(plain[~known], torch.zeros(int((~known).sum())))
    for group in (slice(0, 2), slice(2, 4)):
        assert plain[group][known[group]].sum() == pytest.approx(0, abs=1e-6)
    assert plain[0, 1] - plain[0, 0] == pytest.approx(0.2)
    scaled = token_advantages(rewards, 2)
    assert scaled[:2][known[:2]].std(correction=0) == pytest.approx(1, abs=1e-3)
    halves = [
        token_advantages(rewards[n : n + 2], 4, gather=lambda _: whole(rewards), rank=n // 2)
        for n in (0, 2)
    ]
    assert torch.allclose(torch.cat(halves), token_advantages(rewards, 4))


def test_later_tokens_count_less_the_further_they_are():
    rewards = torch.tensor([[0.2, torch.nan, 0.8, torch.nan], [torch.nan] * 4])
    own = token_advantages(rewards, 2, scale=False)
    assert torch.allclose(own[0], torch.tensor([-0.3, 0.0, 0.3, 0.0]))
    later = token_advantages(rewards, 2, decay=0.5, scale=False)
    weight = (1 - 0.25) ** 0.5
    expected = torch.tensor([-0.3 + 0.25 * 0.3, 0.5 * 0.3, 0.3, 0.0]) * weight
    assert torch.allclose(later[0], expected)
    assert (later[1] == 0).all(), "a response without a reward moves nothing"
    with pytest.raises(sleuth.InputError, match="decay must be at least 0 and below 1, not 1"):
        TokenGRPOTrainer(decay=1)


def whole(rewards):
    known = torch.where(torch.isnan(rewards), 0.0, rewards).double()
    there = (~torch.isnan(rewards)).double()
    return torch.stack([there.sum(1), known.sum(1), known.square().sum(1)], 1)


def test_a_mismatch_is_told(client, scenes, tokens, tmp_path):
    with pytest.raises(
        sleuth.InputError, match=r"TokenGRPOTrainer needs a sleuth\.trl\.Reward with"
    ):
        train("tokens", Reward(client), scenes, tokens, tmp_path)
    with pytest.raises(TypeError, match="AsyncReward takes this one"):
        Reward(sleuth.aio.Client("http://127.0.0.1:9"))
    with pytest.raises(TypeError, match="; Reward takes this one"):
        AsyncReward(client)
    reward = Reward(client, tokenizer=tokens)
    with pytest.raises(sleuth.InputError, match="one of each per response: prompts has 2, compl"):
        reward(prompts=["p", "p"], completions=["c"], image=[SCENE, SCENE])
    with pytest.raises(sleuth.InputError, match="completion_ids: TRL passes them"):
        reward(prompts=["p"], completions=["c"], image=[SCENE])
    with pytest.raises(sleuth.InputError, match="images: neither a column"):
        reward(prompts=["p"], completions=["c"], completion_ids=[[5]])
    with pytest.raises(sleuth.InputError, match=r"images\[0\]: a response is judged by one image"):
        reward(prompts=["p"], completions=["c"], completion_ids=[[5]], images=[[SCENE, SCENE]])


def test_a_reward_function_travels_to_another_process(client, tokens):
    batch = {"prompts": ["p"], "completions": ["A heart."], "image": [SCENE]}
    batch["completion_ids"] = [tokens.encode("A heart.", add_special_tokens=False)]
    reward = Reward(client, tokenizer=tokens)
    assert pickle.loads(pickle.dumps(reward))(**batch) == reward(**batch) != [None]


def test_a_step_waits_for_a_server_that_restarts():
    first, again = Server(), []
    reward = Reward(first.url, patience=60)
    batch = {"prompts": ["p"] * 4, "completions": ["A heart."] * 4, "image": [SCENE] * 4}
    before = reward(**batch)
    first.kill()
    restart = threading.Timer(4, lambda: again.append(Server(listen=first.address)))
    restart.start()
    try:
        assert reward(**batch) == before
        assert None not in before
        assert max(verdict.attempts for verdict in reward.verdicts) > 1
    finally:
        restart.join()
        again[0].stop()


def test_training_stops_when_the_server_is_gone(scenes, tokens, tmp_path):
    server = Server()
    quick = sleuth.Settings(retry=sleuth.Retry(attempts=3))
    with sleuth.Client(server.url, settings=quick) as client:
        server.kill()
        with pytest.raises(sleuth.UnavailableError):
            train("completions", Reward(client, tokenizer=tokens), scenes, tokens, tmp_path)


def test_trl_takes_it_among_other_rewards(client, scenes, tokens, tmp_path):
    model, processor = tiny_policy.policy(tokens)
    settings = grpo.trainer_for(
        "completions", Reward(client), scenes, (model, processor), tmp_path / "out", max_steps=1
    ).args
    assert isinstance(settings, GRPOConfig)
    lengths = lambda completions, **_: [float(len(c[0]["content"])) for c in completions]  # noqa: E731
    trainer = GRPOTrainer(
        model=model,
        reward_funcs=[Reward(client), lengths],
        args=settings,
        train_dataset=scenes,
        processing_class=processor,
    )
    trainer.train()
    logged = next(e for e in trainer.state.log_history if "reward" in e)
    assert 0 < logged["rewards/sleuth/mean"] <= 1
    assert logged["rewards/<lambda>/mean"] > 1


def test_a_verdict_becomes_a_tensor_only_if_it_is_valid(client):
    valid, invalid = client.score(SCENE, "A heart."), client.score(SCENE, "")
    assert float(torch.as_tensor(valid)) == valid.reward
    assert torch.tensor([valid, valid], dtype=torch.float32).tolist() == [valid.reward] * 2
    for convert in (
        torch.as_tensor,
        torch.tensor,
        torch.from_dlpack,
        lambda v: torch.tensor([v], dtype=torch.float32),
        lambda v: torch.zeros(2) + v,
        lambda v: v * torch.ones(2),
    ):
        with pytest.raises(sleuth.InvalidRewardError, match="response_empty"):
            convert(invalid)
