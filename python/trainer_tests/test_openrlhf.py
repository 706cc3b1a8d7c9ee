import asyncio
import importlib.abc
import importlib.machinery
import importlib.util
import json
import sys
import types
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from openrlhf.utils.agent import SingleTurnAgentExecutor
from serving import SCENE

import sleuth
from sleuth.openrlhf import image_of_label, response_of, reward_func_for, scored

EXAMPLES = Path(__file__).resolve().parent.parent / "examples"
PROMPT = "user: Describe the image.\nassistant: "


class Engine:
    """What vLLM does for OpenRLHF, with a response that is given."""

    def __init__(self, ids):
        self.ids = ids

    async def generate(self, prompt_ids, params, multi_modal_data=None):
        output = SimpleNamespace(token_ids=self.ids, finish_reason="stop", logprobs=None)
        return SimpleNamespace(outputs=[output])


PARAMS = SimpleNamespace(max_tokens=64, logprobs=None)


def execute(executor, tokens, text, label, images=None):
    ids = [*tokens.encode(text, add_special_tokens=False), tokens.eos_token_id]
    asked = executor.execute(PROMPT, label, PARAMS, 4096, tokens, Engine(ids), images)
    return asyncio.run(asked)


class NoVllm(importlib.abc.MetaPathFinder, importlib.abc.Loader):
    """Where vLLM is not installed: names that OpenRLHF imports of it and nothing here calls."""

    def find_spec(self, name, path, target=None):
        ours = name.split(".")[0] == "vllm"
        return importlib.machinery.ModuleSpec(name, self, is_package=True) if ours else None

    def create_module(self, spec):
        return types.ModuleType(spec.name)

    def exec_module(self, module):
        module.__path__ = []
        module.__getattr__ = lambda name: type(name, (), {})


def experience_of(response):
    """What OpenRLHF's own code makes of a response."""
    if not any(isinstance(finder, NoVllm) for finder in sys.meta_path):
        sys.meta_path.append(NoVllm())
    from openrlhf.trainer.ppo_utils.samples_generator import SamplesGenerator

    return SamplesGenerator._process_response_into_experience(None, response)


def test_openrlhf_loads_the_file_and_takes_its_rewards(server, client, tokens, monkeypatch):
    monkeypatch.setenv("REWARD_URL", server.url)
    executor = SingleTurnAgentExecutor(str(EXAMPLES / "openrlhf_reward.py"))
    label = json.dumps({"image": str(SCENE)})
    output = execute(executor, tokens, "The large heart is red.", label)
    own = client.score(SCENE, "The large heart is red.")
    assert float(output["reward"]) == pytest.approx(own.reward)
    experience = experience_of(output)
    assert experience.rewards.shape == experience.scores.shape == (1,)
    assert experience.rewards[0] == pytest.approx(own.reward)
    assert experience.info["sleuth_flagged"][0] > 0


def test_a_sample_without_a_reward_has_none_and_never_0(server, tokens, monkeypatch):
    monkeypatch.setenv("REWARD_URL", server.url)
    executor = SingleTurnAgentExecutor(str(EXAMPLES / "openrlhf_reward.py"))
    output = execute(executor, tokens, "", json.dumps({"image": str(SCENE)}))
    assert output["reward"] is None
    assert output["scores"] is None
    assert experience_of(output).rewards is None


def test_an_agent_has_images_and_token_ids(server, client, tokens):
    executor = scored(SingleTurnAgentExecutor, server.url)()
    output = execute(executor, tokens, "The large heart is red.", "", [str(SCENE)])
    assert output["reward"] == pytest.approx(client.score(SCENE, "The large heart is red.").reward)
    assert experience_of(output).rewards.shape == (1,)
    with pytest.raises(sleuth.InvalidRewardError, match="response_empty"):
        execute(executor, tokens, "", "", [str(SCENE)])
    with pytest.raises(sleuth.InputError, match="images: there is no image"):
        execute(executor, tokens, "A heart.", "")


def test_the_agents_file_is_what_openrlhf_loads(server, monkeypatch):
    monkeypatch.setenv("REWARD_URL", server.url)
    spec = importlib.util.spec_from_file_location("agent", EXAMPLES / "openrlhf_agent.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    assert issubclass(module.AgentExecutor, SingleTurnAgentExecutor)


def test_a_batch_is_scored_at_once_and_lists_may_be_empty(client):
    function = reward_func_for(client, prompt=lambda _: "Describe the image.")
    texts = ["The large heart is red.", "There is a triangle."]
    queries = [PROMPT + text + "</s><pad>" for text in texts]
    told = function(queries, [PROMPT] * 2, [str(SCENE)] * 2)
    wanted = [client.score(SCENE, text, "Describe the image.").reward for text in texts]
    assert told["rewards"].tolist() == pytest.approx(wanted)
    assert torch.equal(told["rewards"], told["scores"])
    assert len(told["extra_logs"]["sleuth_flagged"]) == 2
    assert function([], [], [])["rewards"].shape == (0,)
    with pytest.raises(sleuth.InputError, match="queries has 2, prompts has 1"):
        function(queries, [PROMPT], [str(SCENE)] * 2)
    with pytest.raises(sleuth.InvalidRewardError, match="response_empty"):
        function([PROMPT + "</s>"], [PROMPT], [str(SCENE)])


@pytest.mark.parametrize(
    ("query", "prompt", "response"),
    [
        ("ask: A heart.</s>", "ask: ", "A heart."),
        ("ask: A heart.<|im_end|>\n<|endoftext|>", "ask: ", "A heart."),
        # An image stands as many tokens in the query.
        ("u: <img><img><img> what?\na: A heart.", "u: <image> what?\na: ", "A heart."),
        # What the response repeats of the prompt stays.
        ("x <i><i>\na: one\na: two\na: three", "x <i>\na: one\na: ", "two\na: three"),
        ("ask: a < b and <b>bold</b>", "ask: ", "a < b and <b>bold</b>"),
    ],
)
def test_a_response_is_what_follows_the_prompt(query, prompt, response):
    assert response_of(query, prompt) == response


def test_a_query_of_another_prompt_is_told():
    with pytest.raises(sleuth.InputError, match="queries: the prompt's end does not stand"):
        response_of("other", "prompt")


def test_labels_name_images():
    assert image_of_label('{"image": "a.png"}') == "a.png"
    assert image_of_label({"image": "a.png"}) == "a.png"
    assert image_of_label("a.png") == "a.png"
    with pytest.raises(sleuth.InputError, match=r"labels: has no 'image', but \['answer'\]"):
        image_of_label({"answer": 1})
