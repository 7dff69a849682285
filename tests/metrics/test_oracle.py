"""Equal to the functions of the official toolkit, recorded in reference files."""

from __future__ import annotations

import json

import numpy as np
import pytest

from bench.metrics import SEMI_SUPERVISED, SequenceScorer, dataset_figures, j_and_f

GAP, LATE = "ids_with_gap_1_3", "third_object_appears_late_not_in_first_frame"


@pytest.fixture(scope="module")
def cases(shared_dir):
    """Reference arrays by case, in the order of the global means."""
    folder = shared_dir / "oracle" / "davis_metrics"
    if not folder.is_dir():
        pytest.skip(f"No reference results: {folder} is no folder.")
    with np.load(folder / "synthetic.npz") as file:
        keys = ("gt", "result", "J", "F", "J_stats", "F_stats")
        found = {str(name): {key: file[f"{name}/{key}"] for key in keys} for name in file["names"]}
    with np.load(folder / "osvos_bmx_trees.npz") as file:
        found["osvos_bmx_trees"] = dict(file)
    return found


@pytest.fixture(scope="module")
def results(cases):
    found = {}
    for name, case in cases.items():
        scorer = SequenceScorer(SEMI_SUPERVISED, len(case["gt"]))
        for index, (predicted, true) in enumerate(zip(case["result"], case["gt"], strict=True)):
            scorer.update(index, predicted, true)
        found[name] = scorer.result()
    return found


def test_every_frame_of_every_object(cases):
    for name, case in cases.items():
        for row in range(len(case["J"])):
            found = [
                j_and_f(predicted == row + 1, true == row + 1)
                for predicted, true in zip(case["result"], case["gt"], strict=True)
            ]
            expected = np.stack([case["J"][row], case["F"][row]], 1)
            np.testing.assert_allclose(found, expected, rtol=0, atol=1e-12, err_msg=name)


def test_statistics_of_every_object(cases, results):
    for name, case in cases.items():
        objects = results[name].objects
        official = set(range(1, len(case["J"]) + 1))
        # The toolkit counts ids up to the first frame's largest one; here every id counts that
        # the ground truth has, and no other.
        phantoms, ignored = official - set(objects), set(objects) - official
        assert phantoms == ({2} if name == GAP else set()), name
        assert ignored == ({3} if name == LATE else set()), name
        for number in official & set(objects):
            scores = objects[number]
            assert scores.frames == tuple(range(1, len(case["gt"]) - 1))
            expected = [*case["J_stats"][number - 1], *case["F_stats"][number - 1]]
            np.testing.assert_allclose(scores.row, expected, rtol=0, atol=1e-12, err_msg=name)


def test_the_phantom_scores_1_in_the_toolkit(cases):
    assert (cases[GAP]["J"][1] == 1).all()
    assert (cases[GAP]["F"][1] == 1).all()


def test_the_late_object_is_scored_after_it_entered(cases, results):
    true = cases[LATE]["gt"]
    first = next(t for t in range(len(true)) if (true[t] == 3).any())
    assert results[LATE].objects[3].frames == tuple(range(first + 1, len(true) - 1))


def test_means_over_all_objects(cases, results, shared_dir):
    expected = json.loads((shared_dir / "oracle/davis_metrics/global.json").read_text())
    assert expected["order"] == list(cases)
    rows = [
        scores.row
        for name, result in results.items()
        for number, scores in result.objects.items()
        if (name, number) != (LATE, 3)
    ]
    rows.append((1.0, 1.0, 0.0, 1.0, 1.0, 0.0))  # the toolkit's phantom
    means = dict(zip(("J_M", "J_R", "J_D", "F_M", "F_R", "F_D"), np.mean(rows, 0), strict=True))
    means["JF"] = (means["J_M"] + means["F_M"]) / 2
    recorded = expected["global_over_all_objects_of_synthetic_plus_bmx"]
    assert means == pytest.approx(recorded, abs=1e-12)
    bmx = dataset_figures({"bmx-trees": results["osvos_bmx_trees"]})
    assert bmx.object_mean["J"] == pytest.approx(
        cases["osvos_bmx_trees"]["J_stats"][:, 0].mean(), abs=1e-12
    )
