"""The collectives of the sharded programs are those that docs/scale.md predicts."""

import pytest
import scale_page
from collectives import collectives, compiled_programs, predicted_effects, predicted_rows

from jaxconf.models.mesh import make_mesh

pytestmark = pytest.mark.usefixtures("compiled_quickly")


def test_devices_send_what_is_predicted() -> None:
    config = scale_page.llama(16, 48, 2, 4, 4, 96)
    texts = compiled_programs(config, scale_page.RUN, make_mesh(2, 4))
    assert collectives(texts["rows"]) == predicted_rows(config, scale_page.RUN, 4)
    found = collectives(texts["effects"])
    assert found == predicted_effects(config, scale_page.RUN, 2, 4)
    assert len(found) == 2


def test_collectives_are_read_from_the_text_of_a_program() -> None:
    text = """
      %a = (f32[3,4]{1,0}, pred[2]{0}) all-reduce(%x, %y), replica_groups={{0,1},{2,3}}, to_apply=%add
      %b = f32[5]{0} all-gather-start(%z), replica_groups={{0,1}}, dimensions={0}
      %alone = f32[7]{0} all-gather(%z), replica_groups={{0},{1}}, dimensions={0}
      %c = f32[9]{0} add(%all-reduce.1, %z)
    """
    assert collectives(text) == {"all-reduce": 50, "all-gather": 20}
