"""The benchmark of reading folders of pictures, on a few of them."""

import pytest

from benchmarks import bench_pictures


@pytest.mark.parametrize(
    ("make", "shape"), [(bench_pictures.small, (28, 28)), (bench_pictures.large(), (3, 32, 32))]
)
def test_every_picture_is_another_one_and_the_folder_is_cleared(tmp_path, make, shape):
    count = 2 * bench_pictures.DRAWN + 5
    row = bench_pictures.measure("pictures", count, make, shape, str(tmp_path))
    assert (row["pictures"], row["skipped"]) == (count, 0)
    assert row["seconds"] > 0 and row["peak_bytes"] > 1e6 and row["file_bytes"] > 100 * count
    assert list(tmp_path.iterdir()) == []
