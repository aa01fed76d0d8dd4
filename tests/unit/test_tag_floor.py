"""The most frequent tag of each word."""

from recurra.codec.tag_floor import TagFloor


def test_each_word_its_own_most_frequent_tag_and_unknown_words_that_of_all():
    floor = TagFloor.fit([(("a", "b", "a", "A"), ("X", "Y", "Y", "Y")), (("a", "c"), ("X", "Z"))])
    assert floor == TagFloor(most="Y", words={"a": "X", "c": "Z"})
    assert floor.tags(["a", "b", "c", "A", "never"]) == ["X", "Y", "Z", "Y", "Y"]
    assert TagFloor.model_validate_json(floor.model_dump_json()) == floor


def test_of_equals_the_first_of_the_alphabet():
    assert TagFloor.fit([(("a", "a"), ("Q", "P"))]).most == "P"
