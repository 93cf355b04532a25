"""The network: clips equal single steps, objects are a batch dimension, gradients and compilation."""

import pytest
import torch
from conftest import TINY_MODEL, make_network

from ssvos.config import AttentionConfig, MemoryConfig
from ssvos.models.backbone import Trunk
from ssvos.models.grid import cells_with_stroke
from ssvos.models.matching import cell_keys
from ssvos.models.memory import NUM_READOUTS
from ssvos.models.network import Network


def unlabelled(height: int, width: int, count: int = 1) -> torch.Tensor:
    return torch.full((count, height, width), 255, dtype=torch.uint8)


def scribbles(height: int, width: int, count: int) -> torch.Tensor:
    """Binary scribbles, each with its own horizontal stroke, and a common background stroke."""
    result = unlabelled(height, width, count)
    result[:, -6:-4] = 0
    for k in range(count):
        row = 4 + 9 * k
        result[k, row : row + 2, 3 + 8 * k : 30 + 8 * k] = 1
    return result


def clip(height: int, width: int, length: int = 3, batch: int = 1) -> torch.Tensor:
    return torch.rand(batch, length, 3, height, width, generator=torch.Generator().manual_seed(height + batch))


def stepwise(network: Network, frames: torch.Tensor, scribble: torch.Tensor, image_idx=None):
    """One step per frame, as in inference; logits (N, T, 2, H, W) and coarse logits."""
    height, width = frames.shape[-2:]
    state, fine, coarse = None, [], []
    for t in range(frames.shape[1]):
        trunk = network.encode(frames[:, t])
        if state is None:
            state = network.begin(trunk, scribble, image_idx)
        logits, coarse_logits, state = network.step(trunk, state)
        fine.append(logits[..., :height, :width])
        coarse.append(coarse_logits)
    return torch.stack(fine, 1), torch.stack(coarse, 1)


KINDS = [
    {},
    {"keys": "shared"},
    {"source": "previous", "confident": 0.5},
    {"keys": "shared", "source": "previous", "confident": 0.5},
    {"kind": "non_local"},
    {"kind": "criss_cross"},
    {"kind": "point_wise", "grid": (3, 4)},
    {"kind": "none"},
]


def at_stride(stride: int):
    return TINY_MODEL.backbone.model_copy(update={"stride": stride})


@pytest.mark.parametrize("state", ["coarse", "fine"])
@pytest.mark.parametrize("size", [(48, 64), (45, 59)])
@pytest.mark.parametrize("attention", KINDS)
@pytest.mark.parametrize("stride", [16, 8])
def test_a_clip_equals_its_frames_one_by_one(size, state, attention, stride):
    network = make_network(state=state, attention=AttentionConfig(**attention), backbone=at_stride(stride))
    frames, scribble = clip(*size, batch=2), scribbles(*size, 2)
    with torch.no_grad():
        whole = network(frames, scribble)
        fine, coarse = stepwise(network, frames, scribble)
    assert whole.logits.shape == (2, 3, 2, *size)
    torch.testing.assert_close(whole.logits, fine, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(whole.coarse_logits, coarse, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("attention", [kind for kind in KINDS if kind.get("keys") != "shared"])
def test_several_objects_of_one_image_equal_each_object_alone(attention):
    network = make_network(attention=AttentionConfig(**attention))
    frames, scribble = clip(48, 64), scribbles(48, 64, 3)
    with torch.no_grad():
        together, _ = stepwise(network, frames, scribble, torch.zeros(3, dtype=torch.int64))
        for k in range(3):
            alone, _ = stepwise(network, frames, scribble[k : k + 1])
            torch.testing.assert_close(together[k : k + 1], alone, atol=1e-5, rtol=1e-5)
    assert not torch.allclose(together[0], together[1], atol=1e-3)


def test_image_idx_assigns_objects_to_images():
    network = make_network()
    frames, scribble = clip(48, 64, batch=2), scribbles(48, 64, 3)
    image_idx = torch.tensor([1, 0, 1])
    with torch.no_grad():
        mixed, _ = stepwise(network, frames, scribble, image_idx)
        for k, image in enumerate(image_idx.tolist()):
            alone, _ = stepwise(network, frames[image : image + 1], scribble[k : k + 1])
            torch.testing.assert_close(mixed[k : k + 1], alone, atol=1e-5, rtol=1e-5)


def test_shared_keys_equal_per_object_keys_only_for_a_single_object():
    frames, scribble = clip(48, 64), scribbles(48, 64, 2)
    shared, own = (make_network(attention=AttentionConfig(keys=k)).eval() for k in ("shared", "per_object"))
    with torch.no_grad():
        torch.testing.assert_close(shared(frames, scribble[:1]).logits, own(frames, scribble[:1]).logits)
        both = torch.zeros(2, dtype=torch.int64)
        assert not torch.allclose(
            stepwise(shared, frames, scribble, both)[0], stepwise(own, frames, scribble, both)[0], atol=1e-4
        )


def test_with_shared_keys_the_objects_of_an_image_share_their_features():
    network = make_network(attention=AttentionConfig(keys="shared"))
    trunk, image_idx = network.encode(clip(48, 64)[:, 0]), torch.zeros(2, dtype=torch.int64)
    state = network.begin(trunk, scribbles(48, 64, 2), image_idx)
    assert len(network.attend(trunk, image_idx, state.strokes)) == 1


def test_attention_to_the_previous_frame_uses_its_confident_cells_and_without_any_is_the_identity():
    frames, scribble = clip(48, 64), scribbles(48, 64, 1)
    with torch.no_grad():
        median = float(stepwise(make_network(), frames, scribble)[1][:, 0].softmax(dim=1)[:, 1].median())
        network = make_network(attention=AttentionConfig(source="previous", confident=median))
        trunks = [network.encode(frames[:, t]) for t in range(2)]
        _, _, state = network.step(trunks[0], network.begin(trunks[0], scribble))
        confident = state.mask[0, 1].flatten() >= median
        assert 0 < confident.sum() < confident.numel()
        attended = state.strokes.features[state.strokes.is_stroke]
        torch.testing.assert_close(attended, trunks[0].deep[0].flatten(1).T[confident])
        without = state._replace(strokes=state.strokes._replace(is_stroke=torch.zeros_like(state.strokes.is_stroke)))
        assert torch.equal(network.attend(trunks[1], None, without.strokes), last_layer(network, trunks[1]))
        assert not torch.equal(network.attend(trunks[1], None, state.strokes), last_layer(network, trunks[1]))


SHALLOW = TINY_MODEL.appearance.model_copy(update={"shallow": 6})


@pytest.mark.parametrize("state", ["coarse", "fine"])
@pytest.mark.parametrize("stride", [16, 8])
def test_with_shallow_appearance_a_clip_of_one_object_equals_steps_of_several_objects(state, stride):
    network = make_network(state=state, appearance=SHALLOW, backbone=at_stride(stride))
    frames, scribble = clip(45, 59), scribbles(45, 59, 3)
    with torch.no_grad():
        together, _ = stepwise(network, frames, scribble, torch.zeros(3, dtype=torch.int64))
        for k in range(3):
            whole = network(frames, scribble[k : k + 1]).logits
            torch.testing.assert_close(together[k : k + 1], whole, atol=1e-5, rtol=1e-5)


def test_all_parameters_of_the_shallow_appearance_model_get_a_gradient_from_both_masks():
    """Its scores influence the coarse and the fine mask."""
    network = make_network(appearance=SHALLOW)
    frames = clip(48, 64).requires_grad_()
    prediction = network(frames, scribbles(48, 64, 1))
    for logits in (prediction.logits, prediction.coarse_logits):
        network.zero_grad()
        logits[:, -1].square().sum().backward(retain_graph=True)
        assert all(p.grad.abs().max() > 0 for p in network.shallow_appearance.parameters())
    names = network.state_dict().keys() - make_network().state_dict().keys()
    assert {name.split(".")[0] for name in names} == {"shallow_appearance", "upsampling"}


def network_with_memory(frames: int = 2, **changes) -> Network:
    return make_network(memory=MemoryConfig(frames=frames, interval=2, radius=2, matches=3), **changes)


@pytest.mark.parametrize("state", ["coarse", "fine"])
@pytest.mark.parametrize("stride", [8, 16])
@pytest.mark.parametrize("attention", [{}, {"keys": "shared"}, {"source": "previous", "confident": 0.5}])
def test_with_a_memory_a_clip_equals_its_frames_one_by_one(state, stride, attention):
    network = network_with_memory(2, state=state, attention=AttentionConfig(**attention), backbone=at_stride(stride))
    images, scribble = clip(45, 59, length=5, batch=2), scribbles(45, 59, 2)
    with torch.no_grad():
        whole = network(images, scribble)
        fine, coarse = stepwise(network, images, scribble)
    torch.testing.assert_close(whole.logits, fine, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(whole.coarse_logits, coarse, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("keys", ["per_object", "shared"])
def test_with_a_memory_image_idx_assigns_objects_to_images(keys):
    network = network_with_memory(attention=AttentionConfig(keys=keys))
    frames, scribble = clip(48, 64, batch=2), scribbles(48, 64, 3)
    image_idx = torch.tensor([1, 0, 1])
    with torch.no_grad():
        mixed, _ = stepwise(network, frames, scribble, image_idx)
        for image in range(2):
            on_image = image_idx == image
            alone, _ = stepwise(
                network,
                frames[image : image + 1],
                scribble[on_image],
                torch.zeros(int(on_image.sum()), dtype=torch.int64),
            )
            torch.testing.assert_close(mixed[on_image], alone, atol=1e-4, rtol=1e-4)


def test_the_memory_of_a_long_video_does_not_grow():
    network = network_with_memory(frames=3)
    frames, scribble = clip(48, 64, length=12), scribbles(48, 64, 1)
    sizes = []
    with torch.no_grad():
        state = network.begin(network.encode(frames[:, 0]), scribble)
        for t in range(12):
            _, _, state = network.step(network.encode(frames[:, t]), state)
            sizes.append(sum(frame.keys.numel() + frame.labels.numel() for frame in state.memory.recent))
    assert len(state.memory.recent) == 3 and sizes[-1] == sizes[-4]


def test_a_network_with_a_memory_starts_from_the_labels_that_it_reads():
    """With all other logits off, the coarse mask is four times the classifier's score and the label, as log-odds."""
    network = network_with_memory(backbone=at_stride(8))
    for classify in (network.fusion.classify, network.upsampling.classify):
        torch.nn.init.zeros_(classify.weight)
        torch.nn.init.zeros_(classify.bias)
    images, scribble = clip(48, 64, length=3), scribbles(48, 64, 1)
    state = network.begin(network.encode(images[:, 0]), scribble)
    for t in range(3):
        trunk = network.encode(images[:, t])
        readouts = network.memory.read(cell_keys(trunk, state.memory.statistics), state.memory, None)
        fine, coarse, state = network.step(trunk, state)
        odds = coarse[:, 1] - coarse[:, 0]
        torch.testing.assert_close(odds, 4 * readouts[:, 0] + 4 * readouts[:, 1])
        assert (fine[:, 1] - fine[:, 0]).sign().eq(1).any() and fine.shape[-2:] == (48, 64)


def test_only_the_evidence_and_the_fusion_have_parameters_of_the_memory():
    without, network = make_network(), network_with_memory()
    names = network.state_dict().keys() - without.state_dict().keys()
    assert names == {"fusion.evidence.weight", "fusion.evidence.bias"}
    assert network.fusion.join.in_channels == without.fusion.join.in_channels + NUM_READOUTS
    network(clip(48, 64), scribbles(48, 64, 1)).logits[:, -1].square().sum().backward()
    assert network.fusion.evidence.weight.grad.abs().max() > 0


def last_layer(network: Network, trunk: Trunk) -> torch.Tensor:
    return network.backbone.layer4(trunk.deep)


def test_at_stride_8_the_coarse_mask_has_four_times_the_cells_and_strokes_are_finer():
    network = make_network(backbone=at_stride(8))
    assert network(clip(48, 64), scribbles(48, 64, 1)).coarse_logits.shape[-2:] == (6, 8)
    assert cells_with_stroke(scribbles(48, 64, 1), 8).sum() < cells_with_stroke(scribbles(48, 64, 1), 16).sum() * 4
    torch.testing.assert_close(
        torch.nn.functional.avg_pool2d(cells_with_stroke(scribbles(48, 64, 1), 8).float(), 2) > 0,
        cells_with_stroke(scribbles(48, 64, 1), 16),
    )


def test_the_padding_of_a_scribble_is_unlabelled():
    network = make_network()
    frames, scribble = clip(45, 59), scribbles(45, 59, 1)
    padded = unlabelled(48, 64)
    padded[:, :45, :59] = scribble
    trunk = network.encode(frames[:, 0])
    odd, even = network.begin(trunk, scribble), network.begin(trunk, padded)
    for a, b in zip(
        (*odd.strokes, *odd.gaussians, *odd[3:5]), (*even.strokes, *even.gaussians, *even[3:5]), strict=True
    ):
        assert torch.equal(a, b)


def test_frames_are_padded_by_reflection():
    network = make_network()
    frames = clip(45, 59)[:, 0]
    whole = torch.cat([frames, frames[..., -4:-1, :].flip(-2)], dim=-2)
    whole = torch.cat([whole, whole[..., -6:-1].flip(-1)], dim=-1)
    for odd, even in zip(network.encode(frames), network.encode(whole), strict=True):
        torch.testing.assert_close(odd, even)


def test_clips_of_a_batch_do_not_influence_each_other():
    network = make_network()
    frames, scribble = clip(48, 64, batch=2), scribbles(48, 64, 2)
    with torch.no_grad():
        both = network(frames, scribble).logits
        torch.testing.assert_close(both[1:], network(frames[1:], scribble[1:]).logits, atol=1e-5, rtol=1e-5)


def test_a_frame_influences_later_frames_and_not_earlier_ones():
    network = make_network()
    frames, scribble = clip(48, 64, length=4), scribbles(48, 64, 1)
    changed = frames.clone()
    changed[:, 2] = 1 - changed[:, 2]
    with torch.no_grad():
        before, after = network(frames, scribble).logits, network(changed, scribble).logits
    torch.testing.assert_close(before[:, :2], after[:, :2])
    assert not torch.allclose(before[:, 3], after[:, 3], atol=1e-4)


@pytest.mark.parametrize("carrier", ["mask", "appearance"])
def test_gradients_flow_through_the_recurrence_to_earlier_frames(carrier):
    """Frame 1 influences frame 2 through the previous mask and through the Gaussians: each without the other."""
    appearance = TINY_MODEL.appearance
    if carrier == "mask":
        appearance = appearance.model_copy(update={"update_rate": 0.0})
    network = make_network(appearance=appearance)
    if carrier == "appearance":
        with torch.no_grad():
            network.propagation.reduce.weight[:, -4:-2] = 0
    frames = clip(48, 64).requires_grad_()
    network(frames, scribbles(48, 64, 1)).logits[:, 2].square().sum().backward()
    assert all(frames.grad[:, t].abs().max() > 0 for t in range(3))


@pytest.mark.parametrize("frames", [0, 2])
@pytest.mark.parametrize("label", [0, 1, 255])
def test_a_scribble_with_only_one_label_gives_finite_predictions_and_gradients(label, frames):
    network = make_network(memory=MemoryConfig(frames=frames))
    scribble = torch.full((1, 48, 64), label, dtype=torch.uint8)
    prediction = network(clip(48, 64), scribble)
    prediction.logits.square().mean().backward()
    assert torch.isfinite(prediction.logits).all()
    assert all(torch.isfinite(p.grad).all() for p in network.parameters() if p.grad is not None)


def test_attention_with_scale_zero_equals_no_attention():
    with_attention, without = make_network(), make_network(attention=AttentionConfig(kind="none"))
    torch.nn.init.zeros_(with_attention.attention.scale)
    without.load_state_dict({k: v for k, v in with_attention.state_dict().items() if not k.startswith("attention.")})
    frames, scribble = clip(48, 64), scribbles(48, 64, 1)
    with torch.no_grad():
        torch.testing.assert_close(with_attention(frames, scribble).logits, without(frames, scribble).logits)


def test_the_random_weights_depend_only_on_the_seed():
    first, again, other = (make_network(seed).state_dict() for seed in (3, 3, 4))
    assert all(torch.equal(value, again[key]) for key, value in first.items())
    assert any(not torch.equal(value, other[key]) for key, value in first.items())


def test_a_frozen_backbone_still_trains_layer4_and_the_heads():
    backbone = TINY_MODEL.backbone.model_copy(update={"frozen": True})
    network = make_network(backbone=backbone)
    network(clip(48, 64), scribbles(48, 64, 1)).logits.square().sum().backward()
    frozen = {n.split(".")[1] for n, p in network.named_parameters() if p.grad is None}
    assert frozen == {"conv1", "bn1", "layer1", "layer2", "layer3"}


def test_encode_returns_backbone_features_at_strides_4_8_16_and_the_frame_at_stride_4():
    trunk = make_network().encode(clip(45, 59)[:, 0])
    assert isinstance(trunk, Trunk)
    assert [tuple(f.shape[-2:]) for f in trunk] == [(12, 16), (6, 8), (3, 4), (12, 16)]


@pytest.mark.slow
@pytest.mark.parametrize("attention", [{}, {"source": "previous"}, {"kind": "criss_cross"}])
def test_a_compiled_step_is_one_graph_for_all_frames(attention):
    """`fullgraph` makes a graph break an error; later frames of the same video must not compile again."""
    torch._dynamo.reset()
    graphs = []
    network = make_network(attention=AttentionConfig(**attention)).eval()
    step = torch.compile(network.step, backend=lambda graph, _: graphs.append(graph) or graph, fullgraph=True)
    frames, both = clip(48, 64, length=4), torch.zeros(2, dtype=torch.int64)
    with torch.no_grad():
        state = network.begin(network.encode(frames[:, 0]), scribbles(48, 64, 2), both)
        num_graphs = []
        for t in range(4):
            _, _, state = step(network.encode(frames[:, t]), state)
            num_graphs.append(len(graphs))
    # with attention to the previous frame, the strokes of the first frame have a shape of their own
    assert num_graphs == ([1, 2, 2, 2] if attention.get("source") == "previous" else [1, 1, 1, 1])


@pytest.mark.slow
def test_a_compiled_clip_is_one_graph_for_any_strokes():
    torch._dynamo.reset()
    graphs = []
    network = make_network()
    compiled = torch.compile(network, backend=lambda graph, _: graphs.append(graph) or graph, fullgraph=True)
    short = scribbles(48, 64, 1)
    short[short == 1], short[:, 20, 20:24] = 255, 1
    for scribble in (scribbles(48, 64, 1), short):
        logits = compiled(clip(48, 64), scribble).logits
        torch.testing.assert_close(logits, network(clip(48, 64), scribble).logits, atol=1e-5, rtol=1e-5)
    assert len(graphs) == 1


@pytest.mark.parametrize("shallow", [0, 6])
@pytest.mark.parametrize("frames", [0, 2])
def test_in_bfloat16_the_gaussians_stay_in_single_precision_and_the_masks_are_close(shallow, frames):
    appearance = TINY_MODEL.appearance.model_copy(update={"shallow": shallow})
    network = make_network(appearance=appearance, memory=MemoryConfig(frames=frames))
    images, scribble = clip(48, 64), scribbles(48, 64, 1)
    exact = network(images, scribble).logits
    with torch.autocast("cpu", torch.bfloat16):
        logits = network(images, scribble).logits
        state = network.begin(network.encode(images[:, 0]), scribble)
    assert logits.dtype == torch.bfloat16 and state.gaussians.variance.dtype == torch.float32
    difference = (logits.float().softmax(dim=2) - exact.softmax(dim=2)).abs()
    assert 0 < difference.max() < 0.1
    logits.float().square().mean().backward()
    assert all(torch.isfinite(p.grad).all() for p in network.parameters() if p.grad is not None)
