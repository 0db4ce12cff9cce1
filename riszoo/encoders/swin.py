"""Swin blocks in the form of the detection code, which pads a map before it shifts it.

timm shifts first. The two agree where the map is a multiple of the window, as it is in classification; at 480 pixels
with windows of 12 the last two stages are not (30 and 15 cells), and weights trained in one form give other numbers in
the other form. Names of parameters are timm's.

    I images   C channels   h x w a grid, H x W the same grid padded to multiples of the window
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from timm.models.swin_transformer import SwinTransformerBlock, window_partition, window_reverse
from torch import Tensor, nn

from riszoo.errors import UserError


class PadThenShiftBlock(nn.Module):
    """A Swin block that takes over the parts of one of timm's."""

    attn_mask: Tensor | None

    def __init__(self, block: SwinTransformerBlock) -> None:
        super().__init__()
        self.window, self.shift = block.window_size, block.shift_size
        self.norm1, self.attn, self.drop_path1 = block.norm1, block.attn, block.drop_path1
        self.norm2, self.mlp, self.drop_path2 = block.norm2, block.mlp, block.drop_path2
        self.register_buffer("attn_mask", block.attn_mask, persistent=False)  # of the padded grid

    def forward(self, x: Tensor) -> Tensor:
        """(I, h, w, C) -> (I, h, w, C)"""
        x = x + self.drop_path1(self._attend(self.norm1(x)))
        updated: Tensor = x + self.drop_path2(self.mlp(self.norm2(x)))
        return updated

    def _attend(self, x: Tensor) -> Tensor:
        _, h, w, channels = x.shape
        x = F.pad(x, (0, 0, 0, -w % self.window[1], 0, -h % self.window[0]))  # (I, H, W, C)
        padded = x.shape[1], x.shape[2]
        x = torch.roll(x, (-self.shift[0], -self.shift[1]), (1, 2))
        windows = window_partition(x, self.window).flatten(1, 2)  # (I windows, cells, C)
        windows = self.attn(windows, mask=self.attn_mask).view(-1, *self.window, channels)
        x = torch.roll(window_reverse(windows, self.window, *padded), self.shift, (1, 2))
        return x[:, :h, :w]


def pad_before_shift(model: nn.Module, name: str) -> None:
    """Replace the blocks of a timm Swin, weights included."""
    replaced = False
    for stage in getattr(model, "layers", []):
        for index, block in enumerate(stage.blocks):
            if isinstance(block, SwinTransformerBlock):
                stage.blocks[index] = PadThenShiftBlock(block)
                replaced = True
    if not replaced:
        raise UserError(f"{name} is not a Swin of timm; remove pad_before_shift from vision.options")
