"""The real server with this engine, over the wire."""

from pathlib import Path

from tests.service.retrieval.wire import check_a_kill, check_nobody_there


def test_what_was_acknowledged_is_there_after_a_kill(tmp_path: Path, conninfo: str, schema: str) -> None:
    check_a_kill(tmp_path, "pgvector", conninfo, schema)


def test_a_database_that_is_not_there_ends_the_start_without_its_password(tmp_path: Path) -> None:
    url = "postgresql://u:hunter2@127.0.0.1:1/x"
    check_nobody_there(tmp_path, "pgvector", url, r"127\.0\.0\.1:1, database x")
