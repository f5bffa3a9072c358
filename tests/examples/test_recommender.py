import numpy as np
import pytest
import ratings
import recommender
import tensorflow_datasets as tfds

USERS = "user_id:token\tage:token\tgender:token\toccupation:token\tzip:token\n"
ITEMS = "item_id:token\tmovie_title:token_seq\tclass:token_seq\n"
RATINGS = "user_id:token\titem_id:token\trating:float\ttimestamp:float\n"


@pytest.fixture
def folder(tmp_path):
    generator = np.random.default_rng(0)
    users = [f"{i}\t30\tF\tjob {i % 3}\t0\n" for i in range(20)]
    items = [f'{i}\tThe "{i}"\tdrama{" comedy" * (i % 2)}\n' for i in range(30)]
    rows = [
        f"{user}\t{item}\t{1 + (user + item) % 5}\t0\n"
        for user, item in generator.integers((20, 30), size=(400, 2))
    ]
    for name, head, lines in (
        ("user", USERS, users),
        ("item", ITEMS, items),
        ("inter", RATINGS, rows),
    ):
        (tmp_path / f"ml-100k.{name}").write_text(head + "".join(lines))
    return tmp_path


def test_fields_follow_each_other_in_one_id_space(folder):
    read = ratings.load(folder)
    assert len(read) == 400
    assert read.num_ids == 1 + 20 + 30 + 3 + 2
    least, most = read.ids.min(axis=0), read.ids.max(axis=0)
    np.testing.assert_array_equal(least, [1, 21, 51, 55, 0])
    np.testing.assert_array_equal(most, [20, 50, 53, 55, 54])


def test_an_item_keeps_its_genres(folder):
    read = ratings.load(folder)
    for user, item, rating in zip(*read.ids.T[:2], read.ratings, strict=True):
        rows = read.ids[read.ids[:, 1] == item]
        assert len(np.unique(rows[:, 3:], axis=0)) == 1
        rows = read.ratings[(read.ids[:, :2] == (user, item)).all(axis=1)]
        assert (rows == rating).all()


def test_parts_are_those_of_the_seed_and_share_no_rating(folder):
    read = ratings.load(folder)
    read.ratings = np.arange(400)
    parts = [part.ratings for part in read.split((0.8, 0.1), seed=1)]
    assert [len(part) for part in parts] == [320, 40, 40]
    assert sorted(np.concatenate(parts)) == list(range(400))
    again = read.split((0.8, 0.1), seed=1)[2].ratings
    np.testing.assert_array_equal(again, parts[2])


def test_reads_the_builder_of_tfds():
    with tfds.testing.mock_data(num_examples=50):
        read = ratings.load()
    assert len(read) == 50
    assert read.ids.max() < read.num_ids


def test_a_missing_file_is_named_in_one_line(tmp_path):
    with pytest.raises(SystemExit, match="ml-100k.user") as caught:
        ratings.load(tmp_path)
    assert "\n" not in str(caught.value)


def test_compares_a_dense_a_hashed_and_a_narrow_table(
    folder, capsys, monkeypatch
):
    arguments = ["recommender.py", "--data-dir", str(folder), "--quick"]
    monkeypatch.setattr("sys.argv", arguments)
    recommender.main()
    rows = capsys.readouterr().out.splitlines()[-3:]
    sizes = [int(row.split("|")[2].replace(",", "")) for row in rows]
    assert sizes[0] > 5 * sizes[1] and sizes[2] == sizes[1]
    scores = [[float(cell) for cell in row.split("|")[3:5]] for row in rows]
    assert all(0 < error < 6 and 0 <= auc <= 1 for error, auc in scores)
