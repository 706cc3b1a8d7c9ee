"""The f32 product of two square matrices: what the machine's libraries reach without a model around it."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

import numpy
from numpy import ndarray

from worker import Contestant

SIZE = 2048
PRODUCTS = 5


def torch_product(a: ndarray, b: ndarray, threads: int) -> Callable[[], object]:
    import torch

    torch.set_num_threads(threads)
    x, y = torch.from_numpy(a), torch.from_numpy(b)
    out = torch.empty(SIZE, SIZE)
    return lambda: torch.mm(x, y, out=out)


def onednn_product(a: ndarray, b: ndarray, threads: int) -> Callable[[], object]:
    import torch

    torch.set_num_threads(threads)
    x = torch.from_numpy(a)
    weight = torch.ops.mkldnn._reorder_linear_weight(torch.from_numpy(b), SIZE)
    return lambda: torch.ops.mkldnn._linear_pointwise(x, weight, None, "none", [], "")


def numpy_product(a: ndarray, b: ndarray, threads: int) -> Callable[[], object]:
    out = numpy.empty_like(a)
    return lambda: numpy.matmul(a, b, out=out)


def openvino_product(a: ndarray, b: ndarray, threads: int) -> Callable[[], object]:
    import openvino
    from openvino import opset13 as ops

    x = ops.parameter([SIZE, SIZE], openvino.Type.f32)
    graph = openvino.Model([ops.matmul(x, ops.constant(b), False, True)], [x])
    settings = {"INFERENCE_NUM_THREADS": threads, "INFERENCE_PRECISION_HINT": "f32", "PERFORMANCE_HINT": "LATENCY"}
    compiled = openvino.Core().compile_model(graph, "CPU", settings)
    return lambda: compiled([a], share_inputs=True, share_outputs=True)


MAKERS = {
    "torch": (torch_product, "torch"),
    "onednn": (onednn_product, "torch"),
    "numpy": (numpy_product, "numpy"),
    "openvino": (openvino_product, "openvino"),
}


def contestant(variant: str, folder: Path, threads: int) -> Contestant:
    del folder
    make, package = MAKERS[variant]
    random = numpy.random.default_rng(7)
    a, b = (random.standard_normal((SIZE, SIZE), numpy.float32) for _ in range(2))
    product = make(a, b, threads)

    def run() -> float:
        times = []
        for _ in range(PRODUCTS):
            start = time.perf_counter()
            product()
            times.append(time.perf_counter() - start)
        return min(times)

    return Contestant(run, [package], f"best of {PRODUCTS} products of {SIZE} x {SIZE} in a pass")
