"""segment_anything's image encoder, to be measured beside riszoo's: as published, or less deep for a small machine.

    python -m riszoo speed --scale paper --part vision --threads 1 --repeats 3 --batch 1 --model.size 1024 \
        --paired 'risam --model.vision.name benchmarks.profiling.sam_encoder.SegmentAnything' \
        'risam --model.vision.options.peft full --model.vision.options.checkpoint false'

A quarter of the blocks, with the published share of global attention: --model.vision.options.depth 3
--model.vision.options.global_blocks '[2]' before --paired.
"""

from __future__ import annotations

from functools import partial
from itertools import pairwise
from typing import Any

from segment_anything.modeling import ImageEncoderViT
from torch import Tensor, nn

from riszoo.encoders.base import VisionEncoder
from riszoo.encoders.sam import SIZES


class SegmentAnything(VisionEncoder):
    """ViT-B at 1024 pixels, trained as a whole, with the maps of riszoo's encoder, whose other options are ignored."""

    def __init__(self, **options: Any) -> None:
        super().__init__()
        numbers = SIZES["sam_vit_b"] | {name: options[name] for name in ("depth", "global_blocks") if name in options}
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
        stops = [tap + 1 for tap in numbers["global_blocks"][:2]]
        self.spans = list(pairwise([0, *stops, numbers["depth"]]))
        self.channels, self.strides = [*(768 for _ in stops), 256], [16] * len(self.spans)

    def stem(self, x: Tensor) -> Tensor:
        return (self.encoder.patch_embed(x) + self.encoder.pos_embed).permute(0, 3, 1, 2)

    def down(self, stage: int, x: Tensor) -> Tensor:
        return x

    def blocks(self, stage: int, x: Tensor) -> Tensor:
        start, stop = self.spans[stage]
        for block in self.encoder.blocks[start:stop]:
            x = block(x.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)
        return self.encoder.neck(x) if stage == len(self.spans) - 1 else x
