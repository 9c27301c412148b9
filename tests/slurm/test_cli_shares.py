"""Slurm's shares as weights, from texts as sshare prints them."""

import pytest

from colocd.slurm.shares import LEAST, MOST, weights

TREE = """root||
 root|root|1
 arts||1
  arts|games|2
  arts|news|parent
 science||3
  science|daemon|4
  science|games|1
  science|bin|0
  bio||5
   bio|mail|1
"""


def test_each_user_has_the_part_of_the_tree_above() -> None:
    told = weights(TREE)
    assert told is not None
    part = {"games": 1 / 4 + 3 / 40, "news": 1 / 8, "daemon": 3 / 10, "mail": 3 / 8, "bin": 0.0}
    scale = len(part) / sum(part.values())
    assert told == pytest.approx({user: max(LEAST, found * scale) for user, found in part.items()})


def test_weights_are_one_on_average_and_within_limits() -> None:
    assert weights("root||\n root|root|1\n a||1\n  a|x|1\n  a|y|1\n") == {"x": 1.0, "y": 1.0}
    many = "root||\n a||1\n  a|x|100000000\n" + "".join(f"  a|u{n}|1\n" for n in range(300))
    told = weights(many)
    assert told is not None
    assert (told["x"], told["u1"]) == (MOST, LEAST)


@pytest.mark.parametrize(
    "text", ["", "sshare: error\n", "root||\n root|root|1\n", "root||\n a||0\n  a|x|0\n", "a|b\n||\n"]
)
def test_nothing_usable_is_nothing(text: str) -> None:
    assert weights(text) is None
