"""Converts pixel diffusion models from the three layouts in which they are published.

Ho et al. 2020 in PyTorch (down.0.block.0..., .ckpt), the same in diffusers' names (down_blocks.0.resnets.0..., a
folder with its config.json), and Dhariwal & Nichol 2021 (ADM: input_blocks.1.0..., .pt).
"""

from __future__ import annotations

import re
from typing import Any

from torch import Tensor

from pipelines.errors import BadInput, Message, one_line
from pipelines.models.ddpm.network import Ddpm, DdpmConfig
from pipelines.models.source import Converted, SourceCheckpoint, checked, count_of

MARKS = {  # a name that only this layout has
    "time_embedding.linear_1.weight": "diffusers",
    "temb.dense.0.weight": "original",
    "time_embed.0.weight": "adm",
}
HEAD_SIZE = 64  # of every published ADM whose residual blocks resample
HEAD_COUNT = 4  # of those before
RESNET = {  # ADM's names within a residual block
    "in_layers.0": "norm1",
    "in_layers.2": "conv1",
    "emb_layers.1": "time_emb_proj",
    "out_layers.0": "norm2",
    "out_layers.3": "conv2",
    "skip_connection": "conv_shortcut",
}
OUTSIDE = {  # ADM's names outside of blocks
    "time_embed.0": "time_embedding.linear_1",
    "time_embed.2": "time_embedding.linear_2",
    "input_blocks.0.0": "conv_in",
    "out.0": "conv_norm_out",
    "out.2": "conv_out",
}
OLD = {"query": "to_q", "key": "to_k", "value": "to_v", "proj_attn": "to_out.0"}  # diffusers' own before 0.15
FIXED = {  # values of a diffusers config that DdpmConfig does not vary, where they are given
    "act_fn": "silu",
    "add_attention": True,
    "center_input_sample": False,
    "class_embed_type": None,
    "in_channels": 3,
    "mid_block_scale_factor": 1,
    "num_class_embeds": None,
    "time_embedding_type": "positional",
}


def convert(original: SourceCheckpoint) -> Converted:
    """Convert to kind "ddpm". BadInput when the file has none of the three layouts, or lacks a tensor."""
    layout, state = _network_in(original)
    read = {"diffusers": _from_diffusers, "original": _from_original, "adm": _from_adm}[layout]
    try:
        config, tensors = read(original, state)
        return checked("ddpm", original, DdpmConfig, config.to_dict(), Ddpm, tensors)
    except BadInput:
        raise
    except KeyError as missing:
        raise BadInput("models.diffusion_incomplete", file=original.file, name=missing.args[0]) from None
    except (ValueError, IndexError, TypeError, RuntimeError) as error:
        raise BadInput("models.diffusion_sizes", file=original.file, reason=one_line(error)) from None


def _network_in(original: SourceCheckpoint) -> tuple[str, dict[str, Tensor]]:
    """The layout of a file, and its network's tensors without their common prefix.

    Averaged weights (EMA) are preferred; in lists of networks they come last. BadInput when there is no known layout.
    """
    for mark, layout in MARKS.items():
        beginnings = [name.removesuffix(mark) for name in original.tensors if name.endswith(mark)]
        if prefixes := [beginning for beginning in beginnings if beginning == "" or beginning.endswith(".")]:
            prefix = next((beginning for beginning in prefixes if "ema" in beginning), prefixes[-1])
            cut = len(prefix)
            return layout, {k[cut:]: v for k, v in original.tensors.items() if k.startswith(prefix)}
    tensor_name = next((name[:60] for name in original.tensors), Message("models.nothing"))
    diffusers, original_layout, adm = MARKS
    raise BadInput(
        "models.no_pixel_diffusion",
        file=original.file,
        diffusers=diffusers,
        original=original_layout,
        adm=adm,
        found=tensor_name,
    )


def _square(value: Tensor) -> Tensor:
    """The weight of a 1x1 convolution (o, i, 1, ...) as a matrix (o, i); other tensors unchanged."""
    return value.flatten(1) if value.ndim > 2 else value


# ------------------------------------------------------------------------------------------------------------- diffusers


def _from_diffusers(
    original: SourceCheckpoint, state: dict[str, Tensor]
) -> tuple[DdpmConfig, dict[str, Tensor]]:
    tensors: dict[str, Tensor] = {}
    for name, value in state.items():
        if match := re.fullmatch(r"(.*attentions\.\d+\.)(query|key|value|proj_attn)(\..*)", name):
            name, value = match[1] + OLD[match[2]] + match[3], _square(value)
        tensors[f"network.{name}"] = value
    level_count = count_of(state, "down_blocks.")
    widths = tuple(state[f"down_blocks.{k}.resnets.0.conv1.weight"].shape[0] for k in range(level_count))
    attends = tuple(f"down_blocks.{k}.attentions.0.group_norm.weight" in state for k in range(level_count))
    sizes: dict[str, Any] = {
        "widths": widths,
        "attends": attends,
        "layer_count": count_of(state, "down_blocks.0.resnets."),
        "learned_variance": state["conv_out.weight"].shape[0] == 6,
        "scale_shift": state["down_blocks.0.resnets.0.time_emb_proj.weight"].shape[0] == 2 * widths[0],
        "middle_norm": "mid_block.attentions.0.group_norm.weight" in state,
        "residual_resampling": "down_blocks.0.downsamplers.0.norm1.weight" in state,
        "image_size": _image_size(original, attends),
    }
    for name, value in FIXED.items():
        if (setting := original.metadata.get(name, value)) != value:
            raise BadInput(
                "models.config_value", file=original.file, name=name, value=setting, expected=value
            )
    if "block_out_channels" in original.metadata:
        defaults = {  # of UNet2DModel, where its config is silent
            "attention_head_dim": 8,
            "downsample_padding": 1,
            "flip_sin_to_cos": True,
            "freq_shift": 0,
            "norm_eps": 1e-5,
            "norm_num_groups": 32,
        }
        settings = {name: original.metadata.get(name, value) for name, value in defaults.items()}
        sizes |= {
            "head_size": settings["attention_head_dim"] or 0,
            "padding": settings["downsample_padding"],
            "cosine_first": settings["flip_sin_to_cos"],
            "frequency_shift": settings["freq_shift"],
            "epsilon": settings["norm_eps"],
            "group_count": settings["norm_num_groups"],
        }
    return DdpmConfig(**sizes), tensors


def _image_size(original: SourceCheckpoint, attends: tuple[bool, ...]) -> int:
    """A picture's side: from the metadata, or from the level with attention, which is at 16 x 16 in Ho et al. 2020."""
    for name in ("image_size", "sample_size", "resolution"):
        if isinstance(side := original.metadata.get(name), int):
            return side
    return 16 * 2 ** attends.index(True) if True in attends else 8 * 2 ** (len(attends) - 1)


# -------------------------------------------------------------------------------------------------------------- original


def _from_original(
    original: SourceCheckpoint, state: dict[str, Tensor]
) -> tuple[DdpmConfig, dict[str, Tensor]]:
    level_count = count_of(state, "down.")
    layer_count = count_of(state, "down.0.block.")
    widths = tuple(state[f"down.{k}.block.0.conv1.weight"].shape[0] for k in range(level_count))
    attends = tuple(f"down.{k}.attn.0.q.weight" in state for k in range(level_count))
    config = DdpmConfig(
        image_size=_image_size(original, attends),
        widths=widths,
        attends=attends,
        layer_count=layer_count,
    )
    parts = {
        r"temb\.dense\.0": "time_embedding.linear_1",
        r"temb\.dense\.1": "time_embedding.linear_2",
        r"norm_out": "conv_norm_out",
        r"mid\.block_1": "mid_block.resnets.0",
        r"mid\.block_2": "mid_block.resnets.1",
        r"mid\.attn_1": "mid_block.attentions.0",
        r"(down|up)\.(\d+)\.block": r"\1_blocks.\2.resnets",
        r"(down|up)\.(\d+)\.attn": r"\1_blocks.\2.attentions",
        r"(down|up)\.(\d+)\.(down|up)sample": r"\1_blocks.\2.\3samplers.0",
    }
    within = {"q": "to_q", "k": "to_k", "v": "to_v", "proj_out": "to_out.0", "norm": "group_norm"}
    tensors: dict[str, Tensor] = {}
    for name, value in state.items():
        for old, new in parts.items():
            name = re.sub(rf"^{old}\.", f"{new}.", name)
        # The finest level comes last on the way up in diffusers, and first here.
        name = re.sub(
            r"^up_blocks\.(\d+)",
            lambda level_match: f"up_blocks.{level_count - 1 - int(level_match[1])}",
            name,
        )
        name = name.replace(".temb_proj.", ".time_emb_proj.").replace(".nin_shortcut.", ".conv_shortcut.")
        if match := re.fullmatch(r"(.*attentions\.\d+\.)(q|k|v|proj_out|norm)(\..*)", name):
            name, value = match[1] + within[match[2]] + match[3], _square(value)
        tensors[f"network.{name}"] = value
    return config, tensors


# ------------------------------------------------------------------------------------------------------------------- ADM


def _from_adm(original: SourceCheckpoint, state: dict[str, Tensor]) -> tuple[DdpmConfig, dict[str, Tensor]]:
    if "label_emb.weight" in state:
        raise BadInput("models.class_labels", file=original.file)
    config = _adm_config(original.metadata, state)
    places = _adm_places(config, state)
    tensors: dict[str, Tensor] = {}
    for name, value in state.items():
        parts = name.split(".")
        depth = 3 if parts[0] in ("input_blocks", "output_blocks") else 2
        module, inner, kind = ".".join(parts[:depth]), ".".join(parts[depth:-1]), parts[-1]
        if module not in places:
            raise BadInput("models.adm_unknown", file=original.file, name=name[:80])
        place = f"network.{places[module]}"
        if inner == "qkv":
            tensors |= _attention(place, kind, value, config, original.metadata)
        elif inner in ("proj_out", "norm"):
            tensors[f"{place}.{'to_out.0' if inner == 'proj_out' else 'group_norm'}.{kind}"] = _square(value)
        elif inner == "op":
            tensors[f"{place}.conv.{kind}"] = value
        elif inner:
            tensors[f"{place}.{RESNET.get(inner, inner)}.{kind}"] = value
        else:
            tensors[f"{place}.{kind}"] = value
    return config, tensors


def _adm_config(numbers: dict[str, Any], state: dict[str, Tensor]) -> DdpmConfig:
    """The config of an ADM, from its tensors and the file's plain values. KeyError when a needed tensor is missing."""
    block_count = count_of(state, "input_blocks.")
    ups = [k for k in range(block_count) if _upsampler(state, k) is not None]
    layer_count = ups[0] if ups else block_count - 1
    if layer_count < 1:
        raise KeyError("input_blocks.1.0.in_layers.0.weight")
    level_count = block_count // (layer_count + 1)
    firsts = [1 + k * (layer_count + 1) for k in range(level_count)]  # the first block of each level
    widths = tuple(state[f"input_blocks.{k}.0.out_layers.3.weight"].shape[0] for k in firsts)
    attends = tuple(f"input_blocks.{k}.1.qkv.weight" in state for k in firsts)
    residual = f"input_blocks.{firsts[-1] - 1}.0.in_layers.0.weight" in state
    head_size = max(numbers.get("num_head_channels", 0), 0)  # -1 where the number of heads counts
    attending = [width for width, yes in zip(widths, attends, strict=True) if yes] + [widths[-1]]
    step_width = state["time_embed.0.weight"].shape[1]
    if not head_size and "num_heads" not in numbers and residual:
        head_size = 0 if any(width % HEAD_SIZE for width in attending) else HEAD_SIZE
    return DdpmConfig(
        image_size=numbers.get("image_size", 8 * 2 ** (level_count - 1)),
        widths=widths,
        attends=attends,
        layer_count=layer_count,
        head_size=head_size,
        head_count=numbers.get("num_heads", HEAD_COUNT),
        epsilon=1e-5,
        scale_shift=state["input_blocks.1.0.emb_layers.1.weight"].shape[0] == 2 * widths[0],
        cosine_first=True,
        frequency_shift=0,
        padding=1,
        residual_resampling=residual,
        learned_variance=state["out.2.weight"].shape[0] == 6,
        step_width=0 if step_width == widths[0] else step_width,  # the first multiplier is 0.5 at 512 px
    )


def _adm_places(config: DdpmConfig, state: dict[str, Tensor]) -> dict[str, str]:
    """ADM's names of modules -> diffusers' names, of its numbered blocks and of the modules outside of blocks."""
    layer_count = config.layer_count
    places = dict(OUTSIDE)
    for level in range(len(config.widths)):
        first = 1 + level * (layer_count + 1)
        for k in range(layer_count):
            places[f"input_blocks.{first + k}.0"] = f"down_blocks.{level}.resnets.{k}"
            places[f"input_blocks.{first + k}.1"] = f"down_blocks.{level}.attentions.{k}"
        places[f"input_blocks.{first + layer_count}.0"] = f"down_blocks.{level}.downsamplers.0"
        for k in range(layer_count + 1):
            block = level * (layer_count + 1) + k
            places[f"output_blocks.{block}.0"] = f"up_blocks.{level}.resnets.{k}"
            places[f"output_blocks.{block}.1"] = f"up_blocks.{level}.attentions.{k}"
            if (part := _upsampler(state, block)) is not None:
                places[f"output_blocks.{block}.{part}"] = f"up_blocks.{level}.upsamplers.0"
    return places | {
        "middle_block.0": "mid_block.resnets.0",
        "middle_block.1": "mid_block.attentions.0",
        "middle_block.2": "mid_block.resnets.1",
    }


def _upsampler(state: dict[str, Tensor], block: int) -> int | None:
    """The index of the part of an output block that doubles the side, 1 or 2; None without one."""
    for part in (1, 2):
        names = (f"output_blocks.{block}.{part}.{module}.weight" for module in ("conv", "in_layers.0"))
        if any(name in state for name in names):
            return part
    return None


def _attention(
    place: str, kind: str, value: Tensor, config: DdpmConfig, numbers: dict[str, Any]
) -> dict[str, Tensor]:
    """Split the joint matrix or bias of queries, keys and values into three tensors, by diffusers' names.

    Rows are ordered by head, then query, key, value; with `use_new_attention_order` in `numbers`, the other way round.
    """
    flat = _square(value)
    width = len(flat) // 3
    heads = width // config.head_size if config.head_size else config.head_count
    if numbers.get("use_new_attention_order"):
        parts = flat.view(3, width, *flat.shape[1:]).unbind(0)
    else:
        parts = flat.view(heads, 3, width // heads, *flat.shape[1:]).unbind(1)
    names = ("to_q", "to_k", "to_v")
    return {
        f"{place}.{name}.{kind}": part.reshape(width, *flat.shape[1:])
        for name, part in zip(names, parts, strict=True)
    }
