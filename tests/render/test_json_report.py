from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace

import jsonschema
import numpy as np
import pytest

from stabdiag.core.diagnosis import Diagnosis
from stabdiag.core.run import Run
from stabdiag.render.json_report import render_json, report_schema


def _validate(text: str) -> None:
    jsonschema.Draft202012Validator(report_schema()).validate(json.loads(text, parse_constant=pytest.fail))


def test_the_schema_itself_is_valid() -> None:
    jsonschema.Draft202012Validator.check_schema(report_schema())


def test_a_report_keeps_to_the_schema_and_comes_back_whole(failed_diagnosis: Diagnosis) -> None:
    text = render_json(failed_diagnosis)
    _validate(text)
    assert Diagnosis.from_json(json.loads(text)) == failed_diagnosis


def test_a_report_of_any_run_keeps_to_the_schema(odd_run: Run, stable: Callable[[Run], Diagnosis]) -> None:
    _validate(render_json(stable(odd_run)))


def test_numbers_that_json_cannot_say_become_null(failed_diagnosis: Diagnosis) -> None:
    first = failed_diagnosis.findings[0]
    facts = {"nan": float("nan"), "numpy": np.float32("inf"), "count": np.int64(3)}
    strange = replace(failed_diagnosis, findings=(replace(first, value=float("inf"), facts=facts),))
    text = render_json(strange)
    _validate(text)
    told = json.loads(text)["findings"][0]
    assert told["value"] is None
    assert told["facts"] == {"nan": None, "numpy": None, "count": 3}


@pytest.mark.parametrize(
    ("path", "wrong"),
    [
        (("verdict",), "fine"),
        (("findings", 0, "severity"), "fatal"),
        (("findings", 0, "confidence"), 1.5),
        (("findings", 0, "onset_step"), -1),
        (("incidents", 0, "root"), None),
        (("skipped", 0, "signature"), "Not An Id"),
    ],
)
def test_the_schema_refuses_what_is_no_report(
    failed_diagnosis: Diagnosis, path: tuple[str | int, ...], wrong: object
) -> None:
    record = json.loads(render_json(failed_diagnosis))
    *way, last = path
    place = record
    for key in way:
        place = place[key]
    place[last] = wrong
    assert not jsonschema.Draft202012Validator(report_schema()).is_valid(record)
