"""Every kind of image backbone that tlkit takes from KerasHub, small enough to train in a second."""

from __future__ import annotations

from typing import Any

import keras_hub

from tlkit.backbones.keras_hub_describe import FAMILIES
from tlkit.backbones.keras_hub_image import AS_IT_IS, build_keras_hub_image
from tlkit.zoo import ZooEntry
from tlkit.zoo.registry import expand_groups, family_fields, merge

SIZE = 32  # pixels
_TOKENS = {"patch_size": 8, "num_layers": 2, "num_heads": 2, "hidden_dim": 16}
_STAGES = {"stackwise_num_filters": [64, 64], "stackwise_num_blocks": [1, 1], "stackwise_num_strides": [1, 2]}

ARGUMENTS: dict[str, dict[str, Any]] = {
    "CSPNetBackbone": {
        "stem_filters": 8,
        "stem_kernel_size": 3,
        "stem_strides": 1,
        "stackwise_depth": [1, 1],
        "stackwise_strides": [2, 2],
        "stackwise_num_filters": [8, 16],
        "block_type": "dark_block",
        "stage_type": "csp",
        "stem_padding": "same",
        "bottle_ratio": [0.5, 1.0],
        "block_ratio": [1.0, 0.5],
        "expand_ratio": [2.0, 1.0],
        "down_growth": True,
    },
    "DINOV2Backbone": {
        **_TOKENS,
        "intermediate_dim": 32,
        "position_embedding_shape": [SIZE, SIZE],
        "num_register_tokens": 3,
    },
    "DINOV3Backbone": {**_TOKENS, "intermediate_dim": 32, "use_key_bias": False},
    "DeiTBackbone": {**_TOKENS, "intermediate_dim": 32, "image_shape": [SIZE, SIZE, 3]},
    "DenseNetBackbone": {"stackwise_num_repeats": [1, 2], "growth_rate": 4},
    "EfficientNetBackbone": {
        "stackwise_width_coefficients": [1.0, 1.0, 1.0],
        "stackwise_depth_coefficients": [1.0, 1.0, 1.0],
        "stackwise_kernel_sizes": [3, 3, 3],
        "stackwise_num_repeats": [1, 2, 1],
        "stackwise_input_filters": [8, 8, 8],
        "stackwise_output_filters": [8, 8, 16],
        "stackwise_expansion_ratios": [1, 2, 2],
        "stackwise_strides": [1, 2, 2],
        "stackwise_squeeze_and_excite_ratios": [0, 0, 0.25],
        "stackwise_block_types": ["cba", "fused", "unfused"],
    },
    "HGNetV2Backbone": {
        "depths": [1, 1],
        "embedding_size": 8,
        "hidden_sizes": [16, 16],
        "stem_channels": [3, 8, 8],
        "hidden_act": "relu",
        "use_learnable_affine_block": False,
        "stackwise_stage_filters": [[8, 8, 16, 1, 2, 3], [16, 8, 16, 2, 2, 3]],
        "apply_downsample": [False, True],
        "use_lightweight_conv_block": [False, True],
    },
    "MiTBackbone": {
        "layerwise_depths": [1, 2],
        "num_layers": 2,
        "layerwise_num_heads": [1, 2],
        "layerwise_sr_ratios": [2, 1],
        "layerwise_patch_sizes": [7, 3],
        "layerwise_strides": [4, 2],
        "max_drop_path_rate": 0.1,
        "hidden_dims": [8, 16],
    },
    "MobileNetBackbone": {
        "stackwise_expansion": [[16], [24, 24]],
        "stackwise_num_blocks": [1, 2],
        "stackwise_num_filters": [[16], [24, 24]],
        "stackwise_kernel_size": [[3], [5, 5]],
        "stackwise_num_strides": [[2], [2, 1]],
        "stackwise_se_ratio": [[None], [0.25, 0.25]],
        "stackwise_activation": [["relu"], ["hard_swish", "hard_swish"]],
        "stackwise_padding": [[1], [2, 2]],
        "output_num_filters": 32,
        "input_num_filters": 8,
        "depthwise_filters": 8,
        "depthwise_stride": 2,
        "depthwise_residual": False,
        "squeeze_and_excite": 0.5,
        "last_layer_filter": 32,
        "input_activation": "hard_swish",
        "output_activation": "hard_swish",
    },
    "ResNetBackbone": {
        **_STAGES,
        "input_conv_filters": [8],
        "input_conv_kernel_sizes": [7],
        "block_type": "bottleneck_block_vd",
    },
    "SwinTransformerBackbone": {
        "embed_dim": 8,
        "depths": [2, 2],
        "num_heads": [2, 2],
        "window_size": 4,
    },
    "VGGBackbone": {"stackwise_num_repeats": [1, 2], "stackwise_num_filters": [8, 16]},
    "ViTBackbone": {**_TOKENS, "patch_size": [8, 8], "mlp_dim": 32, "image_shape": [SIZE, SIZE, 3]},
    "XceptionBackbone": {
        "stackwise_conv_filters": [[8, 8], [16, 16], [16]],
        "stackwise_pooling": [True, True, False],
    },
}


def keras_hub_model(backbone: str, **changes: Any) -> Any:
    """KerasHub's own model, for pictures of SIZE pixels."""
    arguments = {**ARGUMENTS[backbone], **changes}
    arguments.setdefault(AS_IT_IS.get(backbone, "image_shape"), [SIZE, SIZE, 3])
    return getattr(keras_hub.models, backbone)(**arguments)


def small_entry(backbone: str, **changes: Any) -> ZooEntry:
    """An entry of the class's family, as `model_zoo.yaml` would have it."""
    family, arguments = FAMILIES[backbone], {**ARGUMENTS[backbone], **changes}
    own = {
        "name": f"small_{family}",
        "license": "none: random weights",
        "family": family,
        "source": {"kind": "keras_hub", "preset": "small"},
        "constructor": {"arguments": arguments},
        "input": {"image_size": SIZE, "min_image_size": 16, "multiple_of": 8},
        "params": build_keras_hub_image(SIZE, backbone=backbone, **arguments).count_params(),
    }
    if "patch_size" not in arguments:
        own["input"]["min_image_size"] = SIZE
    fields = family_fields(family)
    if family == "hgnet_v2":  # lists are replaced, arguments are merged
        fields["constructor"] = {"builder": "keras_hub_image", "arguments": {"backbone": backbone}}
    return ZooEntry.model_validate(expand_groups(merge(fields, own)))
