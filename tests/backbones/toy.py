"""A second backbone, as a user would write it: four query heads that share two key/value heads, and a scale of its own.

Besides its settings it writes `run`, and `size` since its settings have names of their own; what a site does with its
router is the package's.
"""

from collections.abc import Mapping
from typing import Any, ClassVar

from einops import rearrange
from jaxtyping import Float, Int
from torch import Tensor, nn

from dsa.backbones import Backbone, Output, Pass, Router, Site, Size
from dsa.backbones.attention import Losses, attend, mean_losses
from dsa.backbones.initial import draw
from dsa.ops import Rotation

SCALE = 0.5


class Layer(nn.Module):
    """Attention alone, added to the stream."""

    def __init__(self, index: int, width: int, heads: int, kv_heads: int, dim: int, scale: float) -> None:
        super().__init__()
        self.site = Site(index, width, heads, kv_heads, dim, scale)
        self.norm = nn.RMSNorm(width)
        self.to_qkv = nn.Linear(width, (heads + 2 * kv_heads) * dim, bias=False)
        self.to_out = nn.Linear(heads * dim, width, bias=False)

    def forward(
        self, x: Float[Tensor, "batch time width"], rotary: Rotation, how: Pass, router: Router | None
    ) -> tuple[Float[Tensor, "batch time width"], Losses]:
        site, hidden = self.site, self.norm(x)
        parts = self.to_qkv(hidden).split([n * site.dim for n in (site.heads, site.kv_heads, site.kv_heads)], -1)
        q, k, v = (rearrange(part, "b t (h d) -> b h t d", d=site.dim) for part in parts)
        out, losses = attend(site, router, hidden, rotary(q), rotary(k), v, rotary, how)
        return x + self.to_out(rearrange(out, "b h t d -> b t (h d)")), losses


class GroupedQueries(Backbone):
    """Embedding, layers of attention, logits."""

    heads: ClassVar[int] = 4
    kv_heads: ClassVar[int] = 2

    def __init__(self, vocab_size: int, d_model: int, layers: int, scale: float = SCALE, seed: int = 0) -> None:
        super().__init__()
        self.vocab_size = vocab_size
        self.embedding = nn.Embedding(vocab_size, d_model)
        self.layers = nn.ModuleList(
            Layer(index, d_model, self.heads, self.kv_heads, d_model // self.heads, scale) for index in range(layers)
        )
        self.to_logits = nn.Linear(d_model, vocab_size, bias=False)
        self.sites = tuple(layer.site for layer in self.layers)  # type: ignore[misc]
        draw(self, seed, "", lambda name, weight: 0.3)

    @classmethod
    def size(cls, node: Mapping[str, Any]) -> Size:
        return Size(node["layers"], node["d_model"], ff=0, heads=cls.heads, vocab=0)

    def run(self, tokens: Int[Tensor, "batch time"], how: Pass) -> Output:
        how = how.begun()
        rotary = Rotation(tokens.shape[1], 10000.0, tokens.device, offset=how.offset)
        x, losses = self.embedding(tokens), list[Losses]()
        for index, layer in enumerate(self.layers):
            x, own = layer(x, rotary, how, self.router(index))
            losses.append(own)
        if how.cache is not None:
            how.cache.length += tokens.shape[1]
        return Output(self.to_logits(x), mean_losses(losses))
