"""The pages on study files say what the code does."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
import torch
from pydantic import BaseModel

from searchae import models
from searchae.config import loader, schema, space
from searchae.config.section import jsonable

DOCS = Path(__file__).parents[2] / "docs"
PAGE = (DOCS / "reference" / "study-file.md").read_text()
HOW_TO = (DOCS / "how-to" / "study-file.md").read_text()
SECTIONS: dict[str, type[BaseModel]] = {**schema.SECTIONS, "A layer": schema.Layer}


@pytest.mark.parametrize("heading", SECTIONS)
def test_every_key_of_a_section_is_described_and_no_other(heading: str) -> None:
    title = heading if heading == "A layer" else f"[{heading}]"
    section = PAGE.split(f"## {title}\n")[1].split("\n#")[0]
    keys = re.findall(r"^\| `(\w+)` \|", section, flags=re.M)
    assert keys == list(SECTIONS[heading].model_fields)


def test_every_default_is_the_codes() -> None:
    differing = {"min_epochs", "reduction_factor", "startup_trials"}  # they depend on other keys
    for heading, model in SECTIONS.items():
        title = heading if heading == "A layer" else f"[{heading}]"
        section = PAGE.split(f"## {title}\n")[1].split("\n#")[0]
        for key, cell in re.findall(r"^\| `(\w+)` \| *([^|]*?) *\|", section, flags=re.M):
            field = model.model_fields[key]
            written = "" if cell == "none" else cell.strip("`")
            if field.is_required():
                assert written == "required", key
            elif key not in differing:
                default = jsonable(field.get_default())
                assert written == ("" if default in (None, {}) else json.dumps(default)), key


def test_its_examples_are_studies_that_can_be_read(tmp_path: Path) -> None:
    blocks = [
        re.sub(r"^   ", "", b, flags=re.M) for b in re.findall(r"```toml\n(.*?)```", HOW_TO, re.S)
    ]
    (tmp_path / "template.toml").write_text(blocks[0])
    template = loader.load_study_file(tmp_path / "template.toml", environment={})
    assert len(template.search.first) == 1
    whole = next(b for b in blocks if b.startswith("[data]"))
    (tmp_path / "one.toml").write_text(whole)
    one = loader.load_study_file(tmp_path / "one.toml", environment={})
    assert one.space == ()
    searched = next(b for b in blocks if b.startswith("activation = {"))
    keys = [line.split(" = ")[0] for line in searched.splitlines()]
    sections = {k: "model" if k == "activation" else "train" for k in keys}
    kept = [line for line in whole.splitlines() if line.split(" = ")[0] not in keys]
    for key, line in zip(keys, searched.splitlines(), strict=True):
        kept.insert(kept.index(f"[{sections[key]}]") + 1, line)
    (tmp_path / "two.toml").write_text("\n".join(kept))
    two = loader.load_study_file(tmp_path / "two.toml", environment={})
    assert sorted(p.name for p in two.space) == sorted(keys)
    layers = next(b for b in blocks if "encoder = [" in b)
    (tmp_path / "three.toml").write_text('[data]\nname = "svhn"\n' + layers)
    three = loader.load_study_file(tmp_path / "three.toml", environment={})
    net = models.build_model(space.model_variants(three)[0].model, image_shape=(3, 32, 32))
    assert net(torch.rand(2, 3, 32, 32)).shape == (2, 3, 32, 32)
