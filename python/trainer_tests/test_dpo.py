import json

import dpo
import pytest
import tiny_policy
import torch
from serving import BINARY


def test_a_policy_learns_from_the_pairs_of_corrections(rows, tokens, tmp_path, client):
    pairs = dpo.make_pairs(BINARY, rows, tmp_path)
    assert len(pairs) >= 4
    lines = [json.loads(line) for line in (tmp_path / "pairs.jsonl").read_text().splitlines()]
    for line in lines[:3]:
        chosen, rejected = (line[k][0]["content"] for k in ("chosen", "rejected"))
        prompt = line["prompt"][0]["content"]
        better = client.score(line["images"][0], chosen, prompt)
        assert better.reward > client.score(line["images"][0], rejected, prompt).reward + 0.01
    torch.manual_seed(0)
    # The same four again and again, so that the loss is one of the same pairs.
    few, out = pairs.select(range(4)), tmp_path / "out"
    trainer = dpo.trainer_for(
        few, tiny_policy.policy(tokens), out, max_steps=8, per_device_train_batch_size=4
    )
    trainer.train()
    logged = [e for e in trainer.state.log_history if "loss" in e]
    assert logged[0]["loss"] == pytest.approx(0.6931, abs=1e-3)
    assert logged[-1]["loss"] < 0.68
    assert logged[-1]["rewards/margins"] > 0.02
    assert logged[-1]["rewards/accuracies"] == 1
