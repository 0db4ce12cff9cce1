"""Segment Anything's image encoder (Kirillov et al. 2023) with exact flash attention, taps and adapters.

The modules are segment_anything's, so the official files load under their own names (`image_encoder.*`). Only the
attention is exchanged, for a form that never stores a bias for each pair of cells.

    I images   h x w grid of cells (patches)   C channels   n heads   d head width
    B windows of all images   s x t cells of one window
"""

from __future__ import annotations

import inspect
from collections.abc import Sequence
from functools import partial
from itertools import pairwise
from typing import Any, Literal, get_args

import torch
from segment_anything.modeling import ImageEncoderViT
from segment_anything.modeling.image_encoder import window_partition, window_unpartition
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint as recompute

from riszoo.encoders.adapters import Adapter, QueryValueLoRA
from riszoo.encoders.base import VisionConfig, VisionEncoder
from riszoo.encoders.sam_weights import find_weights, load_official
from riszoo.errors import UserError
from riszoo.layers import split_heads

Grid = tuple[int, int]
Peft = Literal["none", "adapter", "lora", "full"]
Stem = Literal["patch", "conv"]
AdapterPlaces = Literal["both", "attention", "mlp"]

PATCH = 16
DEFAULT_RANK = {"adapter": 64, "lora": 4}

SIZES: dict[str, dict[str, Any]] = {
    "sam_vit_b": {"embed_dim": 768, "depth": 12, "heads": 12, "global_blocks": [2, 5, 8, 11]},
    "sam_vit_l": {"embed_dim": 1024, "depth": 24, "heads": 16, "global_blocks": [5, 11, 17, 23]},
    "sam_vit_h": {"embed_dim": 1280, "depth": 32, "heads": 16, "global_blocks": [7, 15, 23, 31]},
    # for training from scratch on small images: every parameter trains, and a convolutional stem replaces the patches
    "sam_vit_tiny": {
        "embed_dim": 128,
        "depth": 6,
        "heads": 4,
        "window": 7,
        "global_blocks": [1, 3, 5],
        "stem": "conv",
        "peft": "full",
    },
}


class ConvStem(nn.Sequential):
    """Strided convolutions to the grid of the patches, for training from scratch: (I, 3, H, W) -> (I, h, w, C)."""

    def __init__(self, width: int, patch: int) -> None:
        steps = patch.bit_length() - 1
        widths = [width >> step for step in reversed(range(steps))]
        layers = self.convolution(3, widths[0], 2)
        for before, after in pairwise(widths):
            layers += self.convolution(before, after, 2) + self.convolution(after, after, 1)
        super().__init__(*layers, nn.Conv2d(width, width, 1))

    @staticmethod
    def convolution(before: int, after: int, stride: int) -> list[nn.Module]:
        return [nn.Conv2d(before, after, 3, stride=stride, padding=1), nn.BatchNorm2d(after), nn.GELU()]

    def forward(self, x: Tensor) -> Tensor:
        for layer in self:
            x = layer(x)
        return x.permute(0, 2, 3, 1)


class FlashAttention(nn.Module):
    """The attention of segment_anything's blocks, with the same parameters, for a flash kernel.

    The logit of query (i, j) and key (k, l) is q.k / sqrt(d) + q.R_h[i - k] + q.R_w[j - l]. Both position terms
    depend on one axis of the key only, so they are a dot product with the key's row and column as one-hot vectors:

        q' = [q / sqrt(d), rel_h, rel_w]     k' = [k, onehot(k), onehot(l)]     logit = q'.k'

    The value is zero-padded to the same width, since the flash kernels take no other shape. The windows are made here
    and not in the block, so that the output projection and the adapter run on the cells without the windows' padding.
    """

    def __init__(self, original: Any, window_size: int, grid: Grid) -> None:
        """`window_size` 0 is global attention over the grid."""
        super().__init__()
        self.heads, self.window_size = original.num_heads, window_size
        window = (window_size, window_size) if window_size else grid
        self.qkv, self.proj = original.qkv, original.proj
        d = self.proj.in_features // self.heads
        self.rel_pos_h = nn.Parameter(torch.zeros(2 * window[0] - 1, d))
        self.rel_pos_w = nn.Parameter(torch.zeros(2 * window[1] - 1, d))
        self.adapter: Adapter | None = None
        self.lora: QueryValueLoRA | None = None

    def forward(self, x: Tensor) -> Tensor:
        """(I, h, w, C) -> (I, h, w, C)"""
        grid = (x.shape[1], x.shape[2])
        windows, padded = window_partition(x, self.window_size) if self.window_size else (x, grid)  # (B, s, t, C)
        qkv = self.qkv(windows) if self.lora is None else self.qkv(windows) + self.lora(windows)
        query, key, value = (split_heads(part, self.heads) for part in qkv.flatten(1, 2).chunk(3, -1))  # (B, n, st, d)
        attended = self.attend(query, key, value, (windows.shape[1], windows.shape[2]))  # (B, n, st, d)
        y = attended.transpose(1, 2).reshape(windows.shape)
        if self.window_size:
            y = window_unpartition(y, self.window_size, padded, grid)
        projected: Tensor = self.proj(y)
        return projected if self.adapter is None else projected + self.adapter(projected)

    def attend(self, query: Tensor, key: Tensor, value: Tensor, window: Grid) -> Tensor:
        (s, t), d = window, query.shape[-1]
        grid = query.view(*query.shape[:2], s, t, d)
        rel_h = torch.einsum("bnstd,skd->bnstk", grid, by_distance(self.rel_pos_h)).flatten(2, 3)  # (B, n, st, s)
        rel_w = torch.einsum("bnstd,tkd->bnstk", grid, by_distance(self.rel_pos_w)).flatten(2, 3)  # (B, n, st, t)
        rows = torch.eye(s, dtype=key.dtype, device=key.device).repeat_interleave(t, 0)  # (st, s)
        columns = torch.eye(t, dtype=key.dtype, device=key.device).repeat(s, 1)  # (st, t)
        query = torch.cat([query * d**-0.5, rel_h, rel_w], -1)
        key = torch.cat([key, torch.cat([rows, columns], -1).expand(*key.shape[:-1], s + t)], -1)
        value = F.pad(value, (0, s + t))
        attended: Tensor = F.scaled_dot_product_attention(query, key, value, scale=1.0)
        return attended[..., :d]


class AdaptedMLP(nn.Module):
    """A block's MLP with an adapter beside it: MLP(x) + A(x)."""

    def __init__(self, original: Any, adapter: Adapter) -> None:
        super().__init__()
        self.lin1, self.act, self.lin2 = original.lin1, original.act, original.lin2
        self.adapter = adapter

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.lin2(self.act(self.lin1(x))) + self.adapter(x)
        return y


class SamEncoder(VisionEncoder):
    """The encoder in stages: stage i runs up to and including block taps[i], and the last one ends with the neck.

    taps           blocks whose outputs are maps; default the first two with global attention
    stem           `patch` as published, or `conv`
    patch          side of a cell in pixels: 16 as published, 8 or 4 for small images
    peft           `none` nothing trains, `adapter` two adapters a block, `lora` queries and values, `full` everything
    rank           of the adapters (default 64) or of LoRA (default 4)
    scale          of the adapter beside the MLP
    places         which of a block's two adapters exist
    checkpoint     training stores only each block's input and recomputes the rest
    """

    freeze_option = "--model.vision.options.peft none"

    def __init__(
        self,
        *,
        size: Grid,
        embed_dim: int = 768,
        depth: int = 12,
        heads: int = 12,
        window: int = 14,
        global_blocks: Sequence[int] = (2, 5, 8, 11),
        taps: Sequence[int] | None = None,
        out_channels: int = 256,
        stem: Stem = "patch",
        patch: int = PATCH,
        peft: Peft = "none",
        rank: int | None = None,
        scale: float = 0.5,
        places: AdapterPlaces = "both",
        checkpoint: bool = False,
    ) -> None:
        super().__init__()
        taps = list(global_blocks[:2] if taps is None else taps)
        check_size(size, patch)
        check_width(embed_dim, heads)
        check_rising("global_blocks", global_blocks, depth)
        check_rising("taps", taps, depth)
        check_choice("stem", stem, Stem)
        check_choice("peft", peft, Peft)
        check_choice("places", places, AdapterPlaces)
        self.size, self.peft, self.checkpoint = tuple(size), peft, checkpoint
        self.channels = [embed_dim] * len(taps) + [out_channels]
        self.strides = [patch] * len(self.channels)
        starts, stops = [0, *(tap + 1 for tap in taps)], [*(tap + 1 for tap in taps), depth]
        self.spans = [range(start, stop) for start, stop in zip(starts, stops, strict=True)]
        self.image_encoder = ImageEncoderViT(
            img_size=patch,  # the position tables are replaced below, for a grid that need not be square
            patch_size=patch,
            embed_dim=embed_dim,
            depth=depth,
            num_heads=heads,
            out_chans=out_channels,
            norm_layer=partial(nn.LayerNorm, eps=1e-6),
            window_size=window,
            global_attn_indexes=tuple(global_blocks),
        )
        if stem == "conv":
            self.image_encoder.patch_embed = ConvStem(embed_dim, patch)
        grid = (size[0] // patch, size[1] // patch)
        self.image_encoder.pos_embed = nn.Parameter(nn.init.trunc_normal_(torch.empty(1, *grid, embed_dim), std=0.02))
        for block in self.image_encoder.blocks:
            block.attn = FlashAttention(block.attn, block.window_size, grid)
            block.window_size = 0  # the attention makes its windows itself
        self.adapt(DEFAULT_RANK.get(peft, 0) if rank is None else rank, scale, places)
        self.train()

    def adapt(self, rank: int, scale: float, places: AdapterPlaces) -> None:
        """Freeze what `peft` freezes and add what it trains; last, so that a seed gives every `peft` the same base."""
        if self.peft in DEFAULT_RANK and rank < 1:
            raise UserError(f"rank {rank} of peft {self.peft!r} must be at least 1")
        self.image_encoder.requires_grad_(self.peft == "full")
        width = self.image_encoder.pos_embed.shape[-1]
        for block in self.image_encoder.blocks:
            if self.peft == "lora":
                block.attn.lora = QueryValueLoRA(width, rank)
            if self.peft == "adapter" and places != "mlp":
                block.attn.adapter = Adapter(width, rank)
            if self.peft == "adapter" and places != "attention":
                block.mlp = AdaptedMLP(block.mlp, Adapter(width, rank, scale))

    def train(self, mode: bool = True) -> SamEncoder:
        """A frozen stem keeps the statistics of its BatchNorm."""
        super().train(mode)
        self.image_encoder.patch_embed.train(self.training and self.peft == "full")
        return self

    def stem(self, x: Tensor) -> Tensor:
        if x.shape[-2:] != self.size:
            (height, width), (h, w) = x.shape[-2:], self.size
            raise UserError(
                f"the image is {height} x {width} pixels but the SAM encoder was built for {h} x {w}; "
                "build it with the data's size"
            )
        cells: Tensor = self.image_encoder.patch_embed(x) + self.image_encoder.pos_embed  # (I, h, w, C)
        return cells.permute(0, 3, 1, 2)

    def down(self, stage: int, x: Tensor) -> Tensor:
        return x

    def blocks(self, stage: int, x: Tensor) -> Tensor:
        x = x.permute(0, 2, 3, 1)  # (I, h, w, C)
        for i in self.spans[stage]:
            x = self.run(self.image_encoder.blocks[i], x)
        x = x.permute(0, 3, 1, 2)
        if stage == len(self.spans) - 1:
            x = self.image_encoder.neck(x)
        return x

    def run(self, block: nn.Module, x: Tensor) -> Tensor:
        if self.checkpoint and torch.is_grad_enabled():
            y: Tensor = recompute(block, x, use_reentrant=False, preserve_rng_state=False)
        else:
            y = block(x)
        return y


def by_distance(table: Tensor) -> Tensor:
    """(2 s - 1, d) for distances 1 - s .. s - 1 -> (s, s, d) for query and key."""
    index = torch.arange((len(table) + 1) // 2, device=table.device)
    return table[index[:, None] - index + len(index) - 1]


def check_size(size: Grid, patch: int) -> None:
    if patch not in (4, 8, 16):
        raise UserError(f"patch {patch} of a SAM encoder is not supported; choose 4, 8 or 16")
    if min(size) < patch or size[0] % patch or size[1] % patch:
        raise UserError(f"size {size[0]} x {size[1]} does not fit SAM; both sides must be multiples of {patch}")


def check_width(width: int, heads: int) -> None:
    if width % heads or width % 8:
        raise UserError(f"embed_dim {width} must be a multiple of 8 and of heads ({heads})")


def check_rising(name: str, blocks: Sequence[int], depth: int) -> None:
    if sorted(set(blocks)) != list(blocks) or any(not 0 <= block < depth for block in blocks):
        raise UserError(f"{name} {list(blocks)} must be rising block numbers from 0 to {depth - 1}")


def check_choice(name: str, value: str, kind: Any) -> None:
    if value not in get_args(kind):
        raise UserError(f"{name} {value!r} is unknown; choose one of {', '.join(get_args(kind))}")


def build_sam(vision: VisionConfig, size: Grid) -> SamEncoder:
    """The encoder of a recipe, for images of H x W = `size`; `vision.options` are SamEncoder's arguments."""
    known = inspect.signature(SamEncoder).parameters.keys() - {"size"}
    if unknown := sorted(vision.options.keys() - known):
        raise UserError(f"{vision.name} has no option {unknown[0]!r}; it has {', '.join(sorted(known))}")
    encoder = SamEncoder(size=size, **(SIZES[vision.name] | vision.options))
    if vision.weights != "none":
        encoder.weight_file = find_weights(vision)
        load_official(encoder, encoder.weight_file)
    return encoder
