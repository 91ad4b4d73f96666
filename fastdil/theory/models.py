"""Known models as ready designs, each with the paper that describes its layers.

The figures that the papers state about them are in the notes; the tests work them out from the layers.
"""

from __future__ import annotations

from typing import Any, NamedTuple

from fastdil.errors import bad_value
from fastdil.theory.layers import Layer, Pool


class KnownModel(NamedTuple):
    """A model from the literature.

    Attributes
    ----------
    name : str
        As in `known_models`.
    design : tuple of layers, or dict of nodes
        For `receptive_field`, `cost` and the others; a dict is a graph, for `receptive_field_graph`, `cost` and
        `compare`.
    source : str
        The paper.
    note : str
        What is modelled, what is left out, and what the paper states about it.
    """

    name: str
    design: Any
    source: str
    note: str


def _doubling(kernel: int, depth: int, **options: Any) -> tuple[Layer, ...]:
    return tuple(Layer(kernel, dilation=2**level, **options) for level in range(depth))


def _wavenet(cycles: int) -> tuple[Layer, ...]:
    return _doubling(2, 10, padding="causal") * cycles


def _tcn() -> tuple[Layer, ...]:
    return tuple(Layer(7, 2**level, padding="causal", out_channels=25) for level in range(8) for _ in range(2))


def _conv_tasnet() -> tuple[Layer, ...]:
    blocks = tuple(
        layer
        for level in range(8)
        for layer in (
            Layer(1, in_channels=128, out_channels=512),
            Layer(3, dilation=2**level, padding="same", in_channels=512, out_channels=512, groups=512),
            Layer(1, in_channels=512, out_channels=128),
        )
    )
    encoder = (Layer(16, stride=8, out_channels=512), Layer(1, in_channels=512, out_channels=128))
    return encoder + blocks * 3


def _bpnet() -> tuple[Layer, ...]:
    first = Layer(25, padding="same", in_channels=4, out_channels=64)
    rest = (Layer(3, dilation=2**level, padding="same", in_channels=64, out_channels=64) for level in range(1, 10))
    return (first, *rest)


def _spliceai() -> tuple[Layer, ...]:
    first = Layer(1, in_channels=4, out_channels=32)
    blocks = ((11, 1), (11, 4), (21, 10), (41, 25))
    rest = (Layer(k, dilation=d, padding="same", out_channels=32) for k, d in blocks for _ in range(8))
    return (first, *rest)


def _aspp() -> dict[str, tuple[Any, Any]]:
    point = Layer((1, 1), out_channels=256)
    nodes: dict[str, tuple[Any, Any]] = {"1x1": (point, "input")}
    for rate in (6, 12, 18):
        nodes[f"rate {rate}"] = (Layer((3, 3), dilation=rate, padding="same", out_channels=256), "input")
    return {**nodes, "all": ("concat", list(nodes)), "project": (point, "all")}


def _context() -> tuple[Layer, ...]:
    layers = (Layer((3, 3), dilation=d, padding="same") for d in (1, 1, 2, 4, 8, 16, 1))
    return (*layers, Layer((1, 1)))


def _hdc_stage() -> tuple[Layer, ...]:
    def block(rate: int, inputs: int, width: int) -> tuple[Layer, ...]:
        reduce = Layer((1, 1), in_channels=inputs, out_channels=width)
        middle = Layer((3, 3), dilation=rate, padding="same", in_channels=width, out_channels=width)
        return reduce, middle, Layer((1, 1), in_channels=width, out_channels=4 * width)

    return tuple(layer for rate in (1, 2, 3) for layer in block(rate, 1024, 256))


def _esp() -> dict[str, tuple[Any, Any]]:
    """Branches of 3 x 3 at rates 1, 2, 4, 8, 16, added up one after the other (hierarchical feature fusion)."""
    width = 20
    nodes: dict[str, tuple[Any, Any]] = {"reduce": (Layer((1, 1), in_channels=5 * width, out_channels=width), "input")}
    for level in range(5):
        nodes[f"d{2**level}"] = (Layer((3, 3), dilation=2**level, padding="same"), "reduce")
    sums = ["d1"]
    for level in range(1, 5):
        before = sums[-1]
        sums.append(f"sum{2**level}")
        nodes[sums[-1]] = ("add", [before, f"d{2**level}"])
    nodes["fused"] = ("concat", sums)
    return {**nodes, "out": ("add", ["fused", "input"])}


def _large_kernel_attention() -> tuple[Layer, ...]:
    near = Layer((5, 5), padding="same", in_channels=32, groups=32)
    far = Layer((7, 7), dilation=3, padding="same", in_channels=32, groups=32)
    return near, far, Layer((1, 1), in_channels=32)


def _vgg16() -> tuple[Any, ...]:
    layers: list[Any] = []
    for repeats, width in ((2, 64), (2, 128), (3, 256), (3, 512), (3, 512)):
        layers += [Layer((3, 3), padding="same", out_channels=width)] * repeats + [Pool((2, 2))]
    return tuple(layers)


_TABLE = {
    "wavenet-cycle": (
        lambda: _wavenet(1),
        "van den Oord et al., WaveNet: a generative model for raw audio, 2016",
        "One cycle of dilations 1 to 512, kernel 2, causal. Stated: a receptive field of 1024 (section 2.1).",
    ),
    "wavenet": (
        lambda: _wavenet(3),
        "van den Oord et al., WaveNet: a generative model for raw audio, 2016",
        "Three cycles of ten layers; gates and 1 x 1 layers see nothing more.",
    ),
    "tcn": (
        _tcn,
        "Bai, Kolter and Koltun, An empirical evaluation of generic convolutional and recurrent networks for sequence "
        "modeling, 2018",
        "For sequential MNIST: kernel 7, 8 levels of two causal convolutions, 25 channels; without residuals. Stated: "
        "(k - 1) d samples of history per layer (section 3.3), 70 thousand weights (table 1).",
    ),
    "conv-tasnet": (
        _conv_tasnet,
        "Luo and Mesgarani, Conv-TasNet: surpassing ideal time-frequency magnitude masking for speech separation, 2019",
        "Encoder L=16, stride 8, then the separator's R=3 cycles of X=8 blocks, P=3, N=512, B=128, H=512; without skip "
        "paths, masks and decoder. Stated: 1.53 s at 8 kHz (table II).",
    ),
    "bpnet": (
        _bpnet,
        "Avsec et al., Base-resolution models of transcription-factor binding reveal soft motif syntax, 2021",
        "The body: kernel 25, then nine layers of kernel 3, dilations 2 to 512, 64 channels; without the output "
        "heads. Stated: +/- 1034 bp (Methods).",
    ),
    "spliceai": (
        _spliceai,
        "Jaganathan et al., Predicting splicing from primary sequence with deep learning, 2019",
        "SpliceAI-10k: the residual blocks of two convolutions, 32 channels; without skips and the output layer. "
        "Stated: 10,000 nucleotides of context, 5,000 on each side.",
    ),
    "deeplab-aspp": (
        _aspp,
        "Chen et al., Rethinking atrous convolution for semantic image segmentation, 2017",
        "Rates 6, 12, 18 beside 1 x 1, 256 channels each, and the projection; without image pooling. Stated: a "
        "rate as wide as the map leaves a 1 x 1 filter (section 3.3).",
    ),
    "context-module": (
        _context,
        "Yu and Koltun, Multi-scale context aggregation by dilated convolutions, 2016",
        "The basic module: seven 3 x 3 layers and one 1 x 1, as many channels as come in. Stated: 3, 5, 9, 17, 33, "
        "65, 67, 67 (table 1).",
    ),
    "hdc-resnet-group": (
        _hdc_stage,
        "Wang et al., Understanding convolution for semantic segmentation, 2018",
        "Three bottleneck blocks of ResNet-101's fourth stage with rates 1, 2, 3; residuals see nothing more. "
        "Stated: no holes, where 2, 2, 2 has them (figure 2).",
    ),
    "espnet-module": (
        _esp,
        "Mehta et al., ESPNet: efficient spatial pyramid of dilated convolutions for semantic segmentation, 2018",
        "One ESP module, K=5 branches of 20 channels, with hierarchical feature fusion and residual. Stated: "
        "(n - 1) 2**(K - 1) + 1 pixels, M N / K + (n N)**2 / K weights (section 3.1).",
    ),
    "van-lka": (
        _large_kernel_attention,
        "Guo et al., Visual attention network, 2022",
        "Large kernel attention for K=21, d=3 on 32 channels, without the final product. Stated: 3,488 weights, with "
        "biases, for a kernel of 21 x 21; its exact field is 23.",
    ),
    "starlet": (
        lambda: _doubling(5, 5),
        "Starck, Murtagh and Bertero, Starlet transform in astronomical data processing, 2011",
        "The a trous smoothing of five scales with the B3 spline, one axis. Stated: 2**j - 1 zeros between the taps of "
        "scale j.",
    ),
    "vgg16": (
        _vgg16,
        "Simonyan and Zisserman, Very deep convolutional networks for large-scale image recognition, 2015",
        "The thirteen convolutions and five poolings.",
    ),
}


def known_models() -> tuple[str, ...]:
    """Names of the models that `known_model` builds.

    Examples
    --------
    >>> "wavenet" in known_models()
    True
    """
    return tuple(_TABLE)


def known_model(name: str) -> KnownModel:
    """A model from the literature, ready for analysis.

    Parameters
    ----------
    name : str
        One of `known_models`.

    Returns
    -------
    KnownModel
        Its layers or nodes, and its source.

    Raises
    ------
    ValueError
        If there is no such model.

    Examples
    --------
    >>> from fastdil.theory import receptive_field
    >>> receptive_field(known_model("wavenet").design).size
    3070
    >>> known_model("context-module").source
    'Yu and Koltun, Multi-scale context aggregation by dilated convolutions, 2016'
    """
    if not isinstance(name, str) or name not in _TABLE:
        raise bad_value("name", name, f"one of {', '.join(_TABLE)}")
    build, source, note = _TABLE[name]
    return KnownModel(name, build(), source, note)
