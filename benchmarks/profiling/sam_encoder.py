"""segment_anything's image encoder, to be measured beside riszoo's.

    python -m riszoo speed --scale paper --part vision --threads 1 --repeats 3 --batch 1 --model.size 1024 \
        --paired 'risam --model.vision.name benchmarks.sam_encoder.SegmentAnything' \
        'risam --model.vision.options.peft full --model.vision.options.checkpoint false'
"""

from __future__ import annotations

from functools import partial
from typing import Any

from segment_anything.modeling import ImageEncoderViT
from torch import Tensor, nn

from riszoo.encoders.base import VisionEncoder
from riszoo.encoders.sam import SIZES


class SegmentAnything(VisionEncoder):
    """ViT-B at 1024 pixels as published, trained as a whole, with the maps of riszoo's encoder; options are ignored."""

    def __init__(self, **_: Any) -> None:
        super().__init__()
        numbers = SIZES["sam_vit_b"]
        self.encoder = ImageEncoderViT(
            img_size=1024,
            embed_dim=numbers["embed_dim"],
            depth=numbers["depth"],
            num_heads=numbers["heads"],
            global_attn_indexes=numbers["global_blocks"],
            out_chans=256,
            window_size=14,
            use_rel_pos=True,
            norm_layer=partial(nn.LayerNorm, eps=1e-6),
        )
        first, second = numbers["global_blocks"][:2]
        self.spans = [(0, first + 1), (first + 1, second + 1), (second + 1, numbers["depth"])]
        self.channels, self.strides = [768, 768, 256], [16, 16, 16]

    def stem(self, x: Tensor) -> Tensor:
        return (self.encoder.patch_embed(x) + self.encoder.pos_embed).permute(0, 3, 1, 2)

    def down(self, stage: int, x: Tensor) -> Tensor:
        return x

    def blocks(self, stage: int, x: Tensor) -> Tensor:
        start, stop = self.spans[stage]
        for block in self.encoder.blocks[start:stop]:
            x = block(x.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)
        return self.encoder.neck(x) if stage == 2 else x
