"""The plugin's desk adapts its model beside the work, stops when told to, and goes back; without Qt."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import plugin_scene as scene
import pytest
import torch
from napari.layers import Image

from napari_ivos.adapting import adaptation
from napari_ivos.networks import weights
from napari_ivos.networks.blocks import Architecture
from napari_ivos.plugin.state import reasons

if TYPE_CHECKING:
    from napari_ivos.plugin.desk import Desk

SMALL = Architecture(size=64, width=16, fine_width=8, key=8)


@pytest.fixture(scope="module")
def blob() -> bytes:
    """The file of a small model with fresh weights."""
    torch.manual_seed(0)
    return weights.to_bytes(*weights.new_networks(SMALL), SMALL, name="small")


@pytest.fixture
def make_desk(blob, desks, monkeypatch):
    """Makes desks with the small model and a project."""
    monkeypatch.setattr(adaptation, "OBJECTS_READ", 8)
    return lambda path: desks(path=path, model=weights.load_bytes(blob, "small", "cpu"))


def annotated(desk: Desk) -> Desk:
    """The desk, with the bright square painted on one frame."""
    if not desk.session.objects:
        desk.add_object()
        desk.wait()
    desk.session.annotate(2, scene.square(2), objects=[desk.session.objects[0].id])
    return desk


def adapted(desk: Desk) -> Desk:
    """The desk, after a step of adapting."""
    desk.adapting.start(desk.session, seconds=1e-6)
    desk.wait()
    return desk


def test_the_desk_adapts_says_so_and_goes_back(make_desk, tmp_path):
    """Adapting ends with another model in use and in the project; the way back with the first one and none kept."""
    desk = annotated(make_desk(tmp_path / "a.ivos"))
    first, progress = desk.model, []
    desk.progressed.connect(progress.append)
    assert reasons(desk.state(True))["drop_adapted"]
    adapted(desk)
    assert desk.model.name == desk.session.model.name == "small, adapted"
    assert desk.session.adapted.checksum == desk.model.checksum
    assert any("Learned from" in text for _, text in desk.said)
    assert {p.kind for p in progress if p is not None} >= {"adapt"}
    assert progress[-1] is None
    assert not reasons(desk.state(True))["drop_adapted"]
    desk.drop_adapted()
    desk.wait()
    assert desk.model is desk.session.model is first
    assert desk.session.adapted is None


def test_stopped_it_leaves_the_model_as_it_was(make_desk, tmp_path):
    """Told to stop before its first step, adapting ends without a change, and says so."""
    desk = annotated(make_desk(tmp_path / "a.ivos"))
    first = desk.model
    desk.adapt()
    assert desk.state(True).running == "adapt"
    for job in desk.adapting.engine.jobs:
        job.stop.set()
    desk.wait()
    assert desk.model is desk.session.model is first
    assert desk.session.adapted is None
    assert "Stopped: the model is as it was." in [text for _, text in desk.said]


def test_a_project_opened_again_has_its_adapted_weights_and_another_stack_does_not(make_desk, tmp_path):
    """The weights come with the project; the next project begins with the model that everybody has."""
    desk = adapted(annotated(make_desk(tmp_path / "a.ivos")))
    checksum, plain = desk.model.checksum, desk.adapting.plain
    desk.close()
    again = make_desk(tmp_path / "a.ivos")
    assert again.session.model.checksum == checksum
    assert any("adapted to this stack are in use" in text for _, text in again.said)
    other = again.viewer.add_layer(Image(np.ascontiguousarray(scene.movie()[:, ::-1]), name="other"))
    again.start(other, path=tmp_path / "b.ivos")
    again.wait()
    assert again.session.model.checksum == plain.checksum
    assert again.session.adapted is None


def test_frames_that_are_right_are_learned_from_too(make_desk, tmp_path, monkeypatch):
    """Accepted frames reach the training, are told in the state, can be taken back, and stay with the project."""
    desk = annotated(make_desk(tmp_path / "a.ivos"))
    assert "Propagate first" in reasons(desk.state(True))["accept_frame"]
    desk.go_to(2)
    desk.handle()
    desk._sync()
    assert "counts as right already" in reasons(desk.state(True))["accept_frame"]
    desk.propagate()
    desk.wait()
    desk.accept_frame(5)
    desk.accept_frame(3)
    desk.accept_frame(3, accepted=False)
    desk.go_to(5)
    assert desk.on_accepted
    assert not reasons(desk.state(True))["accept_frame"]
    taught = []
    material = adaptation.Material
    monkeypatch.setattr(adaptation, "Material", lambda *given: taught.append(given[2]) or material(*given))
    adapted(desk)
    assert taught == [{5}]
    desk.close()
    assert make_desk(tmp_path / "a.ivos").review.accepted == {5}


def test_with_nothing_annotated_the_reason_is_shown(make_desk, tmp_path):
    """The button is disabled with a reason, and the call says what is missing."""
    desk = make_desk(tmp_path / "a.ivos")
    assert reasons(desk.state(True))["adapt"] == "Annotate some frames first."
    desk.adapt()
    desk.wait()
    assert any("nothing to adapt to" in text for _, text in desk.said)
