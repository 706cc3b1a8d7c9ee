"""The whole workload as one packed PaliGemma forward in plain torch: the strongest rival written by hand.

Every image and prompt goes through the model once. The rows of all prefixes and responses share each
linear layer, without padding; the heads of the single KV head are stacked as queries; the last layer
gives no prefix states. `Packed` is traceable, so that other runtimes can convert the same graph.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn import functional as F

MakeLinear = Callable[[Tensor, Tensor | None], nn.Module]


class Linear(nn.Module):
    """A linear layer by the library's own matrix product, and what follows it as separate operations."""

    def __init__(self, weight: Tensor, bias: Tensor | None):
        super().__init__()
        self.weight, self.bias = weight.contiguous(), bias

    def forward(self, x: Tensor) -> Tensor:
        return F.linear(x, self.weight, self.bias)

    def gelu(self, x: Tensor) -> Tensor:
        return F.gelu(self(x), approximate="tanh")

    def times(self, x: Tensor, other: Tensor) -> Tensor:
        return self(x) * other

    def plus(self, x: Tensor, other: Tensor) -> Tensor:
        return self(x) + other


class OneDnnLinear(nn.Module):
    """A linear layer by oneDNN with reordered weights and fused operations."""

    def __init__(self, weight: Tensor, bias: Tensor | None):
        super().__init__()
        self.weight, self.bias = torch.ops.mkldnn._reorder_linear_weight(weight.contiguous(), 2048), bias

    def forward(self, x: Tensor) -> Tensor:
        return torch.ops.mkldnn._linear_pointwise(x, self.weight, self.bias, "none", [], "")

    def gelu(self, x: Tensor) -> Tensor:
        return torch.ops.mkldnn._linear_pointwise(x, self.weight, self.bias, "gelu", [], "tanh")

    def times(self, x: Tensor, other: Tensor) -> Tensor:
        return torch.ops.mkldnn._linear_pointwise(x, other, self.weight, self.bias, "mul")

    def plus(self, x: Tensor, other: Tensor) -> Tensor:
        return torch.ops.mkldnn._linear_pointwise(x, other, self.weight, self.bias, "add")


class Vision(nn.Module):
    def __init__(self, config: dict, weights: dict[str, Tensor], linear: MakeLinear):
        super().__init__()
        vision = config["vision_config"]
        self.patch, self.heads = vision["patch_size"], vision["num_attention_heads"]
        self.width = vision["hidden_size"]
        tower = "vision_tower.vision_model."
        patch = weights[f"{tower}embeddings.patch_embedding.weight"]
        self.embed = linear(patch.flatten(1), weights[f"{tower}embeddings.patch_embedding.bias"])
        self.positions = weights[f"{tower}embeddings.position_embedding.weight"]
        self.layers = nn.ModuleList(
            VisionLayer(layer_of(weights, f"{tower}encoder.layers.{i}."), self.heads, linear)
            for i in range(vision["num_hidden_layers"])
        )
        self.norm = layer_norm(weights, f"{tower}post_layernorm.")
        self.project = linear(
            weights["multi_modal_projector.linear.weight"], weights["multi_modal_projector.linear.bias"]
        )

    def forward(self, pixels: Tensor) -> Tensor:
        """Image rows [G, patches, hidden of the decoder]."""
        groups, channels, height, width = pixels.shape
        p = self.patch
        grid = pixels.reshape(groups, channels, height // p, p, width // p, p)
        rows = grid.permute(0, 2, 4, 1, 3, 5).reshape(groups, -1, channels * p * p)
        x = self.embed(rows) + self.positions
        for layer in self.layers:
            x = layer(x)
        return self.project(self.norm(x))


class VisionLayer(nn.Module):
    def __init__(self, weights: dict[str, Tensor], heads: int, linear: MakeLinear):
        super().__init__()
        self.heads = heads
        names = [f"self_attn.{n}_proj" for n in "qkv"]
        self.qkv = linear(
            torch.cat([weights[f"{n}.weight"] for n in names]), torch.cat([weights[f"{n}.bias"] for n in names])
        )
        self.out, self.up, self.down = (
            linear(weights[f"{n}.weight"], weights[f"{n}.bias"]) for n in ("self_attn.out_proj", "mlp.fc1", "mlp.fc2")
        )
        self.before, self.between = (layer_norm(weights, f"layer_norm{i}.") for i in (1, 2))

    def forward(self, x: Tensor) -> Tensor:
        groups, patches, width = x.shape
        qkv = self.qkv(self.before(x)).view(groups, patches, 3, self.heads, -1)
        q, k, v = qkv.permute(2, 0, 3, 1, 4).unbind(0)
        mixed = F.scaled_dot_product_attention(q, k, v).transpose(1, 2).reshape(groups, patches, width)
        x = self.out.plus(mixed, x)
        return self.down.plus(self.up.gelu(self.between(x)), x)


class DecoderLayer(nn.Module):
    """Queries and keys-and-values are one layer, but two in the last one: prefixes have no queries there."""

    def __init__(self, weights: dict[str, Tensor], linear: MakeLinear, last: bool):
        super().__init__()
        q, k, v = (weights[f"self_attn.{n}_proj.weight"] for n in "qkv")
        self.widths = [len(q), len(k), len(v)]
        self.projections = nn.ModuleList(
            [linear(q, None), linear(torch.cat([k, v]), None)] if last else [linear(torch.cat([q, k, v]), None)]
        )
        self.out, self.gate, self.up, self.down = (
            linear(weights[f"{n}.weight"], None)
            for n in ("self_attn.o_proj", "mlp.gate_proj", "mlp.up_proj", "mlp.down_proj")
        )
        self.before = 1 + weights["input_layernorm.weight"]
        self.between = 1 + weights["post_attention_layernorm.weight"]

    def project(self, x: Tensor, first_query: int) -> tuple[Tensor, Tensor, Tensor]:
        """q of the rows from `first_query` on, k and v of all."""
        x = rms_norm(x, self.before)
        if len(self.projections) == 1:
            return self.projections[0](x).split(self.widths, -1)
        query, key_value = self.projections
        return query(x[first_query:]), *key_value(x).split(self.widths[1:], -1)

    def finish(self, x: Tensor, mixed: Tensor) -> Tensor:
        x = self.out.plus(mixed, x)
        y = rms_norm(x, self.between)
        return self.down.plus(self.up.times(y, self.gate.gelu(y)), x)


class Packed(nn.Module):
    """Token logits [G,R,S] of G images with one prompt each and R responses of S tokens."""

    def __init__(
        self, config: dict, weights: dict[str, Tensor], shape: tuple[int, int, int, int], linear: MakeLinear = Linear
    ):
        super().__init__()
        self.groups, self.responses, prompt, self.tokens = shape
        text, vision = config["text_config"], config["vision_config"]
        if text["num_key_value_heads"] != 1:
            raise ValueError("the packed forward stacks all heads on one KV head")
        layers = text["num_hidden_layers"]
        self.heads, self.head_dim, self.hidden = text["num_attention_heads"], text["head_dim"], text["hidden_size"]
        self.prefix = (vision["image_size"] // vision["patch_size"]) ** 2 + prompt
        self.vision = Vision(config, weights, linear)
        self.embedding = weights["language_model.model.embed_tokens.weight"] * self.hidden**0.5
        self.layers = nn.ModuleList(
            DecoderLayer(layer_of(weights, f"language_model.model.layers.{i}."), linear, i + 1 == layers)
            for i in range(layers)
        )
        self.norm = 1 + weights["language_model.model.norm.weight"]
        self.score, self.score_bias = weights["score.weight"], weights["score.bias"]
        self.cos, self.sin = self.rotations()
        own = torch.ones(self.tokens, self.tokens).tril()
        seen = torch.cat([torch.ones(self.tokens, self.prefix), own], 1).repeat_interleave(self.heads, 0)
        self.mask = torch.zeros_like(seen).masked_fill_(seen == 0, float("-inf"))

    def rotations(self) -> tuple[Tensor, Tensor]:
        """cos and signed sin [rows, 1, head_dim]; the first row of a prefix has position 1."""
        positions = torch.arange(1, self.prefix + self.tokens + 1)
        prefixes = positions[: self.prefix].repeat(self.groups)
        responses = positions[self.prefix :].repeat(self.groups * self.responses)
        angles = 10_000.0 ** (-torch.arange(0, self.head_dim, 2) / self.head_dim)
        angles = torch.cat([prefixes, responses])[:, None, None] * angles
        return torch.cat([angles.cos()] * 2, -1), torch.cat([-angles.sin(), angles.sin()], -1)

    def rotate(self, x: Tensor, first: int) -> Tensor:
        half = self.head_dim // 2
        swapped = torch.cat([x[..., half:], x[..., :half]], -1)
        return torch.addcmul(x * self.cos[first:], swapped, self.sin[first:])

    def forward(self, pixels: Tensor, prompt: Tensor, response: Tensor) -> Tensor:
        prefix_rows = self.groups * self.prefix
        prefix = torch.cat([self.vision(pixels), F.embedding(prompt, self.embedding)], 1)
        x = torch.cat([prefix.flatten(0, 1), F.embedding(response.flatten(), self.embedding)])
        for layer in self.layers[:-1]:
            q, k, v = layer.project(x, 0)
            q, k = self.by_head(q, 0), self.by_head(k, 0)
            mixed = torch.cat([self.attend_prefix(q, k, v), self.attend_response(q[prefix_rows:], k, v)])
            x = layer.finish(x, mixed)
        q, k, v = self.layers[-1].project(x, prefix_rows)
        mixed = self.attend_response(self.by_head(q, prefix_rows), self.by_head(k, 0), v)
        x = rms_norm(self.layers[-1].finish(x[prefix_rows:], mixed), self.norm)
        return F.linear(x, self.score, self.score_bias).view(self.groups, self.responses, self.tokens)

    def by_head(self, x: Tensor, first: int) -> Tensor:
        return self.rotate(x.unflatten(-1, (-1, self.head_dim)), first)

    def attend_prefix(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        rows = self.groups * self.prefix
        shape = (self.groups, 1, -1, self.head_dim)
        q, k, v = q[:rows].reshape(shape), k[:rows].reshape(shape), v[:rows].reshape(shape)
        return F.scaled_dot_product_attention(q, k, v).view(rows, -1)

    def attend_response(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        count = self.groups * self.responses
        keys, values = self.keys_seen(k.reshape(-1, self.head_dim)), self.keys_seen(v)
        q = q.reshape(count, 1, -1, self.head_dim)
        mixed = F.scaled_dot_product_attention(q, keys, values, attn_mask=self.mask)
        return mixed.view(count * self.tokens, -1)

    def keys_seen(self, rows: Tensor) -> Tensor:
        """Keys or values of every response: its prefix, then its own [G*R, 1, prefix + S, head_dim]."""
        split = self.groups * self.prefix
        prefix = rows[:split].view(self.groups, 1, self.prefix, self.head_dim)
        own = rows[split:].view(self.groups, self.responses, self.tokens, self.head_dim)
        seen = torch.cat([prefix.expand(-1, self.responses, -1, -1), own], 2)
        return seen.view(self.groups * self.responses, 1, self.prefix + self.tokens, self.head_dim)


def layer_of(weights: dict[str, Tensor], prefix: str) -> dict[str, Tensor]:
    return {name.removeprefix(prefix): w for name, w in weights.items() if name.startswith(prefix)}


def layer_norm(weights: dict[str, Tensor], prefix: str) -> nn.LayerNorm:
    norm = nn.LayerNorm(weights[f"{prefix}weight"].numel(), eps=1e-6)
    norm.load_state_dict({name: weights[f"{prefix}{name}"] for name in ("weight", "bias")})
    return norm


def rms_norm(x: Tensor, weight: Tensor) -> Tensor:
    return F.rms_norm(x, (x.shape[-1],), weight, 1e-6)
