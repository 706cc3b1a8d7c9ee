"""vLLM on the CPU as it ships: the offline API, token_classify, on the same weights and pixels.

Its PaliGemma attends causally in the prefix too, so its rewards are wrong; the work is nearly the same.
vLLM puts one newline behind every prompt, here behind every response; that token's logit is dropped.
"""

from __future__ import annotations

import json
import os
from pathlib import Path

from PIL import Image
from safetensors.torch import load_file, save_file

from worker import Contestant


def write_model(folder: Path) -> Path:
    """The model folder as vLLM wants it: one label, and the head among the language model's weights."""
    source, target = folder / "model", folder / "vllm"
    target.mkdir()
    for name in ("model.safetensors", "tokenizer.json", "tokenizer_config.json", "preprocessor_config.json"):
        (target / name).symlink_to((source / name).resolve())
    config = json.loads((source / "config.json").read_text())
    config["num_labels"] = config["text_config"]["num_labels"] = 1
    (target / "config.json").write_text(json.dumps(config))
    head = load_file(source / "reward_head.safetensors")
    save_file({f"language_model.{name}": tensor for name, tensor in head.items()}, target / "head.safetensors")
    return target


def requests(folder: Path) -> list[dict]:
    """Prompts without image tokens and `<bos>`, which vLLM puts in front itself."""
    inputs = load_file(folder / "inputs.safetensors")
    pixels = ((inputs["pixel_values"] + 1) * 127.5).round().byte().permute(0, 2, 3, 1).numpy()
    return [
        {"prompt_token_ids": prompt[1:] + response, "multi_modal_data": {"image": Image.fromarray(image)}}
        for image, prompt, responses in zip(
            pixels, inputs["prompt_ids"].tolist(), inputs["response_ids"].tolist(), strict=True
        )
        for response in responses
    ]


def contestant(variant: str, folder: Path, threads: int) -> Contestant:
    del variant
    cores = sorted(os.sched_getaffinity(0))[:threads]
    os.environ |= {
        "VLLM_CPU_KVCACHE_SPACE": "1",
        "VLLM_CPU_NUM_OF_RESERVED_CPU": "0",
        "VLLM_CPU_OMP_THREADS_BIND": ",".join(map(str, cores)),
        "VLLM_NO_USAGE_STATS": "1",
        "HF_HUB_OFFLINE": "1",
    }
    from vllm import LLM, PoolingParams
    from vllm.config import PoolerConfig

    model = LLM(
        str(write_model(folder)),
        runner="pooling",
        convert="classify",
        pooler_config=PoolerConfig(task="token_classify"),
        dtype="float32",
        max_model_len=512,
        limit_mm_per_prompt={"image": 1},
    )
    work = requests(folder)
    tokens = load_file(folder / "inputs.safetensors")["response_ids"].shape[-1]
    params = PoolingParams(task="token_classify", use_activation=False)

    def run() -> list[float]:
        outputs = model.encode(work, pooling_params=params, pooling_task="token_classify", use_tqdm=False)
        return [logit for out in outputs for logit in out.outputs.data[-tokens - 1 : -1, 0].tolist()]

    def reset() -> None:
        model.reset_prefix_cache()
        model.reset_mm_cache()

    return Contestant(run, ["vllm-cpu", "torch", "transformers"], "token_classify, offline API", reset)
