"""The packed forward of packed.py: in plain torch, by the faster of its matrix products, or in OpenVINO."""

from __future__ import annotations

import json
from pathlib import Path

import torch

from packed import Linear, MakeLinear, OneDnnLinear, Packed
from worker import Contestant, fastest
from workload import Inputs, read_inputs, read_weights


def packed(folder: Path, inputs: Inputs, linear: MakeLinear) -> Packed:
    config = json.loads((folder / "model/config.json").read_text())
    groups, responses, tokens = inputs.response.shape
    return Packed(config, read_weights(folder), (groups, responses, inputs.prompt.shape[1], tokens), linear).eval()


def with_torch(folder: Path, inputs: Inputs, linear: MakeLinear) -> Contestant:
    model = packed(folder, inputs, linear)

    @torch.inference_mode()
    def run() -> list[float]:
        return model(*inputs).flatten().tolist()

    return Contestant(run, ["torch"], {Linear: "torch's default GEMM", OneDnnLinear: "prepacked oneDNN GEMM"}[linear])


def with_openvino(folder: Path, inputs: Inputs, threads: int) -> Contestant:
    import openvino

    model = packed(folder, inputs, Linear)
    with torch.no_grad():
        graph = openvino.convert_model(model, example_input=tuple(inputs), input=[tuple(t.shape) for t in inputs])
    settings = {
        "INFERENCE_NUM_THREADS": threads,
        "INFERENCE_PRECISION_HINT": "f32",
        "PERFORMANCE_HINT": "LATENCY",
    }
    request = openvino.Core().compile_model(graph, "CPU", settings).create_infer_request()
    arrays = [t.numpy() for t in inputs]
    return Contestant(lambda: request.infer(arrays)[0].flatten().tolist(), ["openvino"], "converted from torch")


def contestant(variant: str, folder: Path, threads: int) -> Contestant:
    torch.set_num_threads(threads)
    inputs = read_inputs(folder)
    if variant == "openvino":
        return with_openvino(folder, inputs, threads)
    choices = [with_torch(folder, inputs, linear) for linear in (Linear, OneDnnLinear)]
    return fastest(choices, lambda choice: choice.run())
