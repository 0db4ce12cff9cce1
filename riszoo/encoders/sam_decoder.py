"""Segment Anything's mask decoder with masks for pad words and padded cells, which the original does not know.

Parameter names are those of the official files, `mask_decoder.*`; of its four mask tokens the first one's part is
kept, the single mask. With nothing masked it is the original, number for number.

    N sentences   k cells of the grid, h x w   t tokens   d channels   n heads
"""

from __future__ import annotations

import math
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from riszoo.encoders.sam import LayerNorm2d
from riszoo.encoders.sam_weights import read_official
from riszoo.errors import UserError

DECODER, PROMPTS = "mask_decoder.", "prompt_encoder."


class Attention(nn.Module):
    """Attention whose inner width may be smaller; `visible` (N, keys) says which keys may be looked at."""

    def __init__(self, width: int, inner: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.q_proj = nn.Linear(width, inner)
        self.k_proj = nn.Linear(width, inner)
        self.v_proj = nn.Linear(width, inner)
        self.out_proj = nn.Linear(inner, width)

    def forward(self, q: Tensor, k: Tensor, v: Tensor, visible: Tensor) -> Tensor:
        q, k, v = (
            x.unflatten(-1, (self.heads, -1)).transpose(1, 2) for x in (self.q_proj(q), self.k_proj(k), self.v_proj(v))
        )  # (N, n, t or k, inner / n)
        y = F.scaled_dot_product_attention(q, k, v, attn_mask=visible[:, None, None])
        found: Tensor = self.out_proj(y.transpose(1, 2).flatten(2))
        return found


class TokenMLP(nn.Module):
    """The token's feed-forward half."""

    def __init__(self, width: int, hidden: int) -> None:
        super().__init__()
        self.lin1, self.lin2 = nn.Linear(width, hidden), nn.Linear(hidden, width)

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.lin2(F.relu(self.lin1(x)))
        return y


class TwoWayLayer(nn.Module):
    """Tokens look at each other, then at the image, think, and the image looks back at them; post-norm."""

    def __init__(self, width: int, heads: int, hidden: int, first: bool) -> None:
        super().__init__()
        self.first = first
        self.self_attn = Attention(width, width, heads)
        self.norm1 = nn.LayerNorm(width)
        self.cross_attn_token_to_image = Attention(width, width // 2, heads)
        self.norm2 = nn.LayerNorm(width)
        self.mlp = TokenMLP(width, hidden)
        self.norm3 = nn.LayerNorm(width)
        self.cross_attn_image_to_token = Attention(width, width // 2, heads)
        self.norm4 = nn.LayerNorm(width)

    def forward(
        self, t: Tensor, k: Tensor, pt: Tensor, pk: Tensor, tokens: Tensor, cells: Tensor
    ) -> tuple[Tensor, Tensor]:
        if self.first:  # the tokens are their own position code here, and what they find replaces them
            t = self.norm1(self.self_attn(t, t, t, tokens))
        else:
            t = self.norm1(t + self.self_attn(t + pt, t + pt, t, tokens))
        t = self.norm2(t + self.cross_attn_token_to_image(t + pt, k + pk, k, cells))
        t = self.norm3(t + self.mlp(t))
        k = self.norm4(k + self.cross_attn_image_to_token(k + pk, t + pt, t, tokens))
        return t, k


class TwoWayTransformer(nn.Module):
    """Two layers and a last look of the tokens at the image."""

    def __init__(self, width: int, heads: int, hidden: int, depth: int) -> None:
        super().__init__()
        self.layers = nn.ModuleList(TwoWayLayer(width, heads, hidden, i == 0) for i in range(depth))
        self.final_attn_token_to_image = Attention(width, width // 2, heads)
        self.norm_final_attn = nn.LayerNorm(width)

    def forward(
        self, t: Tensor, k: Tensor, pt: Tensor, pk: Tensor, tokens: Tensor, cells: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Tokens (N, t, d) and cells (N, k, d), their position codes, and which of each are real."""
        for layer in self.layers:
            t, k = layer(t, k, pt, pk, tokens, cells)
        t = self.norm_final_attn(t + self.final_attn_token_to_image(t + pt, k + pk, k, cells))
        return t, k


class Perceptron(nn.Module):
    """Three linear layers with ReLU between: from a token to the weights of its mask."""

    def __init__(self, width: int, out: int) -> None:
        super().__init__()
        self.layers = nn.ModuleList([nn.Linear(width, width), nn.Linear(width, width), nn.Linear(width, out)])

    def forward(self, x: Tensor) -> Tensor:
        first, second, last = self.layers
        weights: Tensor = last(F.relu(second(F.relu(first(x)))))
        return weights


def upscaling(width: int) -> nn.Sequential:
    """(N, d, h, w) -> (N, d / 8, 4 h, 4 w)."""
    return nn.Sequential(
        nn.ConvTranspose2d(width, width // 4, 2, stride=2),
        LayerNorm2d(width // 4),
        nn.GELU(),
        nn.ConvTranspose2d(width // 4, width // 8, 2, stride=2),
        nn.GELU(),
    )


class MaskDecoder(nn.Module):
    """The transformer, the way up to a fourth of the stride, and the weights of one mask."""

    def __init__(self, *, width: int = 256, heads: int = 8, hidden: int = 2048, depth: int = 2) -> None:
        super().__init__()
        self.transformer = TwoWayTransformer(width, heads, hidden, depth)
        self.output_upscaling = upscaling(width)
        self.output_hypernetworks_mlps = nn.ModuleList([Perceptron(width, width // 8)])

    def mask(self, grid: Tensor, token: Tensor) -> Tensor:
        """The grid after the transformer (N, d, h, w) and the token that asks (N, d) -> logits (N, 1, 4 h, 4 w)."""
        weights = self.output_hypernetworks_mlps[0](token)
        return torch.einsum("nc,nchw->nhw", weights, self.output_upscaling(grid))[:, None]


class FourierPositions(nn.Module):
    """SAM's position code of a cell: sines and cosines of random projections of its centre."""

    matrix: Tensor

    def __init__(self, width: int) -> None:
        super().__init__()
        self.register_buffer("matrix", torch.randn(2, width // 2))

    def forward(self, h: int, w: int) -> Tensor:
        """-> (h w, d). Multiplied out by hand, because autocast would round a matrix product's angles."""
        y = (torch.arange(h, device=self.matrix.device, dtype=self.matrix.dtype) + 0.5) * (2 / h) - 1
        x = (torch.arange(w, device=self.matrix.device, dtype=self.matrix.dtype) + 0.5) * (2 / w) - 1
        angle = 2 * math.pi * (x[None, :, None] * self.matrix[0] + y[:, None, None] * self.matrix[1])
        return torch.cat([angle.sin(), angle.cos()], -1).flatten(0, 1)


def load_decoder(module: nn.Module, path: Path) -> None:
    """The decoder's part of an official SAM file into a module of the same names; tokens of its own stay as they are.

    A module with SAM's tokens (`iou_token`, `mask_tokens`, `no_mask_embed`) gets them too.
    """
    state = {name.removeprefix(DECODER): value for name, value in read_official(path, DECODER).items()}
    prompts = {name.removeprefix(PROMPTS): value for name, value in read_official(path, PROMPTS).items()}
    known = state | {"no_mask_embed.weight": prompts.get("no_mask_embed.weight")}
    own = module.state_dict()
    fits = {name: known.get(name) for name in own if not name.startswith(("query", "head"))}
    for name, value in fits.items():
        if value is None or value.shape != own[name].shape:
            raise UserError(
                f"{path} holds no mask decoder of this shape ({name} differs or is absent); "
                "set --model.decoder.weights none, or the widths of an official SAM"
            )
    module.load_state_dict(fits, strict=False)


def load_positions(positions: FourierPositions, path: Path) -> None:
    """SAM's own random matrix: its decoder was trained on that code."""
    name = f"{PROMPTS}pe_layer.positional_encoding_gaussian_matrix"
    matrix = read_official(path, PROMPTS).get(name)
    if matrix is None or matrix.shape != positions.matrix.shape:
        raise UserError(f"{path} holds no {name} of {tuple(positions.matrix.shape)}; set --model.decoder.weights none")
    positions.matrix.copy_(matrix)
