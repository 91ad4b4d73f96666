"""Known models: the figures that their papers state, and fields worked out by hand where a paper states none."""

from fractions import Fraction

import pytest

from fastdil.theory import (
    Layer,
    cost,
    coverage,
    effective_kernel_size,
    hdc_check,
    known_model,
    known_models,
    receptive_field,
    receptive_field_graph,
    receptive_fields,
    tap_positions,
    valid_tap_fraction,
)


def field(name):
    design = known_model(name).design
    return receptive_field_graph(design) if isinstance(design, dict) else receptive_field(design)


@pytest.mark.parametrize(
    ("name", "size", "stride"),
    [
        ("wavenet-cycle", 1024, 1),
        ("wavenet", 3070, 1),
        ("tcn", 3061, 1),
        ("conv-tasnet", 12256, 8),  # 16 + 8 * 3 * 2 * 255: 1.53 s at 8 kHz
        ("bpnet", 2069, 1),
        ("spliceai", 10001, 1),
        ("deeplab-aspp", (37, 37), (1, 1)),
        ("context-module", (67, 67), (1, 1)),
        ("hdc-resnet-group", (13, 13), (1, 1)),  # 1 + 2 (1 + 2 + 3)
        ("espnet-module", (33, 33), (1, 1)),
        ("van-lka", (23, 23), (1, 1)),
        ("starlet", 125, 1),  # 1 + 4 (2**5 - 1)
        ("vgg16", (212, 212), (32, 32)),
    ],
)
def test_field_computed_from_the_layer_structure(name, size, stride):
    assert field(name)[:2] == (size, stride)


def test_every_model_has_a_source():
    for name in known_models():
        model = known_model(name)
        assert model.name == name
        assert ", 20" in model.source
        assert model.note.endswith(".")
        field(name)


# ---------------------------------------------------------------------------------------------------------
# what the papers say
# ---------------------------------------------------------------------------------------------------------


def test_wavenet():
    """Section 2.1: "each 1, 2, 4, ..., 512 block has receptive field of size 1024"."""
    assert field("wavenet-cycle").size == 1024
    assert known_model("wavenet").design == known_model("wavenet-cycle").design * 3


def test_tcn():
    """Section 3.3: the history of a layer is (k - 1) d. Tables 1 and 2: k = 7, 8 levels, 25 channels, 70K weights."""
    stack = known_model("tcn").design
    assert [layer.axes(1)[0].reach for layer in stack] == [6 * 2**level for level in range(8) for _ in range(2)]
    assert all(receptive_field([layer]).start == -6 * layer.dilation for layer in stack)
    assert round(cost(stack, (1, 784), bias=True).parameters, -4) == 70_000


def test_conv_tasnet():
    """Table II, the row of N=512, L=16, B=128, H=512, P=3, X=8, R=3: a receptive field of 1.53 s, at 8 kHz."""
    assert round(field("conv-tasnet").size / 8000, 2) == 1.53


def test_bpnet():
    """Methods: "a receptive field of +/-1034 bp for any position"."""
    found = field("bpnet")
    assert (found.start, found.start + found.size - 1) == (-1034, 1034)


def test_spliceai():
    """SpliceAI-10k looks at 5,000 nucleotides on each side."""
    found = field("spliceai")
    assert (found.start, found.start + found.size - 1) == (-5000, 5000)


def test_aspp():
    """Section 3.3: rates close to the map's size leave a simple 1 x 1 filter; figure 4 has a map of 65 x 65."""
    rates = [layer.dilation for layer, _ in known_model("deeplab-aspp").design.values() if isinstance(layer, Layer)]
    assert rates == [1, 6, 12, 18, 1]
    assert effective_kernel_size(3, 6) == 3 + (3 - 1) * (6 - 1)  # DeepLabv2, section 3.1: k + (k - 1)(r - 1)
    assert valid_tap_fraction((65, 65), 3, 65, padding="same") == (Fraction(1, 3),) * 2
    assert valid_tap_fraction(65, 3, 64, padding="same") > Fraction(1, 3)


def test_context_module():
    """Table 1, the row "Receptive field"."""
    sizes = [found.size for found in receptive_fields(known_model("context-module").design)]
    assert sizes == [(n, n) for n in (3, 5, 9, 17, 33, 65, 67, 67)]


def test_hdc():
    """Section 3.2 and figure 2: rates 2, 2, 2 see a grid, 1, 2, 3 all; M_2 of [1, 2, 5] is 2, of [1, 2, 9] 5."""
    group = known_model("hdc-resnet-group").design
    assert coverage(group).fraction == 1
    gridded = coverage([Layer((3, 3), dilation=2)] * 3)
    assert gridded.size == field("hdc-resnet-group").size == (13, 13)
    assert gridded.fraction == Fraction(49, 169)  # "at least 75 %" are lost only in the limit: here 71 %
    assert [hdc_check(rates, 3) for rates in ([1, 2, 5], [1, 2, 9])] == [(True, 2), (False, 5)]


def test_espnet():
    """Section 3.1: a field of (n - 1) 2**(K - 1) + 1, and M N / K + (n N)**2 / K weights."""
    n, branches, channels = 3, 5, 100
    assert field("espnet-module").size == ((n - 1) * 2 ** (branches - 1) + 1,) * 2
    weights = channels**2 // branches + (n * channels) ** 2 // branches
    assert cost(known_model("espnet-module").design, (channels, 64, 64)).parameters == weights


def test_large_kernel_attention():
    """The numbers of weights in its table follow C ((K / d)**2 + (2 d - 1)**2 + 3 + C), three biases per channel."""
    (channels, size, rate), shape = (32, 21, 3), (32, 56, 56)
    weights = channels * ((size // rate) ** 2 + (2 * rate - 1) ** 2 + 3 + channels)
    assert cost(known_model("van-lka").design, shape, bias=True).parameters == weights == 3488
    assert cost([Layer((size, size), padding="same")], shape).parameters == 451_584  # the convolution it stands for
    assert field("van-lka").size == (23, 23)  # not 21: (5 - 1) + 3 (7 - 1) + 1


def test_starlet():
    """h^(j) has the taps of h where l / 2**j is an integer, and is 0 between."""
    for scale, layer in enumerate(known_model("starlet").design):
        assert tap_positions(0, layer.kernel_size, layer.dilation) == tuple(2**scale * tap for tap in range(5))


def test_unknown_model():
    with pytest.raises(ValueError, match="name='resnet': expected one of wavenet-cycle"):
        known_model("resnet")
