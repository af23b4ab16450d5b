import errno
import os
import stat

import pytest

from convsmith.arch import check_takes_files, check_writable, write_whole
from convsmith.arch.writing import tempfile


def test_a_file_is_there_whole_or_as_it_was(tmp_path, monkeypatch):
    path = tmp_path / "new" / "file"
    check_writable(path)
    assert not path.parent.exists()
    write_whole(path, "first")
    check_writable(path)

    def full(descriptor):
        raise OSError(errno.ENOSPC, "no space left")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="no space left"):
        write_whole(path, "second")
    assert path.read_text() == "first"
    assert list(path.parent.iterdir()) == [path]


@pytest.mark.parametrize("check", [check_writable, lambda path: write_whole(path, "")])
def test_a_device_or_pipe_is_not_replaced(tmp_path, check):
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(ValueError, match=r"must name a file, and .*pipe is a device or pipe"):
        check(tmp_path / "pipe")
    assert stat.S_ISFIFO(os.stat(tmp_path / "pipe").st_mode)
    assert [path.name for path in tmp_path.iterdir()] == ["pipe"]


def test_what_cannot_be_written_is_told_before(tmp_path, monkeypatch):
    (tmp_path / "file").write_text("")
    with pytest.raises(ValueError, match=r"must name a file, and .* is a folder; add a file name"):
        check_writable(tmp_path)
    for path in (tmp_path / "file" / "inner", tmp_path / "file" / "deep" / "inner"):
        with pytest.raises(ValueError, match=r"must lie where files can be written, and .*file takes none \(Not a dir"):
            check_writable(path)

    def refuses(**_):
        raise PermissionError(errno.EACCES, "Permission denied")

    with pytest.raises(ValueError, match=r"^\S+file must lie where .*file takes none \(Not a dir"):
        check_takes_files(tmp_path / "file")
    monkeypatch.setattr(tempfile, "TemporaryFile", refuses)
    with pytest.raises(ValueError, match=r"new/folder must lie .* takes none \(Permission denied\); give another path"):
        check_takes_files(tmp_path / "new" / "folder")
    assert [path.name for path in tmp_path.iterdir()] == ["file"]
