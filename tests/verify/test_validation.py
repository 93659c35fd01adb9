import numpy as np
import pytest

from theorylab._validation import as_array, as_real


def test_masked_entries_are_refused_and_a_full_mask_of_false_is_not():
    with pytest.raises(ValueError, match="masked entries"):
        as_array(np.ma.masked_array([1.0, 2.0], [False, True]), "x")
    assert as_array(np.ma.masked_array([1.0, 2.0], [False, False]), "x").tolist() == [1.0, 2.0]


@pytest.mark.parametrize("allow_inf", [False, True])
def test_an_integer_beyond_floats_is_refused(allow_inf):
    for number in (10**400, -(10**400)):
        with pytest.raises(ValueError, match="x: "):
            as_real(number, "x", allow_inf=allow_inf)
