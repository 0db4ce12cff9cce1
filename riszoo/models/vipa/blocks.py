"""What VIPA's fusion, expression and decoder are built of."""

from __future__ import annotations

from torch import Tensor, nn

from riszoo.layers import Attention, FeedForward


class AttentionBlock(nn.Module):
    """A pre-norm block: attention to a context, or self-attention where none is given, then a feed-forward."""

    def __init__(self, width: int, heads: int, context: int | None = None) -> None:
        super().__init__()
        self.norm, self.attention = nn.LayerNorm(width), Attention(width, heads, context)
        self.norm_feed_forward, self.feed_forward = nn.LayerNorm(width), FeedForward(width)

    def forward(self, x: Tensor, mask: Tensor | None, key: Tensor | None = None, value: Tensor | None = None) -> Tensor:
        """x (N, Q, C), mask (N, Q or 1, K), key and value (N, K, C') -> (N, Q, C); a missing value is the key."""
        query = self.norm(x)
        key = query if key is None else key
        x = x + self.attention(query, key, key if value is None else value, mask)
        updated: Tensor = x + self.feed_forward(self.norm_feed_forward(x))
        return updated


def heads_for(width: int, head_width: int) -> int:
    """The largest number of heads that divides `width` and leaves each at least about `head_width` channels."""
    return next(heads for heads in range(max(1, width // head_width), 0, -1) if width % heads == 0)
