"""Trainers' own client code, from their wheels.

The packages cannot be installed beside a test: they want vLLM, Ray, DeepSpeed and CUDA. Their wheels
are unpacked instead, and the files that speak HTTP are loaded from them as they are. What those files
import and their HTTP code does not use is stood in for.
"""

import importlib
import json
import sys
import types
from pathlib import Path
from unittest.mock import MagicMock


def packages(root: Path, *names: str) -> None:
    """Packages whose `__init__` does not run: it would import all of the trainer."""
    for name in names:
        package = types.ModuleType(name)
        package.__path__ = [str(root.joinpath(*name.split(".")))]
        sys.modules[name] = package


def stand_ins(*names: str) -> None:
    for name in names:
        sys.modules[name] = MagicMock(name=name)


def openrlhf(root: Path):
    """`openrlhf/utils/agent.py`."""
    packages(root, "openrlhf", "openrlhf.utils")
    return importlib.import_module("openrlhf.utils.agent")


def verl(root: Path):
    """`verl/experimental/reward_loop/reward_loop.py`."""
    names = ["ray", "ray.actor", "omegaconf", "tensordict", "verl.protocol", "verl.single_controller"]
    names += ["verl.single_controller.ray", "verl.single_controller.ray.base", "verl.trainer"]
    names += ["verl.trainer.ppo", "verl.trainer.ppo.reward", "verl.utils", "verl.utils.fs"]
    names += ["verl.utils.ray_utils", "verl.experimental.reward_loop.reward_model"]
    packages(root, "verl", "verl.experimental", "verl.experimental.reward_loop")
    stand_ins(*names)
    return importlib.import_module("verl.experimental.reward_loop.reward_loop")


class PolicyTokenizer:
    """A tokenizer as OpenRLHF calls it, which wants tensors of it."""

    def __init__(self, tokenizer):
        self.tokenizer = tokenizer

    def __call__(self, text, add_special_tokens, return_tensors):
        ids = self.tokenizer(text, add_special_tokens=add_special_tokens)["input_ids"]
        return {"input_ids": [types.SimpleNamespace(tolist=lambda: list(ids))]}

    def decode(self, ids, skip_special_tokens):
        return self.tokenizer.decode(ids, skip_special_tokens=skip_special_tokens)


class Engine:
    """Generates one text, with the token that ends it."""

    def __init__(self, tokenizer, text: str):
        self.ids = tokenizer(text, add_special_tokens=False)["input_ids"] + [tokenizer.eos_token_id]

    async def generate(self, prompt_token_ids, sampling_params, multi_modal_data):
        output = types.SimpleNamespace(token_ids=self.ids, finish_reason="stop", logprobs=None)
        return types.SimpleNamespace(outputs=[output])


def rollout(executor, tokenizer, prompt: str, label, text: str):
    """OpenRLHF's rollout of one prompt: generated, decoded whole, and rewarded over HTTP."""
    parameters = types.SimpleNamespace(max_tokens=64, logprobs=None)
    policy, engine = PolicyTokenizer(tokenizer), Engine(tokenizer, text)
    return executor.execute(prompt, label, parameters, 256, policy, engine)


def worker(module, tokenizer, address: str):
    """veRL's reward worker, of a server at an address, as one of vLLM."""
    made = object.__new__(module.RewardLoopWorker)
    rollout = types.SimpleNamespace(name="vllm")
    model = types.SimpleNamespace(model_path="/models/mini", rollout=rollout)
    made.config = types.SimpleNamespace(reward=types.SimpleNamespace(reward_model=model))
    made.reward_router_address = address
    made.input_tokenizer = made.reward_model_tokenizer = tokenizer
    return made


class Sample:
    """One item of veRL's `DataProto`, with what the reward worker takes of it."""

    def __init__(self, tokenizer, chat: list, response: str):
        import numpy

        ids = tokenizer(response, add_special_tokens=False)["input_ids"] + [tokenizer.eos_token_id]
        padded = numpy.array(ids + [tokenizer.pad_token_id] * 5)
        mask = numpy.array([1] * len(ids) + [0] * 5)
        self.batch = {"responses": padded, "attention_mask": mask}
        self.non_tensor_batch = {"raw_prompt": json.loads(json.dumps(chat))}

    def __len__(self):
        return 1

    def __getitem__(self, _):
        return self
