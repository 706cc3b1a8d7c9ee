import json
from pathlib import Path

import learn
import pytest
import torch
from PIL import Image
from scene_policy import ScenePolicy
from serving import BINARY

MODEL = Path(__file__).resolve().parents[2] / "models/mini"


@pytest.fixture(scope="module")
def judge():
    return learn.Judge(BINARY)


@pytest.fixture(scope="module")
def scenes(judge, tmp_path_factory):
    return judge.draw(tmp_path_factory.mktemp("held out"), "test", 5, 6)


@pytest.fixture(scope="module")
def policy():
    return ScenePolicy(MODEL, tokens=24)


def test_shared_prefixes_give_what_transformers_gives_for_whole_sequences(policy, scenes):
    seen = policy.see([scene.image for scene in scenes])
    said = policy.sample(seen, 2, torch.Generator().manual_seed(3))
    again = policy.log_probs(seen, said).gather(2, said.ids[..., None]).squeeze(2)
    torch.testing.assert_close(again[said.mask], said.log_probs[said.mask], atol=1e-4, rtol=0)
    whole, patches = policy.model, seen.shape[1]
    for row in range(len(said.ids)):
        picture = Image.open(scenes[row // 2].image).convert("RGB")
        image = torch.full((patches,), whole.config.image_token_id)
        ids = torch.cat([image, policy.prompt, said.ids[row]])[None]
        types = torch.zeros_like(ids)
        types[:, patches + len(policy.prompt) :] = 1
        with torch.no_grad():
            logits = whole(
                input_ids=ids,
                token_type_ids=types,
                attention_mask=torch.ones_like(ids),
                **policy.processor([picture], return_tensors="pt"),
            ).logits[0, -said.ids.shape[1] - 1 : -1]
        expected = logits.log_softmax(-1).gather(1, said.ids[row][:, None])[:, 0]
        mask = said.mask[row]
        torch.testing.assert_close(again[row][mask], expected[mask], atol=1e-4, rtol=0)


@pytest.mark.parametrize("credit", learn.CREDITS)
def test_a_response_without_a_reward_has_no_advantage(credit):
    tokens = torch.tensor([[0.1, 0.9, 0.5], [torch.nan] * 3, [0.4, 0.2, torch.nan]])
    whole = torch.tensor([0.5, torch.nan, 0.3])
    mask = torch.tensor([[True] * 3, [True] * 3, [True, True, False]])
    s = learn.Settings(credit=credit, responses=3)
    advantages = learn.advantages_of(tokens, whole, mask, s)
    assert not advantages.isnan().any()
    assert (advantages[1] == 0).all()
    assert (advantages[[0, 2]][mask[[0, 2]]] != 0).all()


def test_a_policy_learns_and_is_judged_by_the_truth(client, judge, scenes, policy, tmp_path):
    s = learn.Settings(steps=3, images=3, responses=3, evaluate_every=3)
    learner = learn.Learner(client, policy, s, seed=1)
    before = [p.detach().clone() for p in policy.parameters()]
    log = tmp_path / "later-1.jsonl"
    learn.learn(learner, judge, learn.Worlds(scenes, scenes), 1, learn.Log(log))
    lines = [json.loads(line) for line in log.read_text().splitlines()]
    assert [line["kind"] for line in lines] == ["evaluation", *["step"] * 3, "evaluation"]
    assert all(line["invalid"] == 0 for line in lines[1:4])
    assert lines[1]["kl"] < 1e-6 < lines[3]["kl"], "it moves away from the first policy"
    first = lines[0]
    assert 0 < first["wrong"] < 1
    assert sum(first["claims"].values()) == pytest.approx(first["statements"] * 24)
    assert sum(first["wrong_claims"].values()) == pytest.approx(
        first["wrong"] * first["statements"] * 24
    )
    moved = [
        name
        for (name, now), then in zip(policy.named_parameters(), before, strict=True)
        if not torch.equal(now, then)
    ]
    assert moved
    assert not any("vision_tower" in name for name in moved)
