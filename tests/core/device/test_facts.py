"""Facts go to JSON and back unchanged, so that any machine's facts can become a test."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bedstone.core.device import backend_names, backends, facts_from_json, facts_to_json
from bedstone.core.device.cuda import CudaFacts, DriverFacts, GpuFacts, MigFacts
from bedstone.core.device.pci import PciDevice


@given(
    st.builds(
        CudaFacts,
        torch_version=st.text(),
        built_archs=st.lists(st.text()).map(tuple),
        environment=st.lists(st.tuples(st.text(), st.text())).map(tuple),
        pci=st.none() | st.lists(st.builds(PciDevice)).map(tuple),
        driver=st.builds(DriverFacts),
        gpus=st.lists(st.builds(GpuFacts, mig=st.lists(st.builds(MigFacts)).map(tuple))).map(tuple),
    )
)
def test_survive_json(facts):
    """Nested facts, tuples, pairs, and `None` where nothing is known."""
    assert facts_from_json(CudaFacts, json.loads(json.dumps(facts_to_json(facts)))) == facts


@pytest.mark.parametrize("name", backend_names())
def test_of_this_machine_survive_json(name):
    """What the backends really return."""
    facts = backends.get(name).probe()
    assert facts_from_json(type(facts), json.loads(json.dumps(facts_to_json(facts)))) == facts


def test_refuse_a_field_that_the_class_lacks():
    """A file of another version is noticed."""
    with pytest.raises(TypeError, match="unexpected keyword argument 'colour'"):
        facts_from_json(GpuFacts, {"index": 0, "colour": "green"})
