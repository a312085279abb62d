import pytest

from stabdiag.core.config import Configuration, Ignore, load_configuration
from stabdiag.core.errors import StabdiagError


def written(tmp_path, text):
    (tmp_path / "pyproject.toml").write_text(text)
    return tmp_path


def test_without_a_pyproject_the_configuration_is_empty(tmp_path):
    (tmp_path / "pyproject.toml").write_text("[project]\nname = 'x'\n")
    assert load_configuration(tmp_path) == Configuration()


def test_the_nearest_pyproject_above_is_read(tmp_path):
    folder = written(
        tmp_path,
        """
        [tool.stabdiag]
        select = ["loss-spike", "dead-units"]
        ignore = ["dead-units@encoder.*: sparse by design", "loss-spike"]
        [tool.stabdiag.thresholds.loss-spike]
        z = 5
        """,
    )
    (folder / "a" / "b").mkdir(parents=True)
    config = load_configuration(folder / "a" / "b")
    assert config.select == ("loss-spike", "dead-units")
    assert config.ignore == (
        Ignore("dead-units", "encoder.*", "sparse by design"),
        Ignore("loss-spike", "*", ""),
    )
    assert config.thresholds == {"loss-spike": {"z": 5.0}}


@pytest.mark.parametrize(
    ("text", "message", "hint"),
    [
        ("[tool.stabdiag]\nselekt = []", "no key 'selekt'", "select"),
        ("[tool.stabdiag]\nselect = 'loss-spike'", "list of names", 'select = ["loss-spike"]'),
        ("[tool.stabdiag]\nignore = [1]", "list of names", "ignore"),
        ("[tool.stabdiag]\nignore = ['@encoder']", "signature@site-glob", "dead-units@encoder"),
        ("[tool.stabdiag]\nthresholds = {loss-spike = 5}", "tables", "thresholds.loss-spike"),
        ("[tool.stabdiag.thresholds.loss-spike]\nz = 'high'", "is a number", "loss-spike.z=5"),
        ("[tool.stabdiag.thresholds.loss-spike]\nz = true", "is a number", "loss-spike.z=5"),
        ("[tool.stabdiag\n", "cannot be read", "correct"),
    ],
)
def test_a_mistake_in_the_file_is_one_line_with_a_hint(tmp_path, text, message, hint):
    with pytest.raises(StabdiagError) as caught:
        load_configuration(written(tmp_path, text))
    assert message in caught.value.message
    assert hint in caught.value.hint


def test_settings_lie_on_top_and_leave_the_original_alone():
    base = Configuration(thresholds={"loss-spike": {"z": 4.0, "window": 50.0}})
    changed = base.with_settings(["loss-spike.z=5", "dead-units.share=0.9"])
    assert changed.thresholds == {"loss-spike": {"z": 5.0, "window": 50.0}, "dead-units": {"share": 0.9}}
    assert base.thresholds == {"loss-spike": {"z": 4.0, "window": 50.0}}


@pytest.mark.parametrize("setting", ["loss-spike", "loss-spike.z", "z=5", ".z=5", "loss-spike.=5"])
def test_a_malformed_setting_shows_the_right_form(setting):
    with pytest.raises(StabdiagError, match=r"signature\.threshold=value"):
        Configuration().with_settings([setting])


@pytest.mark.parametrize("value", ["high", "", "nan"])
def test_a_setting_that_is_no_number_is_refused(value):
    with pytest.raises(StabdiagError, match="is a number"):
        Configuration().with_settings([f"loss-spike.z={value}"])


def test_a_selection_replaces_and_ignored_names_add_up():
    base = Configuration(select=("a",), ignore=(Ignore("b"),))
    assert base.with_selection(select=["c"], ignore=["d@x.*"]).select == ("c",)
    assert base.with_selection(ignore=["d@x.*"]).select == ("a",)
    assert base.with_selection(ignore=["d@x.*"]).ignore == (Ignore("b"), Ignore("d", "x.*"))


def test_a_site_glob_covers_whole_subtrees_and_nothing_beside():
    rule = Ignore.parse("dead-units@encoder.*")
    assert rule.covers("encoder.layers.3.fc")
    assert not rule.covers("decoder.layers.3.fc")
