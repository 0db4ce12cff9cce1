"""Segment Anything's image encoder (Kirillov et al. 2023), exact and lean, with taps and adapters (RISAM, 3.1 and 3.2).

Parameter names are those of the official files, `image_encoder.*`, so these load as they are. The attention never
holds a cell-by-cell bias in memory: the relative positions ride in extra head dimensions (see `Attention`).

    I images   h x w the grid, a sixteenth of the frame   C channels   n heads   d head width
    B windows of all images   s x t one window's cells
"""

from __future__ import annotations

import inspect
from collections.abc import Sequence
from itertools import pairwise
from typing import Any, Literal, get_args

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint as recomputed

from riszoo.encoders.adapters import Adapter, QueryValueLoRA
from riszoo.encoders.base import Encoder, VisionConfig, VisionEncoder
from riszoo.encoders.sam_weights import find_weights, load_official
from riszoo.errors import UserError

Grid = tuple[int, int]
Peft = Literal["none", "adapter", "lora", "full"]
Stem = Literal["patch", "conv"]
Places = Literal["both", "attention", "mlp"]

PATCH = 16
DEFAULT_RANK = {"adapter": 64, "lora": 4}
EPS = 1e-6

SIZES: dict[str, dict[str, Any]] = {
    "sam_vit_b": {"embed_dim": 768, "depth": 12, "heads": 12, "global_blocks": [2, 5, 8, 11]},
    "sam_vit_l": {"embed_dim": 1024, "depth": 24, "heads": 16, "global_blocks": [5, 11, 17, 23]},
    "sam_vit_h": {"embed_dim": 1280, "depth": 32, "heads": 16, "global_blocks": [7, 15, 23, 31]},
    # for training from scratch on small images: everything trains, and convolutions cut the patches
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


class LayerNorm2d(nn.LayerNorm):
    """Layer normalisation over the channels of an NCHW map."""

    def __init__(self, channels: int) -> None:
        super().__init__(channels, eps=EPS)

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)


class PatchEmbed(Encoder):
    """Each patch (16 x 16 as published) as one vector."""

    def __init__(self, width: int, patch: int) -> None:
        super().__init__()
        self.proj = nn.Conv2d(3, width, patch, stride=patch)

    def forward(self, x: Tensor) -> Tensor:
        cells: Tensor = self.proj(x)
        return cells


class ConvStem(Encoder):
    """Strided convolutions to the same grid, four to cells of 16, each after the first followed by one that stays on
    its grid. With BatchNorm, as it is there for training from scratch: it learns colours and shapes far sooner so."""

    def __init__(self, width: int, patch: int) -> None:
        super().__init__()
        steps = patch.bit_length() - 1
        widths = [width >> step for step in reversed(range(steps))]
        layers = self.convolved(3, widths[0], 2)
        for before, after in pairwise(widths):
            layers += self.convolved(before, after, 2) + self.convolved(after, after, 1)
        self.layers = nn.Sequential(*layers, nn.Conv2d(width, width, 1))

    def forward(self, x: Tensor) -> Tensor:
        cells: Tensor = self.layers(x)
        return cells

    @staticmethod
    def convolved(before: int, after: int, stride: int) -> list[nn.Module]:
        return [nn.Conv2d(before, after, 3, stride=stride, padding=1), nn.BatchNorm2d(after), nn.GELU()]


class MLP(nn.Module):
    """The block's feed-forward half."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.lin1 = nn.Linear(width, 4 * width)
        self.lin2 = nn.Linear(4 * width, width)

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.lin2(F.gelu(self.lin1(x)))
        return y


class Attention(nn.Module):
    """Self-attention inside windows, with decomposed relative positions.

    The logit of query (i, j) and key (k, l) is q.k / sqrt(d) + q.R_h[i - k] + q.R_w[j - l]. Both position terms
    depend on one axis of the key only, so they are a dot product with the key's row and column as one-hot vectors:

        q' = [q / sqrt(d), rel_h, rel_w]     k' = [k, onehot(k), onehot(l)]     logit = q'.k'

    The value is zero-padded to the same width, since the flash kernels take no other shape.
    """

    def __init__(self, width: int, heads: int, window: Grid) -> None:
        super().__init__()
        self.heads, self.window = heads, window
        self.qkv = nn.Linear(width, 3 * width)
        self.proj = nn.Linear(width, width)
        self.rel_pos_h = nn.Parameter(torch.zeros(2 * window[0] - 1, width // heads))
        self.rel_pos_w = nn.Parameter(torch.zeros(2 * window[1] - 1, width // heads))
        self.lora: QueryValueLoRA | None = None

    def forward(self, x: Tensor) -> Tensor:
        grid = (x.shape[1], x.shape[2])
        x = split_windows(x, self.window)  # (B, s, t, C)
        qkv = self.qkv(x)
        if self.lora is not None:
            qkv = qkv + self.lora(x)
        q, k, v = qkv.unflatten(-1, (3, self.heads, -1)).permute(3, 0, 4, 1, 2, 5).unbind()  # (B, n, s, t, d)
        y = self.attend(q, k, v)
        return self.proj(join_windows(y, self.window, grid))  # type: ignore[no-any-return]

    def attend(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        """(B, n, s, t, d) each -> (B, s, t, n d)."""
        s, t, d = q.shape[-3:]
        rel_h = torch.einsum("bnstd,skd->bnstk", q, by_distance(self.rel_pos_h))
        rel_w = torch.einsum("bnstd,tkd->bnstk", q, by_distance(self.rel_pos_w))
        rows = torch.eye(s, dtype=k.dtype, device=k.device)[:, None].expand(*k.shape[:-1], s)
        columns = torch.eye(t, dtype=k.dtype, device=k.device).expand(*k.shape[:-1], t)
        q = torch.cat([q * d**-0.5, rel_h, rel_w], dim=-1)
        k = torch.cat([k, rows, columns], dim=-1)
        v = F.pad(v, (0, s + t))
        q, k, v = (part.flatten(2, 3) for part in (q, k, v))  # (B, n, s t, d + s + t)
        y = F.scaled_dot_product_attention(q, k, v, scale=1.0)[..., :d]
        return y.transpose(1, 2).reshape(-1, s, t, y.shape[1] * d)


class Block(nn.Module):
    """One transformer block: y = x + [a + A1(a)], z = y + MLP(LN2 y) + A2(LN2 y); the adapters A1, A2 may be absent."""

    def __init__(self, width: int, heads: int, window: Grid) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(width, eps=EPS)
        self.attn = Attention(width, heads, window)
        self.norm2 = nn.LayerNorm(width, eps=EPS)
        self.mlp = MLP(width)
        self.attn_adapter: Adapter | None = None
        self.mlp_adapter: Adapter | None = None

    def forward(self, x: Tensor) -> Tensor:  # (I, h, w, C)
        a = self.attn(self.norm1(x))
        if self.attn_adapter is not None:
            a = a + self.attn_adapter(a)
        x = x + a
        y = self.norm2(x)
        x = x + self.mlp(y)
        return x if self.mlp_adapter is None else x + self.mlp_adapter(y)


class ImageEncoder(nn.Module):
    """The parts under their official names."""

    def __init__(
        self,
        *,
        grid: Grid,
        width: int,
        depth: int,
        heads: int,
        window: int,
        global_blocks: Sequence[int],
        out: int,
        stem: Stem,
        patch: int,
    ) -> None:
        super().__init__()
        self.patch = patch
        self.patch_embed: Encoder = PatchEmbed(width, patch) if stem == "patch" else ConvStem(width, patch)
        self.pos_embed = nn.Parameter(torch.empty(1, *grid, width))
        nn.init.trunc_normal_(self.pos_embed, std=0.02)
        windows = [grid if i in global_blocks else (window, window) for i in range(depth)]
        self.blocks = nn.ModuleList(Block(width, heads, size) for size in windows)
        self.neck = nn.Sequential(
            nn.Conv2d(width, out, 1, bias=False),
            LayerNorm2d(out),
            nn.Conv2d(out, out, 3, padding=1, bias=False),
            LayerNorm2d(out),
        )

    def embed(self, x: Tensor) -> Tensor:
        """(I, 3, H, W) -> (I, h, w, C)."""
        cells = self.patch_embed(x).permute(0, 2, 3, 1)
        if cells.shape[1:3] != self.pos_embed.shape[1:3]:
            (h, w), (height, width) = self.pos_embed.shape[1:3], x.shape[-2:]
            raise UserError(
                f"the image is {height} x {width} pixels but the SAM encoder was built for "
                f"{h * self.patch} x {w * self.patch}; build it with the data's size"
            )
        embedded: Tensor = self.pos_embed + cells
        return embedded


class SamEncoder(VisionEncoder):
    """The encoder in stages: stage i runs up to and including block taps[i], and the last one ends with the neck.

    taps           blocks whose outputs are maps; default: the first two with global attention
    stem           `patch` as published, or `conv`
    patch          side of a cell in pixels: 16 as published, 8 or 4 for small images
    peft           `none` nothing trains, `adapter` two adapters a block, `lora` queries and values, `full` everything
    rank           of the adapters (default 64) or of LoRA (default 4)
    scale          of the adapter beside the MLP
    places         which of a block's two adapters there are
    checkpoint     training keeps only each block's input and computes the rest again
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
        places: Places = "both",
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
        check_choice("places", places, Places)
        grid = (size[0] // patch, size[1] // patch)
        self.channels = [embed_dim] * len(taps) + [out_channels]
        self.strides = [patch] * len(self.channels)
        self.checkpoint = checkpoint
        starts, stops = [0, *(tap + 1 for tap in taps)], [*(tap + 1 for tap in taps), depth]
        self.spans = [range(start, stop) for start, stop in zip(starts, stops, strict=True)]
        self.image_encoder = ImageEncoder(
            grid=grid,
            width=embed_dim,
            depth=depth,
            heads=heads,
            window=window,
            global_blocks=global_blocks,
            out=out_channels,
            stem=stem,
            patch=patch,
        )
        self.adapt(peft, DEFAULT_RANK.get(peft, 0) if rank is None else rank, scale, places)

    def adapt(self, peft: Peft, rank: int, scale: float, places: Places) -> None:
        """Freeze what the choice freezes and put in what it trains; after the base, so a seed gives the same base."""
        if peft in DEFAULT_RANK and rank < 1:
            raise UserError(f"rank {rank} of peft {peft!r} must be at least 1")
        self.image_encoder.requires_grad_(peft == "full")
        if peft != "full":
            self.image_encoder.patch_embed.freeze()
        for block in self.image_encoder.blocks:
            assert isinstance(block, Block)
            width = block.norm1.normalized_shape[0]
            if peft == "adapter":
                block.attn_adapter = Adapter(width, rank) if places != "mlp" else None
                block.mlp_adapter = Adapter(width, rank, scale) if places != "attention" else None
            elif peft == "lora":
                block.attn.lora = QueryValueLoRA(width, rank)

    def stem(self, x: Tensor) -> Tensor:
        return self.image_encoder.embed(x).permute(0, 3, 1, 2)

    def down(self, stage: int, x: Tensor) -> Tensor:
        return x

    def blocks(self, stage: int, x: Tensor) -> Tensor:
        x = x.permute(0, 2, 3, 1)
        for i in self.spans[stage]:
            x = self.run(self.image_encoder.blocks[i], x)
        x = x.permute(0, 3, 1, 2)
        if stage == len(self.spans) - 1:
            x = self.image_encoder.neck(x)
        return x

    def run(self, block: nn.Module, x: Tensor) -> Tensor:
        if self.checkpoint and torch.is_grad_enabled():
            x = recomputed(block, x, use_reentrant=False, preserve_rng_state=False)
        else:
            x = block(x)
        return x


def split_windows(x: Tensor, window: Grid) -> Tensor:
    """(I, h, w, C) -> (B, s, t, C); the grid is padded with zeros to whole windows, as in the original."""
    (s, t), (h, w) = window, x.shape[1:3]
    x = F.pad(x, (0, 0, 0, -w % t, 0, -h % s)) if h % s or w % t else x
    windows = x.reshape(len(x), -(-h // s), s, -(-w // t), t, x.shape[-1])
    return windows.transpose(2, 3).flatten(0, 2)


def join_windows(x: Tensor, window: Grid, grid: Grid) -> Tensor:
    """(B, s, t, C) -> (I, h, w, C), without the padding."""
    (s, t), (h, w) = window, grid
    windows = x.view(-1, -(-h // s), -(-w // t), s, t, x.shape[-1])
    return windows.transpose(2, 3).flatten(3, 4).flatten(1, 2)[:, :h, :w]


def by_distance(table: Tensor) -> Tensor:
    """(2 s - 1, d) for distances 1 - s .. s - 1 -> (s, s, d) for query and key."""
    places = torch.arange((len(table) + 1) // 2, device=table.device)
    return table[places[:, None] - places + len(places) - 1]


def check_size(size: Grid, patch: int) -> None:
    if patch not in (4, 8, 16):
        raise UserError(f"patch {patch} is no cell of a SAM encoder; choose 4, 8 or 16")
    if min(size) < patch or size[0] % patch or size[1] % patch:
        raise UserError(f"size {size[0]} x {size[1]} does not suit SAM; both sides must be multiples of {patch}")


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
    """The encoder a recipe names, for images of H x W = `size`; `vision.options` are SamEncoder's arguments."""
    if vision.name not in SIZES:
        raise UserError(f"vision encoder {vision.name!r} is no SAM size; choose one of {', '.join(SIZES)}")
    known = inspect.signature(SamEncoder).parameters.keys() - {"size"}
    if unknown := sorted(vision.options.keys() - known):
        raise UserError(f"{vision.name} has no option {unknown[0]!r}; it has {', '.join(sorted(known))}")
    encoder = SamEncoder(size=size, **(SIZES[vision.name] | vision.options))
    if vision.weights != "none":
        encoder.weight_file = find_weights(vision)
        load_official(encoder, encoder.weight_file)
    return encoder.freeze() if vision.frozen else encoder
