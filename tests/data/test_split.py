from dsa.data.split import split


def documents(count):
    return [(f"name {i}", f"text {i}") for i in range(count)]


def test_about_a_tenth_is_held_out_and_nothing_is_in_both():
    train, validation = split(documents(2000))
    assert 140 < len(validation) < 260
    assert not set(train) & set(validation)
    assert len(train) + len(validation) == 2000


def test_a_document_keeps_its_side_whatever_comes_beside_it():
    few, many = split(documents(100)), split(reversed(documents(1000)))
    assert set(few.validation) <= set(many.validation)
    assert set(few.train) <= set(many.train)


def test_equal_names_stay_together():
    train, validation = split([(f"name {i % 50}", f"name {i % 50}") for i in range(200)])
    assert not set(train) & set(validation)


def test_few_documents_still_leave_both_parts_something():
    for count in range(2, 12):
        train, validation = split(documents(count))
        assert train
        assert validation


def test_a_single_document_gives_its_last_tenth():
    assert split([("book", "0123456789" * 10)]) == (["0123456789" * 9], ["0123456789"])


def test_no_documents_are_no_error_yet():
    assert split([]) == ([], [])
