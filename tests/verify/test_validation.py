import numpy as np
import pytest
from scipy import sparse

from theorylab._validation import (
    as_array,
    as_count,
    as_flag,
    as_real,
    as_symmetric,
    precision_of,
)


def test_masked_entries_are_refused_and_a_full_mask_of_false_is_not():
    with pytest.raises(ValueError, match="masked entries"):
        as_array(np.ma.masked_array([1.0, 2.0], [False, True]), "x")
    assert as_array(np.ma.masked_array([1.0, 2.0], [False, False]), "x").tolist() == [1.0, 2.0]


@pytest.mark.parametrize("allow_inf", [False, True])
def test_an_integer_beyond_floats_is_refused(allow_inf):
    for number in (10**400, -(10**400)):
        with pytest.raises(ValueError, match="x: "):
            as_real(number, "x", allow_inf=allow_inf)


class Frame:
    """A stand-in for a data frame: an object with columns, that NumPy converts by ``__array__``."""

    def __init__(self, columns):
        self.columns = columns

    def __array__(self, dtype=None, copy=None):
        return np.array(self.columns, dtype=object).T


def test_object_columns_of_numbers_are_numbers_and_missing_entries_are_refused():
    # Mixed columns (bool, int, float), and nullable ones, come as objects.
    frame = Frame([[True, False], [1, 2], [0.5, np.float32(0.25)]])
    assert as_array(frame, "X").tolist() == [[1.0, 1.0, 0.5], [0.0, 2.0, 0.25]]
    for missing in (None, "2", 1j, type("NAType", (), {})()):
        with pytest.raises(ValueError, match=r"X: expected real numbers, got an entry of type .*"):
            as_array(Frame([[1, 2], [1.0, missing]]), "X")
    with pytest.raises(ValueError, match="X: expected finite numbers, got nan in an array of "):
        as_array(Frame([[1, 2], [1.0, float("nan")]]), "X")
    with pytest.raises(ValueError, match="X: expected real numbers, got one beyond float64"):
        as_array(Frame([[1, 2], [1.0, 10**400]]), "X")


def test_pandas_columns_of_every_type_are_accepted():
    pandas = pytest.importorskip("pandas")
    frame = pandas.DataFrame({"a": [True, False], "b": [1, 2], "c": [0.5, 0.25]})
    expected = [[1.0, 1.0, 0.5], [0.0, 2.0, 0.25]]
    nullable = frame.convert_dtypes()
    for table in (frame, frame.astype(object), nullable):
        assert as_array(table, "X").tolist() == expected
    assert as_array(nullable["a"], "x").tolist() == [1.0, 0.0]
    with pytest.raises(ValueError, match="x: "):
        as_array(pandas.Series([1, None], dtype="Int64"), "x")


def test_kernels_see_one_type_of_array():
    plain = np.arange(6.0).reshape(2, 3)
    assert np.shares_memory(as_array(plain, "x"), plain)
    frozen = plain.copy()
    frozen.flags.writeable = False
    unaligned = np.frombuffer(b"0" + plain.tobytes(), offset=1, dtype=float).reshape(2, 3)
    for other in (frozen, unaligned, plain.astype(">f8"), np.asfortranarray(plain)):
        array = as_array(other, "x")
        assert array.flags.writeable
        assert array.flags.aligned
        assert array.flags.c_contiguous
        assert array.dtype == np.dtype("=f8")
        assert array.tolist() == plain.tolist()


def test_a_read_only_argument_compiles_no_second_kernel():
    from theorylab.optimization import cyclic_losses
    from theorylab.optimization.adaptive_regret import _cyclic_kernel

    slopes = np.array([3.0, -1.0, -1.0])
    call = {"steps": 30, "step_size": 0.5, "beta2": 0.1}
    expected = cyclic_losses(slopes, **call).regret
    compiled = getattr(_cyclic_kernel, "signatures", None)
    slopes.flags.writeable = False
    assert np.array_equal(cyclic_losses(slopes, **call).regret, expected)
    assert getattr(_cyclic_kernel, "signatures", None) == compiled


def test_messages_name_type_and_shape():
    with pytest.raises(ValueError, match=r"got an array of float32 of shape \(2, 3\)"):
        as_array(np.zeros((2, 3), np.float32), "x", shape=(3, 2))
    with pytest.raises(ValueError, match=r"got an array of int64 of shape \(4,\)"):
        as_array(np.zeros(4, np.int64), "x", ndim=2)
    with pytest.raises(ValueError, match=r"got an array of <U1 of shape \(2,\)"):
        as_array(np.array(["a", "b"]), "x")
    with pytest.raises(ValueError, match=r"got an array of float64 of shape \(1,\)"):
        as_real(np.zeros(1), "x")


def test_sparse_matrices_are_refused_with_a_hint():
    for matrix in (sparse.csr_matrix(np.eye(3)), sparse.coo_array(np.eye(3))):
        with pytest.raises(ValueError, match=r"X: .* of shape \(3, 3\); pass its .toarray\(\)"):
            as_array(matrix, "X")


def test_numbers_in_arrays_without_axes_are_numbers():
    assert as_real(np.array(2.5), "x") == 2.5
    assert as_count(np.array(3), "n") == 3
    assert as_flag(np.array(True), "b") is True
    for bad in (np.array([2.5]), np.array("2"), np.array(True)):
        with pytest.raises(ValueError, match="x: "):
            as_real(bad, "x")
    with pytest.raises(ValueError, match="n: "):
        as_count(np.array(3.0), "n")


def test_symmetry_is_judged_in_the_precision_of_the_input():
    rng = np.random.default_rng(0)
    A = rng.standard_normal((30, 30))
    skewed = (A @ A.T) * (1 + 1e-7 * rng.standard_normal((30, 30)))
    assert as_symmetric(skewed.astype(np.float32), "A").dtype == np.float64
    with pytest.raises(ValueError, match="A: expected a symmetric matrix"):
        as_symmetric(skewed, "A")
    with pytest.raises(ValueError, match="A: expected a symmetric matrix"):
        as_symmetric((A @ A.T + 1e-3 * A).astype(np.float32), "A")
    assert precision_of([1, 2]) == precision_of(np.eye(2)) == np.finfo(float).eps
    assert precision_of(np.eye(2, dtype=np.float16)) == np.finfo(np.float16).eps
