"""LAVT's decoder: top-down, from the coarsest map to the finest, in convolutions alone.

N sentences   h x w the finest grid
"""

from __future__ import annotations

from torch import Tensor, nn

from riszoo.layers import TopDownBlock


class TopDownDecoder(nn.Module):
    """Section 5 of docs/models/lavt.md.

    Args:
        channels: of the maps, fine to coarse
        width: of all blocks
    """

    def __init__(self, channels: list[int], width: int) -> None:
        super().__init__()
        *finer, coarsest = channels
        inputs = [coarsest, *(width for _ in finer)]
        self.blocks = nn.ModuleList(
            TopDownBlock(below + fine, width) for below, fine in zip(inputs, reversed(finer), strict=False)
        )
        self.classify = nn.Conv2d(width if finer else coarsest, 2, 1)

    def forward(self, maps: list[Tensor]) -> Tensor:
        """Maps from fine to coarse -> the target's logit minus the background's, (N, 1, h, w)."""
        x = maps[-1]
        for block, fine in zip(self.blocks, reversed(maps[:-1]), strict=True):
            x = block(x, fine)
        background, target = self.classify(x).split(1, 1)
        logits: Tensor = target - background
        return logits
