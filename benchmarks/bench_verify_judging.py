"""Overhead of judging: a claim with one case and one control, against calling its check twice."""

from typing import Any

from timing import row, seconds

from theorylab.verify import Evidence, at_most, claim, judge


@claim(
    "x <= 2x for positive x",
    sources=["none-key, Example"],
    origin="derived",
    kind="inequality",
    cases=[{"x": 1.0}],
    breaks={"negative x": {"x": -1.0}},
)
def example(x: float, seed: int) -> Evidence:
    return at_most(x, 2 * x)


def rows() -> list[dict[str, Any]]:
    alone = seconds(lambda: (example(x=1.0, seed=0), example(x=-1.0, seed=0)), 200)
    overhead = seconds(lambda: judge(example), 200) - alone
    return [
        row(
            "judging overhead of one claim",
            overhead,
            "its two checks alone",
            alone,
            "ours < 1e-3 s",
        )
    ]


if __name__ == "__main__":
    for line in rows():
        print(line)
