from __future__ import annotations

from pathlib import Path

import pytest

from bench.config import (
    CONFIGS,
    RunConfig,
    assign,
    flatten,
    known_key,
    load_run_config,
    merge,
    method_settings,
    parse_assignments,
    setting_names,
)
from bench.errors import ConfigError, DataError
from bench.plan import describe_difference, distribute, make_plan, mask_folder
from bench.registry import get_dataset, get_method
from bench.suite import load_suite, rows_of


def write(path: Path, text: str) -> Path:
    path.write_text(text)
    return path


def test_command_line_wins_over_file(tmp_path):
    file = write(tmp_path / "run.yaml", "methods: [copy]\nseeds: [0, 1]\npreset: tiny\n")
    config = load_run_config(file, {"seeds": [5], "preset": None})
    assert (config.methods, config.seeds, config.preset) == (["copy"], [5], "tiny")


@pytest.mark.parametrize(
    ("text", "parts"),
    [
        ("metods: [copy]\n", ["metods", "Did you mean 'methods'"]),
        ("seeds: [a]\n", ["seeds.0", "'a'"]),
        ("preset: huge\n", ["preset", "'huge'"]),
        ("[1, 2]\n", ["list", "mapping"]),
        ("a: [\n", ["unreadable YAML"]),
        ("methods: []\n", ["methods"]),
    ],
)
def test_a_wrong_file_names_the_key(tmp_path, text, parts):
    with pytest.raises(ConfigError) as error:
        load_run_config(write(tmp_path / "run.yaml", text), {})
    assert all(part in str(error.value) for part in [*parts, "run.yaml"])


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(ConfigError, match=r"none\.yaml"):
        load_run_config(tmp_path / "none.yaml", {})


def test_assignments_are_typed_by_yaml():
    parsed = parse_assignments(["a=1", "b.c=[8, 16]", "d=null", "e=x=y"])
    assert parsed == {"a": 1, "b.c": [8, 16], "d": None, "e": "x=y"}


def test_an_assignment_needs_an_equals_sign():
    with pytest.raises(ConfigError, match="no key=value"):
        parse_assignments(["a"])


def test_nested_settings():
    settings: dict = {"a": {"b": 1}}
    assign(settings, "a.c", 2)
    assert flatten(settings) == {"a.b": 1, "a.c": 2}
    assert merge({"a": {"b": 1}}, {"a": {"c": 2}}) == {"a": {"b": 1, "c": 2}}
    with pytest.raises(ConfigError, match="b is a value"):
        assign(settings, "a.b.c", 3)


def test_presets_and_overrides():
    method = get_method("imagenet")
    tiny, preset = method_settings("imagenet", method, "tiny", {})
    assert (tiny.short_side, preset) == (240, "tiny")
    paper, preset = method_settings("imagenet", method, None, {"propagation": {"top_k": 5}})
    assert (paper.short_side, paper.propagation.top_k, preset) == (None, 5, "paper")


@pytest.mark.parametrize(
    ("overrides", "parts"),
    [
        ({"propagation": {"topk": 5}}, ["imagenet: propagation.topk", "Did you mean 'top_k'"]),
        ({"strids": [8]}, ["imagenet: strids", "Did you mean 'strides'"]),
        ({"propagation": {"top_k": 0}}, ["propagation.top_k", "0"]),
    ],
)
def test_wrong_settings_name_their_path(overrides, parts):
    with pytest.raises(ConfigError) as error:
        method_settings("imagenet", get_method("imagenet"), None, overrides)
    assert all(part in str(error.value) for part in parts)


def test_known_keys():
    model = get_method("imagenet").Settings
    assert known_key(model, "propagation.top_k")
    assert known_key(model, "strides")
    assert not known_key(model, "propagation.topk")
    assert not known_key(model, "strides.0")


def test_settings_that_are_one_of_several_groups_are_known():
    """Protocols of ``adv`` are a union, tracking of ``uvc`` may be absent."""
    adv = get_method("adv").Settings
    assert known_key(adv, "protocol.kind")
    assert known_key(adv, "protocol.propagation.top_k")  # of one kind
    assert known_key(adv, "protocol.steps")  # of another
    assert not known_key(adv, "protocol.step")
    uvc = get_method("uvc").Settings
    assert known_key(uvc, "tracking")
    names = setting_names(adv)
    assert len(names) == len(set(names))


def test_unknown_keys_of_one_of_several_groups_are_told_what_is_known():
    with pytest.raises(ConfigError, match="margin"):
        method_settings("uvc", get_method("uvc"), "tiny", {"tracking": {"margn": 1}})


def test_an_empty_group_is_a_value():
    """It switches on what is off by default, such as the tracking of ``uvc``."""
    assert flatten({"a": {"b": {}, "c": {"d": 1}}}) == {"a.b": {}, "a.c.d": 1}
    path = CONFIGS / "suites" / "as_published.yaml"
    rows = {row.name: row for row in rows_of(load_suite(path), path)}
    assert rows["UVC, tracking"].settings == {"tracking": {}}


def test_assignments_find_their_owner():
    config = RunConfig(methods=["imagenet", "copy"], data=["synthetic"])
    given = {"propagation.top_k": 5, "synthetic.frames": 8, "imagenet.strides": [8]}
    assert distribute(config, given) == {
        "imagenet": {"propagation": {"top_k": 5}, "strides": [8]},
        "synthetic": {"frames": 8},
    }
    with pytest.raises(ConfigError, match="no_such"):
        distribute(config, {"no_such": 1})


def test_settings_of_something_that_does_not_run():
    config = RunConfig(methods=["copy"], settings={"imagenet": {"strides": [8]}})
    with pytest.raises(ConfigError, match="settings for something that does not run"):
        distribute(config, {})


def test_variants_are_named_by_what_differs():
    default = {"a": 1, "b": {"top_k": 10, "r": 1}, "c": {"r": 1}}
    assert describe_difference(default, default) == ""
    assert describe_difference({**default, "a": [8, 16]}, default) == "a=[8,16]"
    changed = {"a": 1, "b": {"top_k": 5, "r": 2}, "c": {"r": 3}}
    assert describe_difference(changed, default) == "top_k=5,b.r=2,c.r=3"


def test_mask_folders_tell_variants_and_seeds_apart():
    assert mask_folder("copy", "", "davis16", "cows", 0) == Path("masks/copy/davis16/cows")
    folders = {mask_folder("a", v, "d", "s", seed) for v in ("", "k=5") for seed in (0, 1)}
    assert len(folders) == 4


def plan(assignments=None, **options):
    return make_plan(RunConfig(**{"methods": ["copy"], **options}), assignments)


def test_a_plan_has_one_job_per_method_sequence_and_seed():
    made = plan(methods=["copy", "imagenet"], seeds=[0, 1])
    sequences = {job.sequence for job in made.jobs}
    assert len(made.jobs) == 2 * len(sequences) * 2
    assert len({job.id for job in made.jobs}) == len(made.jobs)


def test_job_ids_depend_on_what_the_result_depends_on():
    first = {job.id for job in plan().jobs}
    assert {job.id for job in plan().jobs} == first
    assert not first & {job.id for job in plan(seeds=[1]).jobs}
    assert not first & {job.id for job in plan({"synthetic.seed": 7}).jobs}
    imagenet = {job.id for job in plan(methods=["imagenet"]).jobs}
    changed = {job.id for job in plan({"propagation.top_k": 5}, methods=["imagenet"]).jobs}
    assert not imagenet & changed


def test_dataset_settings_show_in_the_label():
    assert list(plan({"synthetic.frames": 8}).data) == ["synthetic[frames=8]"]


def test_only_named_sequences():
    names = [job.sequence for job in plan().jobs]
    assert [job.sequence for job in plan(sequences=names[1:3]).jobs] == names[1:3]
    with pytest.raises(ConfigError, match="nosuch"):
        plan(sequences=["nosuch"])


def test_methods_that_need_a_mask_are_skipped_with_a_reason():
    made = plan(protocol="unsupervised")
    assert not made.jobs
    assert "first mask" in made.skips[0].reason


def test_missing_data_says_where_it_was_looked_for(tmp_path, monkeypatch):
    monkeypatch.setenv("BENCH_DATA", str(tmp_path))
    with pytest.raises(DataError) as error:
        plan(data=["davis16"])
    assert str(tmp_path / "DAVIS2016") in str(error.value)
    assert "--root" in str(error.value)


def test_still_images_cannot_be_run_on():
    with pytest.raises(ConfigError, match="still images"):
        plan(data=["ecssd"])


def test_splits_by_name():
    dataset, split = get_dataset("davis16-train")
    assert (dataset.name, split) == ("davis16", "train")
    assert get_dataset("davis16")[1] is None
    with pytest.raises(ConfigError, match="davis16"):
        get_dataset("davis61")


def test_a_device_that_is_not_there():
    import torch

    if torch.cuda.is_available():
        assert plan(device="cuda").jobs[0].device == "cuda"
        return
    with pytest.raises(ConfigError, match="no CUDA device"):
        plan(device="cuda")
