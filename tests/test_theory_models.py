"""Known models: what follows from their layer structure, worked out by hand. Nothing is quoted from the papers."""

import pytest

from fastdil.theory import (
    cost,
    coverage,
    known_model,
    known_models,
    receptive_field,
    receptive_field_graph,
    receptive_fields,
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
        ("espnet-module", (33, 33), (1, 1)),  # (3 - 1) 2**(K - 1) + 1, K = 5
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


def test_context_module_computed_layer_by_layer():
    sizes = [found.size[0] for found in receptive_fields(known_model("context-module").design)]
    assert sizes == [3, 5, 9, 17, 33, 65, 67, 67]


def test_large_kernel_attention_weights_computed_from_its_layers():
    assert cost(known_model("van-lka").design, (32, 56, 56)).parameters == 3392  # 32 channels, K = 21


def test_hdc_group_has_no_holes():
    assert coverage(known_model("hdc-resnet-group").design).fraction == 1


def test_unknown_model():
    with pytest.raises(ValueError, match="name='resnet': expected one of wavenet-cycle"):
        known_model("resnet")
