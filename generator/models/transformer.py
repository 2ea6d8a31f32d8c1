"""nano's diffusion transformer: diffusers' `WanTransformer3DModel` in Wan-I2V's layout, with explicit RoPE positions.

The input is 16 noise + 4 mask + 16 condition channels, so that open Wan-I2V weights run on the same code.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from diffusers.configuration_utils import register_to_config
from diffusers.models.modeling_outputs import Transformer2DModelOutput
from diffusers.models.modeling_utils import ModelMixin
from diffusers.models.transformers.transformer_wan import WanAttnProcessor, WanTransformer3DModel
from torch import Tensor, nn

from dreamontage.generator.models.rope import ExplicitRope

__all__ = ["ModelMixin", "NanoTransformer", "init_from_scratch"]
# ModelMixin is exported because diffusers looks for it in a custom component's own module when it loads a pipeline.

LATENT_CHANNELS = 16
MASK_CHANNELS = 4
SHORTEST_TIME = 0.02
"""Below this flow time (of 0..1) a velocity towards a condition is no longer scaled up."""
IN_CHANNELS = LATENT_CHANNELS + MASK_CHANNELS + LATENT_CHANNELS


QUERIES = 512
"""Queries of one head that attend at a time where attention is computed piece by piece."""


def attend(query: Tensor, key: Tensor, value: Tensor) -> Tensor:
    """Attention [B,N,heads,D] without mask, head by head and QUERIES at a time: two plain matrix products each.

    In bfloat16 on a CPU without AMX this takes less than half the time of torch's fused kernel, whose products are no
    faster there than in float32 (8,640 tokens, 4 heads: 0.44 s against 1.05 s), and its scores fit the cache.
    """
    result = torch.empty_like(query)
    scale = query.shape[-1] ** -0.5
    for batch in range(query.shape[0]):
        for head in range(query.shape[2]):
            keys, values = (key[batch, :, head] * scale).t(), value[batch, :, head].contiguous()
            for start in range(0, query.shape[1], QUERIES):
                scores = query[batch, start : start + QUERIES, head] @ keys
                result[batch, start : start + QUERIES, head] = scores.softmax(-1) @ values
    return result


class PiecewiseAttention(WanAttnProcessor):
    """Wan's attention; computed by `attend` where a CPU renders in bfloat16, else as diffusers does."""

    def __call__(
        self,
        attn: Any,
        hidden_states: Tensor,
        encoder_hidden_states: Tensor | None = None,
        attention_mask: Tensor | None = None,
        rotary_emb: tuple[Tensor, Tensor] | None = None,
    ) -> Tensor:
        pieces = hidden_states.device.type == "cpu" and torch.is_autocast_enabled("cpu") and not torch.is_grad_enabled()
        if not pieces or attention_mask is not None or attn.add_k_proj is not None:
            result: Tensor = super().__call__(
                attn, hidden_states, encoder_hidden_states, attention_mask, rotary_emb
            )
            return result
        seen = hidden_states if encoder_hidden_states is None else encoder_hidden_states
        value = attn.to_v(seen)
        # The norms' weights are float32; on bfloat16 torch would leave its fused kernel, with a warning.
        query, key = attn.norm_q(attn.to_q(hidden_states).float()), attn.norm_k(attn.to_k(seen).float())
        query, key, value = (x.unflatten(2, (attn.heads, -1)) for x in (query, key, value))
        if rotary_emb is not None:
            query, key = rotate(query, *rotary_emb), rotate(key, *rotary_emb)
        mixed = attend(query.to(value.dtype), key.to(value.dtype), value)
        projected: Tensor = attn.to_out[1](attn.to_out[0](mixed.flatten(2)))
        return projected


def rotate(x: Tensor, cosines: Tensor, sines: Tensor) -> Tensor:
    """Turn neighbouring pairs of x [B,N,heads,D] by the rotary tables [1,N,1,D]."""
    even, odd = x[..., 0::2], x[..., 1::2]
    cos, sin = cosines[..., 0::2], sines[..., 1::2]
    return torch.stack([even * cos - odd * sin, even * sin + odd * cos], dim=-1).flatten(-2)


class NanoTransformer(WanTransformer3DModel):
    """`WanTransformer3DModel` with nano's sizes as defaults and `ExplicitRope` as its `rope`.

    Input [B,36,T,h,w], timestep [B] or [B,tokens] in 0..1000, prompt tokens [B,N,text_dim]; output: the flow velocity
    [B,16,T,h,w]. Sizes are those of the Wan class of the same name.

    With `from_condition` the flow of every slot that has a condition c of full strength points at it from birth, and
    the network adds what the condition lacks: velocity = (x_t - c - network) / t. Elsewhere it is the velocity.
    """

    # Weights stay float32 and autocast picks the number type, so nothing has to be kept back; with a list here
    # diffusers would refuse to load where accelerate is not installed.
    _keep_in_fp32_modules = None  # type: ignore[assignment]

    @register_to_config  # type: ignore[untyped-decorator]
    def __init__(
        self,
        patch_size: Sequence[int] = (1, 2, 2),
        num_attention_heads: int = 4,
        attention_head_dim: int = 64,
        in_channels: int = IN_CHANNELS,
        out_channels: int = LATENT_CHANNELS,
        text_dim: int = 64,
        freq_dim: int = 256,
        ffn_dim: int = 1024,
        num_layers: int = 6,
        cross_attn_norm: bool = True,
        qk_norm: str | None = "rms_norm_across_heads",
        eps: float = 1e-6,
        image_dim: int | None = None,
        added_kv_proj_dim: int | None = None,
        rope_max_seq_len: int = 1024,
        pos_embed_seq_len: int | None = None,
        from_condition: bool = False,
    ) -> None:
        super().__init__(
            patch_size=tuple(patch_size),
            num_attention_heads=num_attention_heads,
            attention_head_dim=attention_head_dim,
            in_channels=in_channels,
            out_channels=out_channels,
            text_dim=text_dim,
            freq_dim=freq_dim,
            ffn_dim=ffn_dim,
            num_layers=num_layers,
            cross_attn_norm=cross_attn_norm,
            qk_norm=qk_norm,
            eps=eps,
            image_dim=image_dim,
            added_kv_proj_dim=added_kv_proj_dim,
            rope_max_seq_len=rope_max_seq_len,
            pos_embed_seq_len=pos_embed_seq_len,
        )
        self.rope: nn.Module = ExplicitRope(attention_head_dim, patch_size)  # type: ignore[assignment]
        self.set_attn_processor(PiecewiseAttention())  # type: ignore[no-untyped-call, arg-type]

    def forward(
        self, hidden_states: Tensor, timestep: Tensor, encoder_hidden_states: Tensor, *args: Any, **kwargs: Any
    ) -> Any:
        """The velocity; arguments and results as in `WanTransformer3DModel.forward`."""
        result = super().forward(hidden_states, timestep, encoder_hidden_states, *args, **kwargs)
        if not self.config["from_condition"]:
            return result
        output = result[0].float()
        inputs = hidden_states.float()
        noisy, cond = inputs[:, :LATENT_CHANNELS], inputs[:, LATENT_CHANNELS + MASK_CHANNELS :]
        time = (timestep.float() / 1000).clamp(min=SHORTEST_TIME).view(-1, 1, 1, 1, 1)
        known = cond.abs().amax((1, 3, 4), keepdim=True) > 0
        velocity = torch.where(known, (noisy - cond - output) / time, output).to(result[0].dtype)
        return Transformer2DModelOutput(sample=velocity) if not isinstance(result, tuple) else (velocity, *result[1:])


@torch.no_grad()
def init_from_scratch(transformer: Any, block_scale: float = 0.3) -> None:
    """Prepare a fresh transformer for training: zero velocity at first, and damped block outputs, in place."""
    nn.init.zeros_(transformer.proj_out.weight)
    nn.init.zeros_(transformer.proj_out.bias)
    for block in transformer.blocks:
        for linear in (block.attn1.to_out[0], block.attn2.to_out[0], block.ffn.net[2]):
            linear.weight.mul_(block_scale)
