"""The benchmarks read the sets of the paper's experiments, and download nothing unasked."""

import pytest
from numpy.testing import assert_array_equal


def test_shapes_and_paths_of_the_ood_sets(paper_data, published):
    for name, n in (("cifar10", 10), ("cifar100", 12), ("svhn", 9)):
        assert paper_data.read_ood(name, published.folder).shape == (n, 32, 32, 3)
    places = paper_data.read_ood("places365", published.folder)
    assert [path.rsplit("/", 1)[1] for path in places] == [f"Places365_val_{index:08}.jpg" for index in range(1, 8)]
    assert len(paper_data.read_ood("textures", published.folder)) == 8


def test_ood_images_of_cifar_are_the_test_images(paper_data, published):
    images, labels = paper_data.read_cifar("cifar100", "test", published.folder)
    assert_array_equal(paper_data.read_ood("cifar100", published.folder), images)
    assert labels[1] == "fine_01"
    assert len(paper_data.read_cifar("cifar100", "train", published.folder)[0]) == 84


def test_without_download_nothing_is_served(paper_data, published, tmp_path):
    for name in ("cifar10", "svhn", "places365", "textures"):
        assert not paper_data.is_there(name, tmp_path)
        with pytest.raises(FileNotFoundError, match=paper_data.file_of(name).name):
            paper_data.read_ood(name, tmp_path)
        assert paper_data.file_of(name).url in paper_data.how_to_get([name], tmp_path)
    assert published.served == []


def test_an_extracted_archive_is_there(paper_data, published):
    paper_data.read_ood("textures", published.folder)
    (published.folder / paper_data.file_of("textures").name).unlink()
    assert paper_data.is_there("textures", published.folder)
