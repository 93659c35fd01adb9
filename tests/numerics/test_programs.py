import threading

import numpy as np
import pytest
from scipy import optimize

from theorylab.numerics.programs import linprog


def test_the_answer_is_scipys():
    A, b = np.array([[1.0, 2.0, 3.0]]), [6.0]
    answer = linprog([1.0, 1.0, 1.0], A_eq=A, b_eq=b, method="highs")
    assert answer.fun == optimize.linprog([1.0, 1.0, 1.0], A_eq=A, b_eq=b, method="highs").fun == 2
    found = []
    other = threading.Thread(target=lambda: found.append(linprog([1.0], A_eq=[[2.0]], b_eq=[1.0])))
    other.start()
    other.join()
    assert found[0].x == pytest.approx([0.5])


def test_errors_and_settings_pass_through(monkeypatch):
    with pytest.raises(ValueError, match="Unknown solver"):
        linprog([1.0], method="none")

    def halve(*_):
        return np.float64(1.0) / np.float64(0.0)

    monkeypatch.setattr(optimize, "linprog", halve)
    with np.errstate(divide="raise"), pytest.raises(FloatingPointError):
        linprog([1.0])
