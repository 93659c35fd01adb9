import json
import math

import numpy as np
import pytest

from theorylab.verify import cases, compare, judge, mean, note, paper, theory, within
from theorylab.verify.records import Record, read_records, record_of

source = paper("any-key", "Setting.")


@source.abstract("b", instance=True)
@note(no_space="x", no_break="x")
@cases(n=[3.0, 2.0])
def example(n):
    """The statement."""
    off = 1.0000000001 if n == 3.0 else 1.004
    return {
        "headline": compare(within(n * off, 0.01, "rounding"), "==", theory("value", n)),
        "bound": compare(within([n, n / 3], 0.0, "rounding"), "<=", theory("bound", 1.5 * n)),
    }


def test_the_case_with_the_least_margin_comes_first_with_its_headline():
    record = record_of("theme/module", judge(example), "quick")
    assert [(p.name, p.case) for p in record.parts] == [
        ("headline", 2),
        ("bound", 2),
        ("headline", 1),
        ("bound", 1),
    ]
    assert record.claim == "theme/module:example"
    assert record.statement == "Setting. The statement."
    assert record.sources == ["any-key (b), a precise instance of the abstract"]
    assert record.serves == {"any-key": ["b"]}
    assert record.verdict == "verified"
    assert record.parts[1].measured == [2.0, 0.66666667]
    assert record.parts[1].marks == {"bound": 1.5}


def test_numbers_are_rounded_to_what_the_check_resolves():
    record = record_of("theme/module", judge(example), "quick")
    assert record.parts[2].measured == 3.0  # 3 times 1.0000000001, known to 0.01
    assert record.parts[2].error == 0.01


def test_an_unnamed_part_has_the_name_of_the_claim():
    @source.ours("an example")
    @note(no_space="x", no_break="x")
    def single(seed):
        """d."""
        sample = mean(np.random.default_rng(seed).normal(1, 0.01, 50))
        return compare(sample, "==", theory("value", 1.0))

    record = record_of("theme/module", judge(single), "quick")
    assert record.parts[0].name == "single"
    assert record.sources == ["any-key, ours: an example"]


def test_a_record_survives_json_and_a_corrupt_file_is_named(tmp_path):
    record = record_of("theme/module", judge(example), "quick")
    path = tmp_path / "module.json"
    path.write_text(json.dumps({"claims": [record.to_json()]}, allow_nan=False))
    assert read_records(path) == [record]
    assert read_records(tmp_path / "missing.json") == []
    cut = "", '{"claims": [{"verdict": "ver', '{"claims": [{"verdict": 3}]}', "[1]", "[" * 10**5
    plain = record.to_json()
    mixed = [(f, plain | {f: 3}) for f in plain if f not in ("seed", "parts", "controls")]
    mixed += [("seed", plain | {"seed": "3"}), ("", plain | {"parts": 3})]
    mixed += [("sources", plain | {"sources": [3]}), ("serves", plain | {"serves": {"key": "a"}})]
    mixed += [("sources", plain | {"sources": []}), ("serve", plain | {"serves": {}})]
    control = {"name": "a", "kind": "break", "decides": None}
    mixed += [("decides", plain | {"controls": [control]})]
    part = plain["parts"][0]
    mixed += [
        (f, plain | {"parts": [part | {f: [None]}]})
        for f in part
        if f not in ("measured", "error", "predicted")
    ]
    assert len(mixed) > 25
    wrong = [(f, json.dumps({"claims": [data]})) for f, data in mixed]
    for named, text in [*(("", text) for text in cut), *wrong]:
        path.write_text(text)
        with pytest.raises(ValueError, match=rf"module\.json: expected records, .*{named}"):
            read_records(path)


def test_what_has_no_number_is_null_and_never_nan():
    @source.ours("an example")
    @note(no_space="x", no_break="x")
    def undecided():
        """d."""
        return compare(within(math.nan, 0.1, "x"), "==", theory("value", 1.0))

    record = record_of("theme/module", judge(undecided), "quick")
    assert record.verdict == "failed"
    assert record.parts[0].measured is None
    assert "NaN" not in json.dumps(record.to_json())
    assert Record.from_json(json.loads(json.dumps(record.to_json()))) == record
