"""The parts of Segment Anything's mask decoder, with masks for padded words and cells, which the original lacks.

The modules and their names are segment_anything's (`mask_decoder.*`, `prompt_encoder.*`); with nothing masked the
results are its own.

    N sentences   T tokens   n = h w cells of the grid   d channels
"""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import torch
from segment_anything.modeling import MaskDecoder, TwoWayTransformer
from segment_anything.modeling.prompt_encoder import PositionEmbeddingRandom
from timm.layers import LayerNorm2d
from torch import Tensor, nn

from riszoo.encoders.sam_weights import read_official
from riszoo.errors import UserError
from riszoo.layers import attention, to_grid, to_tokens

DECODER, PROMPTS, POSITIONS = "mask_decoder.", "prompt_encoder.", "prompt_encoder.pe_layer."


def attend(layer: Any, query: Tensor, key: Tensor, value: Tensor, mask: Tensor) -> Tensor:
    """segment_anything's attention over the keys where `mask` (N, keys) is true."""
    query, key, value = layer.q_proj(query), layer.k_proj(key), layer.v_proj(value)
    attended: Tensor = layer.out_proj(attention(query, key, value, layer.num_heads, mask[:, None]))
    return attended


class MaskedTwoWayTransformer(TwoWayTransformer):  # type: ignore[misc]
    """Tokens and cells attend to each other; position codes are given apart from the tokens, and padding is masked."""

    def forward(
        self,
        tokens: Tensor,
        cells: Tensor,
        token_code: Tensor,
        cell_code: Tensor,
        token_mask: Tensor,
        cell_mask: Tensor,
    ) -> tuple[Tensor, Tensor]:
        """tokens (N, T, d), cells (N, n, d), their position codes and masks -> tokens and cells of the same shapes"""
        for layer in self.layers:
            if layer.skip_first_layer_pe:  # the first layer: no position code, and the output replaces the tokens
                tokens = layer.norm1(attend(layer.self_attn, tokens, tokens, tokens, token_mask))
            else:
                query = tokens + token_code
                tokens = layer.norm1(tokens + attend(layer.self_attn, query, query, tokens, token_mask))
            query, key = tokens + token_code, cells + cell_code
            tokens = layer.norm2(tokens + attend(layer.cross_attn_token_to_image, query, key, cells, cell_mask))
            tokens = layer.norm3(tokens + layer.mlp(tokens))
            query = tokens + token_code
            cells = layer.norm4(cells + attend(layer.cross_attn_image_to_token, key, query, tokens, token_mask))
        query, key = tokens + token_code, cells + cell_code
        tokens = tokens + attend(self.final_attn_token_to_image, query, key, cells, cell_mask)
        return self.norm_final_attn(tokens), cells


def upscaling(width: int) -> nn.Sequential:
    """(N, d, h, w) -> (N, d / 8, 4 h, 4 w)"""
    return nn.Sequential(
        nn.ConvTranspose2d(width, width // 4, 2, stride=2),
        LayerNorm2d(width // 4),
        nn.GELU(),
        nn.ConvTranspose2d(width // 4, width // 8, 2, stride=2),
        nn.GELU(),
    )


class PromptMaskDecoder(MaskDecoder):  # type: ignore[misc]
    """SAM's mask decoder for sentences of several images at once, with sparse prompts that are given as vectors.

    The tokens are the IoU token, four mask tokens and the prompts; the first mask token makes the mask.
    """

    def __init__(self, width: int, depth: int, heads: int, hidden: int, iou_hidden: int) -> None:
        super().__init__(
            transformer_dim=width,
            transformer=MaskedTwoWayTransformer(depth, width, heads, hidden),
            iou_head_hidden_dim=iou_hidden,
        )
        self.output_upscaling = upscaling(width)
        self.no_mask_embed = nn.Embedding(1, width)

    def forward(self, cells: Tensor, cell_code: Tensor, prompts: Tensor, valid: Tensor) -> tuple[Tensor, Tensor]:
        """Logits (N, 1, 4 h, 4 w) and the estimate of their IoU (N, 1).

        `cells` (N, d, h, w) with their position code (n, d); `prompts` (N, T, d), of which `valid` (N, T) are read.
        """
        grid = cells.shape[-2:]
        own = torch.cat([self.iou_token.weight, self.mask_tokens.weight]).to(prompts.dtype)  # (5, d)
        tokens = torch.cat([own.expand(prompts.shape[0], -1, -1), prompts], 1)
        token_mask = torch.cat([valid.new_ones(valid.shape[0], own.shape[0]), valid], 1)
        visual = to_tokens(cells) + self.no_mask_embed.weight.to(cells.dtype)  # (N, n, d)
        cell_mask = valid.new_ones(visual.shape[:2])
        tokens, visual = self.transformer(tokens, visual, tokens, cell_code, token_mask, cell_mask)
        weights = self.output_hypernetworks_mlps[0](tokens[:, 1])  # (N, d / 8)
        upscaled = self.output_upscaling(to_grid(visual, grid))  # (N, d / 8, 4 h, 4 w)
        logits = torch.einsum("nc,nchw->nhw", weights, upscaled)[:, None]
        return logits, self.iou_prediction_head(tokens[:, 0])[:, :1]

    def freeze_unused(self) -> None:
        """Exclude from training what no mask depends on: the IoU estimate, and the weights of the other masks."""
        self.iou_prediction_head.requires_grad_(False)
        for network in self.output_hypernetworks_mlps[1:]:
            network.requires_grad_(False)


class CellPositions(PositionEmbeddingRandom):  # type: ignore[misc]
    """The position code of a grid's cells: sines and cosines of random projections of their centres."""

    def __init__(self, width: int) -> None:
        super().__init__(width // 2)

    def forward(self, h: int, w: int) -> Tensor:
        """-> (h w, d). A sum of products, because autocast would round the angles of a matrix product."""
        matrix: Tensor = self.positional_encoding_gaussian_matrix  # (2, d / 2)
        x = (torch.arange(w, device=matrix.device, dtype=matrix.dtype) + 0.5) * (2 / w) - 1
        y = (torch.arange(h, device=matrix.device, dtype=matrix.dtype) + 0.5) * (2 / h) - 1
        angle = 2 * math.pi * (x[None, :, None] * matrix[0] + y[:, None, None] * matrix[1])
        return torch.cat([angle.sin(), angle.cos()], -1).flatten(0, 1)


def load_decoder(module: nn.Module, path: Path) -> None:
    """Load the decoder of an official SAM file; `query`, which SAM lacks, keeps its value."""
    official = {name.removeprefix(DECODER): value for name, value in read_official(path, DECODER).items()}
    official |= {name.removeprefix(PROMPTS): value for name, value in read_official(path, PROMPTS).items()}
    load_shared(module, {name: official.get(name) for name in module.state_dict() if name != "query"}, path)


def load_positions(positions: CellPositions, path: Path) -> None:
    """Load SAM's random projection, on which its decoder was trained."""
    official = {name.removeprefix(POSITIONS): value for name, value in read_official(path, PROMPTS).items()}
    load_shared(positions, {name: official.get(name) for name in positions.state_dict()}, path)


def load_shared(module: nn.Module, state: dict[str, Tensor | None], path: Path) -> None:
    own = module.state_dict()
    for name, value in state.items():
        if value is None or value.shape != own[name].shape:
            raise UserError(
                f"{path} has no mask decoder of this shape ({name} is missing or differs); "
                "set --model.decoder.weights none, or the widths of an official SAM"
            )
    module.load_state_dict(state, strict=False)
