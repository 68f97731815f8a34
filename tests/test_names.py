"""Names changed by --strip-prefix and --rename."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from modtool.errors import UsageError
from modtool.names import mapped, renamer, shared_prefixes, stripped

RENAMED = [
    ("encoder=backbone", "encoder.0.weight", "backbone.0.weight"),
    ("encoder=backbone", "encoder2.weight", "encoder2.weight"),
    ("encoder=backbone", "my.encoder.weight", "my.encoder.weight"),
    ("*.gamma=*.weight", "norm.1.gamma", "norm.1.weight"),
    ("*.gamma=*.weight", "gamma", "gamma"),
    ("layers.*.attn.*=h.*.self.*", "layers.3.attn.q.bias", "h.3.self.q.bias"),
    ("layers.[0-3]=blocks", "layers.2.w", "blocks.w"),
    ("layers.[!0-3]=blocks", "layers.2.w", "layers.2.w"),
    ("a?=b", "ax.w", "b.w"),
    ("a.*=a", "a.x.w", "a.w"),
    (r"re:^net\.=", "net.fc.w", "fc.w"),
    (r"re:(\d+)\.w$=\1.weight", "l.12.w", "l.12.weight"),
    ("re:a=b", "banana", "bbnbnb"),
    ("re:(?P<k>x)=_\\g<k>", "x.y", "_x.y"),
    ("a.b=c=d", "a.b", "c=d"),
]


@pytest.mark.parametrize(("text", "name", "expected"), RENAMED)
def test_rename(text: str, name: str, expected: str) -> None:
    assert renamer(text)(name) == expected


@pytest.mark.parametrize(
    "text", ["", "a", "=", "a=", "=b", "a=b*", "*=**", "re:(=x", "re:=x", "re:a=\\2", "[z-a]=b"]
)
def test_what_is_no_renaming_is_an_error(text: str) -> None:
    with pytest.raises(UsageError):
        renamer(text)


@settings(deadline=None)
@given(st.text("ab.*", min_size=1), st.text("ab.", min_size=1))
def test_a_name_that_a_glob_does_not_fit_stays(old: str, name: str) -> None:
    kept = renamer(f"{old}={old.count('*') * '*' or 'z'}")
    literal = old.replace("*", "")
    if literal and not all(part in name for part in old.split("*")):
        assert kept(name) == name


def test_prefixes_come_off_in_any_order() -> None:
    prefixes = ["module.", "_orig_mod."]
    assert stripped("module._orig_mod.fc.w", prefixes) == "fc.w"
    assert stripped("_orig_mod.module.module.fc.w", prefixes) == "fc.w"
    assert stripped("fc.module.w", prefixes) == "fc.module.w"
    assert stripped("module.", ["module."]) == "module."


def test_shared_prefixes_are_those_of_all_names() -> None:
    assert shared_prefixes(["module.model.a", "module.model.b"]) == ("module.", "model.")
    assert shared_prefixes(["module.a", "b"]) == ()
    assert shared_prefixes([]) == ()


def test_two_names_that_become_one_are_an_error() -> None:
    with pytest.raises(UsageError, match=r"^a\.x and b\.x would both be named b\.x\n"):
        mapped(["a.x", "b.x"], renamer("a=b"))
    assert mapped(["a.x", "c.x"], renamer("a=b")) == {"a.x": "b.x", "c.x": "c.x"}
