"""Paths and labels from a table: which columns, which files, and what is refused."""

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from skdfb.datasets import load_image_table

FILES = ["a.png", "b.png", "c.png"]


@pytest.fixture
def root(tmp_path: Path) -> Path:
    for name in FILES:
        Image.new("RGB", (4, 4)).save(tmp_path / name)
    return tmp_path


def table(root: Path, text: str, encoding: str = "utf-8") -> Path:
    path = root / "table.csv"
    path.write_bytes(text.encode(encoding))
    return path


class TestFiles:
    @pytest.mark.parametrize("form", [str, Path])
    def test_paths_and_labels(self, root: Path, form: Any) -> None:
        data = load_image_table(form(table(root, "path,label\nb.png,wren\na.png,robin\nc.png,wren\n")))
        assert data.paths == [str(root / name) for name in ["b.png", "a.png", "c.png"]]
        assert data.labels.dtype.kind == "U"
        assert data.labels.tolist() == ["wren", "robin", "wren"]
        assert data.classes == ["robin", "wren"]

    @pytest.mark.parametrize(
        "text",
        [
            "path;label\na.png;x, y\nb.png;z\n",
            "path\tlabel\na.png\tx, y\nb.png\tz\n",
            "path|label\r\na.png|x, y\r\nb.png|z",
            '"path","label"\n"a.png","x, y"\n"b.png","z"\n',
            'path , label\na.png , "x, y"\n\n b.png, z \n,\n',
            'label,path,note\n"x, y",a.png,"two\nlines; of text"\nz,b.png,\n',
        ],
    )
    @pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig"])
    def test_dialects(self, root: Path, text: str, encoding: str) -> None:
        data = load_image_table(table(root, text, encoding))
        assert data.paths == [str(root / "a.png"), str(root / "b.png")]
        assert data.labels.tolist() == ["x, y", "z"]

    @pytest.mark.parametrize("path_name", ["path", "File", "FILENAME", "file name", "Image-Path", "image"])
    @pytest.mark.parametrize("label_name", ["label", "Class", "target", "Species"])
    def test_usual_names(self, root: Path, path_name: str, label_name: str) -> None:
        text = f"id,{label_name},{path_name}\n1,x,a.png\n2,y,b.png\n"
        assert load_image_table(table(root, text)).labels.tolist() == ["x", "y"]

    def test_columns_that_are_given(self, root: Path) -> None:
        path = table(root, "name,breed,label,path\na.png,x,1,no.png\nb.png,y,2,no.png\n")
        data = load_image_table(path, path_column="name", label_column="breed")
        assert data.labels.tolist() == ["x", "y"]
        assert data.paths == [str(root / "a.png"), str(root / "b.png")]

    def test_labels_are_texts(self, root: Path) -> None:
        assert load_image_table(table(root, "path,label\na.png,01\nb.png,1\n")).labels.tolist() == ["01", "1"]

    def test_no_labels(self, root: Path) -> None:
        data = load_image_table(table(root, "path\na.png\nb.png\n"))
        assert (data.labels, data.classes, len(data.paths)) == (None, None, 2)

    def test_other_columns_without_a_usual_name(self, root: Path) -> None:
        with pytest.warns(UserWarning, match=r"no column with a usual name for labels.*'breed'.*pass label_column="):
            assert load_image_table(table(root, "path,breed\na.png,x\n")).labels is None

    def test_root(self, root: Path, tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
        path = table(tmp_path_factory.mktemp("other"), f"path,label\na.png,x\n{root / 'b.png'},y\n")
        assert load_image_table(path, root=root).paths == [str(root / "a.png"), str(root / "b.png")]
        monkeypatch.chdir(root)
        assert load_image_table(path, root=".").paths == ["./a.png", str(root / "b.png")]
        monkeypatch.setenv("HOME", str(root))
        assert load_image_table(path, root="~").paths[0] == str(root / "a.png")

    def test_relative_to_the_file(self, root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        table(root, "path,label\na.png,x\n")
        monkeypatch.chdir(root)
        assert load_image_table("table.csv").paths == ["a.png"]
        monkeypatch.chdir(root.parent)
        assert load_image_table(f"{root.name}/table.csv").paths == [f"{root.name}/a.png"]


class TestFrames:
    def test_labels_keep_their_type(self, root: Path) -> None:
        frame = pd.DataFrame({"path": [root / name for name in FILES], "label": [2, 0, 2]}, index=[7, 8, 9])
        data = load_image_table(frame)
        assert data.paths == [str(root / name) for name in FILES]
        assert data.labels.dtype == np.int64
        assert data.labels.tolist() == [2, 0, 2]
        assert data.classes == [0, 2]

    def test_categories(self, root: Path) -> None:
        frame = pd.DataFrame({"file": [str(root / name) for name in FILES], "class": pd.Categorical(["x", "y", "x"])})
        assert load_image_table(frame).classes == ["x", "y"]

    def test_root(self, root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        frame = pd.DataFrame({"path": FILES})
        assert load_image_table(frame, root=root).paths == [str(root / name) for name in FILES]
        monkeypatch.chdir(root)
        assert load_image_table(frame).paths == FILES

    @pytest.mark.parametrize("gap", [None, np.nan, pd.NA, pd.NaT, ""])
    def test_gaps(self, root: Path, gap: Any) -> None:
        frame = pd.DataFrame({"path": FILES, "label": pd.Series(["x", gap, gap], dtype=object)})
        with pytest.raises(
            ValueError, match=r"column 'label' has no label in rows 1, 2.*: expected one .*leave these 2 of 3 rows out"
        ):
            load_image_table(frame, root=root)

    def test_names_that_are_no_texts(self, root: Path) -> None:
        frame = pd.DataFrame([["a.png", "x"]], index=[0])
        with pytest.raises(ValueError, match="source has the columns 0, 1, none of which has a usual name for paths"):
            load_image_table(frame, root=root)
        assert load_image_table(frame, root=root, path_column=0, label_column=1).classes == ["x"]

    def test_paths_that_are_numbers(self) -> None:
        with pytest.raises(TypeError, match="column 'image' has a int, 1, in row 0: expected the paths of files"):
            load_image_table(pd.DataFrame({"image": [1, 2]}))


class TestRefused:
    @pytest.mark.parametrize(
        ("text", "error", "message"),
        [
            ("", ValueError, r"source is the file '\S*table\.csv', which is empty: expected a line with the names"),
            ("\n\n", ValueError, "is empty"),
            ("path,label\n", ValueError, "which has no rows: expected one row per image"),
            (
                "a.png,x\nb.png,y\n",
                ValueError,
                "has the columns 'a.png', 'x', none of which .*names of the columns in the",
            ),
            (
                "path,image,label\na.png,b.png,x\n",
                ValueError,
                "of which 'path', 'image' may be meant: .*pass path_column=",
            ),
            (
                "path,label,class\na.png,x,y\n",
                ValueError,
                "of which 'label', 'class' may be meant: .*pass label_column=",
            ),
            ("path,path\na.png,b.png\n", ValueError, "of which 'path', 'path' may be meant"),
            (
                "path,label\na.png,x\nb.png\n",
                ValueError,
                "has 1 values in line 3: expected 2, one per column of 'path', '",
            ),
            ("path,label\na.png,x, y\n", ValueError, "has 3 values in line 2: .*put values with a ',' in quotes"),
            (
                'path,label\n"a.png,x\n',
                ValueError,
                r"cannot be read \(.*\): expected CSV in UTF-8; for others pass a data",
            ),
            ("path,label\n,x\nb.png,y\n", ValueError, "column 'path' has no path in line 2: expected one path per row"),
            ("path,label\na.png,\nb.png,NA\n", ValueError, r"column 'label' has no label in lines 2, 3 \('NA'\): "),
            (
                "path,label\na.png,x\na.png,x\na.png,y\n",
                ValueError,
                "a.png' has two labels, 'x' and 'y', in lines 2, 4",
            ),
        ],
    )
    def test_texts(self, root: Path, text: str, error: Any, message: str) -> None:
        with pytest.raises(error, match=message):
            load_image_table(table(root, text))

    def test_missing_files_are_named_at_once(self, root: Path) -> None:
        rows = [*(f"no{number}.png,x" for number in range(7)), "a.png,y"]
        with pytest.raises(FileNotFoundError) as raised:
            load_image_table(table(root, "\n".join(["path,label", *rows])))
        text = str(raised.value)
        assert "7 of 8 files of column 'path' are missing: " in text
        assert f"'{root}/no0.png' (line 2)" in text
        assert f"'{root}/no4.png' (line 6), ..." in text
        assert "no5" not in text
        assert f"Relative paths start from the folder '{root}': for another one pass root=." in text

    def test_remedies_for_missing_files(self, root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        with pytest.raises(FileNotFoundError, match=r"There is '.*a\.png': expected paths with the extension, '\.png'"):
            load_image_table(table(root, "path,label\na,x\n"))
        with pytest.raises(FileNotFoundError, match="The paths are those of Windows: expected '/'"):
            load_image_table(table(root, "path,label\nfolder\\a.png,x\n"))
        monkeypatch.chdir(root)
        (root / "tables").mkdir()
        path = table(root / "tables", "path,label\na.png,x\n")
        with pytest.raises(FileNotFoundError, match=r"from the working directory: pass root='\.'\."):
            load_image_table(path)
        assert len(load_image_table(path, root=".").paths) == 1

    def test_a_folder_among_the_files(self, root: Path) -> None:
        with pytest.raises(FileNotFoundError, match="1 of 1 files"):
            load_image_table(table(root, "path\n.\n"))

    def test_no_such_column(self, root: Path) -> None:
        path = table(root, "path,label\na.png,x\n")
        with pytest.raises(
            ValueError, match="path_column='img': expected one of the columns of source, 'path', 'label'"
        ):
            load_image_table(path, path_column="img")
        with pytest.raises(ValueError, match="label_column='breed': expected one of the columns"):
            load_image_table(path, label_column="breed")

    def test_other_encodings(self, root: Path) -> None:
        path = table(root, "path,label\na.png,h\u00e9ron\n", "latin-1")
        with pytest.raises(ValueError, match=r"cannot be read .*pandas\.read_csv\(source, encoding='latin-1'\)"):
            load_image_table(path)
        assert load_image_table(pd.read_csv(path, encoding="latin-1"), root=root).classes == ["h\u00e9ron"]

    def test_sources_of_other_kinds(self, root: Path) -> None:
        with pytest.raises(
            IsADirectoryError, match=r"source is the folder '.*': expected a CSV file; pass it to load_im"
        ):
            load_image_table(root)
        with pytest.raises(FileNotFoundError, match=r"source is the path 'gone\.csv', which does not exist"):
            load_image_table("gone.csv")
        with pytest.raises(FileNotFoundError, match="source is the path '', which does not exist"):
            load_image_table("")
        with pytest.raises(TypeError, match=r"source has type dict: .*pass pandas\.DataFrame\(source\)"):
            load_image_table({"path": ["a.png"]})
