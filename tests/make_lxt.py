"""Write what lxt 2.1, the package of AttnLRP's authors, says of the committed vision transformer.

In an environment of its own, with ``pip install lxt==2.1`` and this project: ``python tests/make_lxt.py``. Its own
modules for vision leave out the path through the softmax, so torchvision's forward pass is written out here with its
rules, in float64 and without stabilisers, where these can be taken away.
"""

import subjects
import torch
from lxt.explicit import functional as rules
from lxt.explicit.rules import epsilon_lrp, identity
from safetensors.torch import save_file
from torch import Tensor, nn
from torchvision.models import VisionTransformer
from torchvision.models.vision_transformer import EncoderBlock

COUNT, TARGET = 4, 3


def _linear(layer: nn.Linear, x: Tensor) -> Tensor:
    return rules.linear_epsilon(x, layer.weight, layer.bias, 0.0)


def _norm(layer: nn.LayerNorm, x: Tensor) -> Tensor:
    return rules.layer_norm_grad_fn.apply(x, layer.weight, layer.bias, layer.eps, 0.0)


def _attention(layer: nn.MultiheadAttention, x: Tensor) -> Tensor:
    n, tokens, size = x.shape
    weights, biases = layer.in_proj_weight.view(3, size, size), layer.in_proj_bias.view(3, size)
    query, key, value = (
        rules.linear_epsilon(x, w, b, 0.0).view(n, tokens, layer.num_heads, -1).transpose(1, 2)
        for w, b in zip(weights, biases, strict=True)
    )
    scores = rules.matmul(query, key.transpose(2, 3), False, 0.0)
    seen = rules.matmul(rules.softmax(scores, -1, temperature=layer.head_dim**0.5), value, False, 0.0)
    return _linear(layer.out_proj, seen.transpose(1, 2).reshape(n, tokens, size))


def _block(block: EncoderBlock, x: Tensor) -> Tensor:
    x = rules.add2(_attention(block.self_attention, _norm(block.ln_1, x)), x, False, 0.0)
    hidden = identity(block.mlp[1], _linear(block.mlp[0], _norm(block.ln_2, x)))
    return rules.add2(x, _linear(block.mlp[3], hidden), False, 0.0)


def relevance(model: VisionTransformer, images: Tensor, target: int) -> tuple[Tensor, Tensor]:
    """Return the relevance (N, 1, 28, 28) and the logits (N, 10)."""
    inputs = images.clone().requires_grad_()
    patches = epsilon_lrp(model.conv_proj, 0.0, inputs).flatten(2).transpose(1, 2)
    x = torch.cat([model.class_token.expand(len(images), -1, -1), patches], 1)
    x = rules.add2(x, model.encoder.pos_embedding, False, 0.0)
    for block in model.encoder.layers:
        x = _block(block, x)
    logits = _linear(model.heads.head, _norm(model.encoder.ln, x)[:, 0])
    logits[:, target].backward(logits[:, target])
    return inputs.grad, logits.detach()


if __name__ == "__main__":
    network, chosen, _ = subjects.trained("transformer")
    network, images = network.double().requires_grad_(False), chosen[:COUNT].double()
    found, logits = relevance(network, images, TARGET)
    torch.testing.assert_close(logits, network(images))
    save_file({"relevance": found.float(), "logits": logits}, subjects.NETWORKS / "lxt-2.1.safetensors")
    print(f"{len(found)} digits, sums {found.sum((1, 2, 3)).tolist()} of logits {logits[:, TARGET].tolist()}")
