import asyncio
import json
import math
import pickle
import subprocess
import sys

import numpy as np
import pytest
import tiny_policy
import torch
import verl_loop
import verl_rewards
from omegaconf import OmegaConf
from serving import SCENE, Server
from verl.experimental.reward_loop.reward_manager.naive import NaiveRewardManager
from verl.trainer.ppo import core_algos
from verl.trainer.ppo.reward import get_custom_reward_fn, load_reward_manager

import sleuth
from sleuth.verl import acompute_score, compute_score
from sleuth.verl.manager import RewardManager, TokenScore


@pytest.fixture
def responses(rows, tokens):
    texts = [row["response"] for row in rows[:4]]
    return [[*tokens.encode(t, add_special_tokens=False), tokens.eos_token_id] for t in texts]


@pytest.fixture
def data(rows, responses, tokens):
    return verl_rewards.batch_of(
        rows[0]["image"], responses, tiny_policy.PROMPT, tokens.pad_token_id
    )


def manager_of(server, tokens, **more):
    return load_reward_manager(verl_rewards.config_for(server.url, **more), tokens)


def run(manager, data):
    return manager.loop.run_until_complete(verl_rewards.rewards_of(manager, data))


def test_the_tensor_holds_the_servers_rewards_at_the_policys_tokens(
    server, client, rows, tokens, responses, data
):
    manager = manager_of(server, tokens)
    assert isinstance(manager, RewardManager)
    results = run(manager, data)
    table = manager.assemble_rm_scores(data, [r["reward_score"] for r in results])
    assert table.shape == data.batch["responses"].shape
    assert table.dtype == torch.float32
    for n, ids in enumerate(responses):
        policy = sleuth.PolicyTokens.from_ids(tokens, ids)
        own = client.score(rows[0]["image"], prompt=tiny_policy.PROMPT, policy=policy)
        covered = own.tokens.coverage > 0
        assert covered.sum() == len(ids) - 1
        wanted = np.where(covered, own.tokens.reward, 0)
        assert table[n, : len(ids)].tolist() == wanted.tolist()
        assert not table[n, len(ids) :].any()
        assert results[n]["reward_score"] == own.reward
        extra = results[n]["reward_extra_info"]
        assert extra["score"] == own.reward
        assert extra["sleuth_valid"]
        assert extra["sleuth_flagged"] == len(own.flagged)


def test_what_enters_verls_gae_is_the_tensor(server, tokens, data):
    manager = manager_of(server, tokens)
    table = manager.assemble_rm_scores(data, [r["reward_score"] for r in run(manager, data)])
    mask = data.batch["attention_mask"][:, data.batch["prompts"].shape[1] :].float()
    _, returns = core_algos.compute_gae_advantage_return(
        token_level_rewards=table,
        values=torch.zeros_like(table),
        response_mask=mask,
        gamma=1.0,
        lam=1.0,
    )
    assert returns[0, 0] == pytest.approx(float(table[0].sum()), rel=1e-5)
    assert returns[0, 3] == pytest.approx(float(table[0, 3:].sum()), rel=1e-5)


def test_the_streaming_path_takes_a_score_as_a_float(server, tokens, data):
    score = run(manager_of(server, tokens), data)[0]["reward_score"]
    again = pickle.loads(pickle.dumps(score))
    assert again == score == pytest.approx(float(torch.tensor([score])[0]))
    assert again.tokens == pytest.approx(score.tokens, nan_ok=True)


@pytest.fixture
def spoiled(rows, responses, tokens):
    """The second of four is an end token alone: there is nothing to score."""
    parts = [responses[0], [tokens.eos_token_id], *responses[2:]]
    return verl_rewards.batch_of(rows[0]["image"], parts, tiny_policy.PROMPT, tokens.pad_token_id)


def test_a_sample_without_a_reward_ends_the_step(server, tokens, spoiled):
    with pytest.raises(sleuth.InvalidRewardError, match="response_empty"):
        run(manager_of(server, tokens), spoiled)


def test_a_sample_without_a_reward_may_be_neutral_and_is_never_0(server, tokens, spoiled):
    manager = manager_of(server, tokens, on_invalid="neutral")
    results = run(manager, spoiled)
    assert math.isnan(results[1]["reward_score"])
    assert [r["reward_extra_info"]["sleuth_valid"] for r in results] == [True, False, True, True]
    assert results[1]["reward_extra_info"]["sleuth_reason"] == "response_empty"
    assert {frozenset(r["reward_extra_info"]) for r in results} == {
        frozenset(results[0]["reward_extra_info"])
    }
    table = manager.assemble_rm_scores(spoiled, [r["reward_score"] for r in results])
    returns = table.sum(1)
    assert returns[1] == pytest.approx(float(returns[[0, 2, 3]].mean()))
    advantages, _ = core_algos.compute_grpo_outcome_advantage(
        table, torch.ones_like(table), spoiled.non_tensor_batch["uid"]
    )
    assert advantages[1].abs().max() < 1e-4
    assert advantages[0].abs().max() > 1e-2
    none = [TokenScore(math.nan, [], "image_damaged")] * 4
    with pytest.raises(sleuth.InputError, match=r"no row of its group has a reward \(image_dam"):
        manager.assemble_rm_scores(spoiled, none)
    with pytest.raises(sleuth.InputError, match=r"scores\[0\]: a TokenScore of this manager"):
        manager.assemble_rm_scores(spoiled, [0.5] * 4)


def test_an_image_is_found_where_verl_puts_it(server, client, rows, tokens, responses):
    image = rows[0]["image"]
    data = verl_rewards.batch_of(SCENE, responses[:1], tiny_policy.PROMPT, tokens.pad_token_id)
    manager = manager_of(server, tokens)
    policy = sleuth.PolicyTokens.from_ids(tokens, responses[0])
    wanted = client.score(image, prompt=tiny_policy.PROMPT, policy=policy).reward
    data.non_tensor_batch["multi_modal_data"] = np.array([{"image": [image]}], dtype=object)
    assert run(manager, data)[0]["reward_score"] == wanted
    del data.non_tensor_batch["multi_modal_data"]
    data.non_tensor_batch["raw_prompt"][0] = [{"role": "user", "content": tiny_policy.PROMPT}]
    data.non_tensor_batch["extra_info"][0] = {"image": {"bytes": None, "path": image}}
    assert run(manager, data)[0]["reward_score"] == wanted
    data.non_tensor_batch["extra_info"][0] = {}
    with pytest.raises(sleuth.InputError, match="multi_modal_data: the sample has no image"):
        run(manager, data)


def config_of_function(server, name, **more):
    function = {
        "path": "pkg://sleuth.verl",
        "name": name,
        "reward_kwargs": {"url": server.url, **more},
    }
    return OmegaConf.create({"reward": {"custom_reward_function": function}})


@pytest.mark.parametrize("name", ["compute_score", "acompute_score"])
def test_verls_own_manager_takes_the_function(server, client, rows, tokens, responses, name):
    config = config_of_function(server, name)
    manager = NaiveRewardManager(config, tokens, get_custom_reward_fn(config))
    assert manager.is_async_reward_score == (name == "acompute_score")
    data = verl_rewards.batch_of(None, responses, tiny_policy.PROMPT, tokens.pad_token_id)
    rowed = data.non_tensor_batch
    rowed["data_source"] = np.array(["scenes"] * 4, dtype=object)
    rowed["reward_model"] = np.array([{"ground_truth": ""}] * 4, dtype=object)
    rowed["extra_info"] = np.array(
        [{"image": rows[0]["image"], "question": tiny_policy.PROMPT} for _ in range(4)],
        dtype=object,
    )
    results = run(manager, data)
    for result, ids in zip(results, responses, strict=True):
        text = tokens.decode(ids, skip_special_tokens=True)
        own = client.score(rows[0]["image"], text, tiny_policy.PROMPT)
        assert result["reward_score"] == own.reward
        assert result["reward_extra_info"]["sleuth_valid"]


def test_a_function_without_a_reward_raises_or_marks(server):
    asked = {"data_source": "d", "solution_str": "", "ground_truth": None}
    asked["extra_info"] = {"image": str(SCENE)}
    with pytest.raises(sleuth.InvalidRewardError, match="response_empty"):
        compute_score(**asked, url=server.url)
    marked = compute_score(**asked, url=server.url, on_invalid="nan")
    assert math.isnan(marked["score"])
    assert not marked["sleuth_valid"]
    assert marked["sleuth_reason"] == "response_empty"
    good = asyncio.run(acompute_score(**{**asked, "solution_str": "A heart."}, url=server.url))
    assert set(good) == set(marked)
    with pytest.raises(sleuth.InputError, match="on_invalid: 'zero' is neither raise nor nan"):
        compute_score(**asked, url=server.url, on_invalid="zero")
    with pytest.raises(sleuth.InputError, match=r"extra_info: has no 'image', but \['index'\]"):
        compute_score("d", "text", None, {"index": 1}, url=server.url)


def test_settings_are_checked(tokens):
    config = OmegaConf.create({"reward": {"reward_kwargs": {}}})
    with pytest.raises(sleuth.InputError, match=r"reward\.reward_kwargs\.url: name the server"):
        RewardManager(config, tokens)
    config = OmegaConf.create({"reward": {"reward_kwargs": {"url": "http://h:1", "on_invalid": 0}}})
    with pytest.raises(sleuth.InputError, match="on_invalid: raise or neutral"):
        RewardManager(config, tokens)


def test_verls_reward_loop_gives_the_tensor_from_its_own_processes(
    server, client, rows, tokens, responses, tmp_path
):
    tokens.save_pretrained(tmp_path)
    asked = {"url": server.url, "tokenizer": str(tmp_path), "image": rows[0]["image"]}
    asked["responses"] = responses
    # In a process of its own, as Ray forks where it starts.
    told = subprocess.run(
        [sys.executable, "-W", "ignore", verl_loop.__file__],
        input=json.dumps(asked),
        capture_output=True,
        text=True,
        timeout=280,
    )
    assert told.returncode == 0, told.stderr
    reply = json.loads(told.stdout.splitlines()[-1])
    policy = sleuth.PolicyTokens.from_ids(tokens, responses[1])
    own = client.score(rows[0]["image"], prompt=tiny_policy.PROMPT, policy=policy).tokens
    assert reply["rm_scores"][1][: len(own) - 1] == own.reward[:-1].tolist()
    assert reply["sleuth_valid"] == [True] * 4


def test_a_server_that_is_gone_ends_the_step(tokens, data):
    server = Server()
    server.kill()
    with pytest.raises(sleuth.UnavailableError):
        run(manager_of(server, tokens, patience=2), data)
