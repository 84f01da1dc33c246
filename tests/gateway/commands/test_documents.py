import json

import pytest
import yaml

from gateway.commands.documents import problems_of, read_documents
from gateway.commands.talk import CommandFailed
from tests.kit.control import route


@pytest.fixture
def write(tmp_path):
    def put(name, text):
        path = tmp_path / name
        path.write_text(text)
        return path

    return put


def names(paths):
    return [(path.name, document["endpoint"]) for path, document in read_documents(paths)]


def test_a_file_may_hold_several_documents_and_empty_parts_are_none(write):
    path = write("a.yaml", "---\nendpoint: one\n---\n---\nendpoint: two\n")
    assert [document["endpoint"] for _, document in read_documents([path])] == ["one", "two"]


def test_a_folder_is_its_route_files_in_order(write, tmp_path):
    write("b.yml", "endpoint: b")
    write("a.json", '{"endpoint": "a"}')
    write("c.yaml", "endpoint: c")
    write("notes.md", "endpoint: d")
    (tmp_path / "e.yaml").mkdir()
    assert [document["endpoint"] for _, document in read_documents([tmp_path])] == ["a", "b", "c"]


def test_yaml_and_json_say_the_same(write):
    text = json.dumps(route())
    assert read_documents([write("a.json", text)])[0][1] == read_documents([write("a.yaml", text)])[0][1] == route()


@pytest.mark.parametrize(
    ("name", "text", "words"),
    [
        ("a.yaml", "endpoint: a\nendpoint: b", "key 'endpoint' stands twice"),
        ("a.yaml", "endpoint: a\nunit: {header: x, header: y}", "key 'header' stands twice"),
        ("a.yaml", "- endpoint: a", "wanted a mapping with `endpoint`, got list"),
        ("a.yaml", "endpoint: [a", "expected ',' or ']'"),
        ("a.yaml", "endpoint: !!python/object/apply:os.getcwd []", "could not determine a constructor"),
        ("a.json", '{"endpoint": ', "truncated"),
        ("a.json", "[]", "got list"),
        ("a.yaml", "endpoint: a\n---\nendpoint: a", "endpoint 'a' has more than one document"),
        ("a.yaml", "# nothing\n", "no route document in"),
        ("a.yaml", "endpoint: a\nnote: " + "x" * (1 << 20), "bytes are too many"),
    ],
)
def test_what_is_wrong_is_one_line_with_the_name_of_the_file(write, name, text, words):
    path = write(name, text)
    with pytest.raises(CommandFailed) as failed:
        read_documents([path])
    message = str(failed.value)
    assert words in message
    assert str(path) in message
    assert "\n" not in message


def test_two_files_may_not_speak_of_one_endpoint(write):
    with pytest.raises(CommandFailed, match="more than one document"):
        read_documents([write("a.yaml", "endpoint: x"), write("b.yaml", "endpoint: x")])


def test_a_file_that_is_not_there_is_said(tmp_path):
    with pytest.raises(CommandFailed, match="No such file"):
        read_documents([tmp_path / "nix.yaml"])


def test_problems_have_their_path_and_a_good_document_has_none():
    assert problems_of(route()) == []
    found = problems_of({"endpoint": "a b", "variants": [], "colour": "red"})
    assert {problem.path for problem in found} >= {"endpoint", "colour"}


def test_a_moment_is_read_as_the_text_that_it_is(write):
    document = route(champion=("models:/phishing/1", 1), mirror=("models:/phishing/2", 1))
    until = yaml.safe_dump(document).replace("name: mirror", "name: mirror\n  until: 2027-12-31T00:00:00Z")
    ((_, read),) = read_documents([write("dated.yaml", until)])
    assert read["mirrors"][0]["until"] == "2027-12-31T00:00:00Z"
    assert problems_of(read) == []


@pytest.mark.parametrize("text", ["a: 0x_", "[" * 3000])
def test_yaml_that_breaks_its_own_reader_is_one_clear_line(tmp_path, text):
    path = tmp_path / "route.yaml"
    path.write_text(text)
    with pytest.raises(CommandFailed, match=r"route\.yaml"):
        read_documents([path])


def test_a_merge_key_is_read_as_yaml_has_it(tmp_path):
    path = tmp_path / "route.yaml"
    path.write_text("base: &base {weight: 1}\nendpoint: e\nvariant: {<<: *base, name: a}\n")
    ((_, document),) = read_documents([path])
    assert document["variant"] == {"weight": 1, "name": "a"}


def test_a_few_lines_that_stand_for_billions_are_refused_at_once(tmp_path):
    lines = ["a0: &a0 [x, x, x, x, x, x, x, x, x]"]
    lines += [f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 9)}]" for n in range(1, 12)]
    path = tmp_path / "bomb.yaml"
    path.write_text("\n".join(["endpoint: e", *lines]))
    with pytest.raises(CommandFailed, match="at most 100,000 values"):
        read_documents([path])


def test_what_yaml_complains_of_is_named_by_the_file(tmp_path):
    path = tmp_path / "bad.yaml"
    path.write_text("endpoint: [")
    with pytest.raises(CommandFailed) as failed:
        read_documents([path])
    assert "bad.yaml" in str(failed.value)
    assert "byte string" not in str(failed.value)
