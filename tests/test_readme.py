"""What the README shows works."""

import re
import sys
import types
from pathlib import Path

from stream_infer.core.topology import Topology

README = (Path(__file__).parent.parent / "README.md").read_text()


def test_the_topology_of_the_readme_can_be_declared_in_under_forty_lines() -> None:
    code = re.findall(r"```python\n(.*?)```", README, re.DOTALL)[0]
    assert len(code.splitlines()) < 40
    module = sys.modules["readme_topology"] = types.ModuleType("readme_topology")
    exec(compile(code, "README.md", "exec"), module.__dict__)
    topology = module.topology
    assert isinstance(topology, Topology)
    assert topology.vector_names(None) == (
        "amount",
        "by_account__payments_5m",
        "by_account__amount_mean_7d",
        "by_account__since_last_s",
    )
    assert module.app.conf.id == "stream-infer.checkout"


def test_what_the_readme_links_to_exists() -> None:
    for target in re.findall(r"\]\((?!http)([^)#]+)\)", README):
        assert (Path(__file__).parent.parent / target).exists(), target
