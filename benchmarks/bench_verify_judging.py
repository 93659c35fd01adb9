"""Overhead of judging a claim with one case, mark and control, against its checks alone."""

from typing import Any

from timing import row, seconds

from theorylab.verify import breaks, cases, compare, judge, note, paper, theory, within


@paper("any-key").ours("an example")
@cases(x=1.0)
@note(no_space="an example")
@breaks("negative x", x=-1.0)
def example(x):
    """x <= 2x for positive x."""
    return compare(within(x, 0.0, "rounding"), "<=", theory("bound", 2 * x))


def rows() -> list[dict[str, Any]]:
    # A case, two reruns with the mark moved, and a control.
    alone = seconds(lambda: [example(x=1.0) for _ in range(4)], 200)
    overhead = seconds(lambda: judge(example), 200) - alone
    task, peer = "judging overhead of one claim", "its four checks alone"
    return [row(task, overhead, peer, alone, "ours < 1e-3 s")]


if __name__ == "__main__":
    for line in rows():
        print(line)
