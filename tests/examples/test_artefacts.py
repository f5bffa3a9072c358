import pytest
from artefacts import new_folder


def test_a_new_folder_appears_when_it_is_whole(tmp_path):
    path = tmp_path / "deep" / "results"
    with new_folder(path) as folder:
        (folder / "table.md").write_text("rows")
        assert not path.exists()
    assert (path / "table.md").read_text() == "rows"
    assert list(path.parent.iterdir()) == [path]


def test_a_failure_leaves_nothing_behind(tmp_path):
    with pytest.raises(KeyError), new_folder(tmp_path / "results") as folder:
        (folder / "table.md").write_text("rows")
        raise KeyError
    assert list(tmp_path.iterdir()) == []


def test_an_empty_folder_is_filled(tmp_path):
    (tmp_path / "results").mkdir()
    with new_folder(tmp_path / "results") as folder:
        (folder / "table.md").write_text("rows")
    assert (tmp_path / "results" / "table.md").exists()


def test_a_folder_with_files_is_refused_and_kept(tmp_path):
    (tmp_path / "mine.txt").write_text("mine")
    with pytest.raises(SystemExit, match="--output"), new_folder(tmp_path):
        pass
    assert (tmp_path / "mine.txt").read_text() == "mine"


def test_a_place_that_cannot_be_written_is_named(tmp_path):
    (tmp_path / "file").write_text("")
    path = tmp_path / "file" / "results"
    with pytest.raises(SystemExit, match="cannot be written"), new_folder(path):
        pass
