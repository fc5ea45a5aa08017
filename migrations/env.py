"""How Alembic reaches the database: by the platform's own settings, one process at a time."""

import asyncio
import logging.config
from collections.abc import Iterable

from alembic import context
from alembic.operations import MigrationScript
from alembic.runtime.migration import MigrationContext
from alembic.util import CommandError
from sqlalchemy import Connection, Table, event, inspect, text
from sqlmodel import SQLModel

import blog.models  # noqa: F401  (its tables are the target)
from blog.database import MIGRATION_LOCK_TIMEOUT, make_engine
from blog.settings import Settings, read_settings


def settings() -> Settings:
    """Those of the caller, or of the environment when Alembic was started on its own."""
    given: Settings | None = context.config.attributes.get("settings")
    if given is not None:
        return given
    if context.config.config_file_name is not None:
        logging.config.fileConfig(context.config.config_file_name, disable_existing_loggers=False)
    return read_settings()


def refuse_taken_name(_: MigrationContext, __: object, directives: Iterable[MigrationScript]) -> None:
    """Alembic would overwrite a migration of the same day and message without a word."""
    script = context.script
    for directive in directives:
        folder = directive.version_path or script.versions
        name = script._rev_path(folder, str(directive.rev_id), directive.message, script._generate_create_date())
        if name.exists():
            raise CommandError(f"{name} exists: say in other words what this one does")


def is_in_the_models(name: str | None, *_: object) -> bool:
    """Whether a table, column or index is looked at: what each engine's full text search has is in no model."""
    return name not in ("vector", "ix_blog_text_vector", "ix_blog_text_terms") and not f"{name}".startswith(
        "blog_terms"
    )


def run(connection: Connection | None, dialect: str) -> None:
    """Run the migrations, or print them when there is no connection, under the engine's lock."""
    context.configure(
        connection=connection,
        dialect_name=dialect,
        target_metadata=SQLModel.metadata,
        literal_binds=connection is None,
        dialect_opts={"paramstyle": "named"},
        # Alembic believes of SQLite what its driver used to do; make_engine begins for real.
        transactional_ddl=True if dialect == "sqlite" else None,
        include_name=is_in_the_models,
        render_as_batch=True,  # SQLite alters a table by making it anew
        process_revision_directives=refuse_taken_name,
    )
    with context.begin_transaction():
        if dialect == "postgresql":
            context.execute(f"SET LOCAL lock_timeout = '{MIGRATION_LOCK_TIMEOUT}s'")
            context.execute("SELECT pg_advisory_xact_lock(hashtext('blog.migrations'))")
        if connection is not None and dialect == "sqlite":
            run_on_sqlite(connection)
        else:
            context.run_migrations()


def run_on_sqlite(connection: Connection) -> None:
    """Run the migrations; see that no row refers to nothing, and that no id is handed out twice."""
    before = handed_out(connection)
    context.run_migrations()
    orphans = connection.exec_driver_sql("PRAGMA foreign_key_check").all()
    if orphans:
        raise CommandError(f"{len(orphans)} rows would refer to nothing; the database is as it was")
    # A table that was made anew knows only the ids that it holds.
    after = handed_out(connection)
    for name in before.keys() & set(inspect(connection).get_table_names()):
        connection.execute(text("DELETE FROM sqlite_sequence WHERE name = :name"), {"name": name})
        last = {"name": name, "seq": max(before[name], after.get(name, 0))}
        connection.execute(text("INSERT INTO sqlite_sequence (name, seq) VALUES (:name, :seq)"), last)


def handed_out(connection: Connection) -> dict[str, int]:
    """The last id that SQLite gave in each table."""
    if not inspect(connection).has_table("sqlite_sequence"):
        return {}
    return {row.name: row.seq for row in connection.execute(text("SELECT name, seq FROM sqlite_sequence"))}


@event.listens_for(Table, "before_create")
def never_hand_out_an_id_twice(table: Table, *_: object, **__: object) -> None:
    """Altering a table in SQLite makes it anew, by what is seen of it, and AUTOINCREMENT is not seen."""
    if table.autoincrement_column is not None and len(table.primary_key.columns) == 1:
        table.dialect_options["sqlite"]["autoincrement"] = True


async def run_online(chosen: Settings) -> None:
    """Run against the database itself."""
    engine = make_engine(chosen.url, pool_size=1, migrates=True)  # on SQLite BEGIN IMMEDIATE is the lock
    try:
        async with engine.connect() as connection:
            if engine.dialect.name == "mysql":
                # DDL commits by itself here, so the lock is the session's, not the transaction's.
                lock = text("SELECT GET_LOCK(CONCAT('blog.', LEFT(DATABASE(), 59)), :timeout)")
                if await connection.scalar(lock, {"timeout": MIGRATION_LOCK_TIMEOUT}) != 1:
                    raise CommandError("another process is migrating this database and does not end")
                await connection.commit()
            await connection.run_sync(run, chosen.url.get_backend_name())
    finally:
        await engine.dispose()


chosen = settings()
if context.is_offline_mode():
    run(None, chosen.url.get_backend_name())
else:
    asyncio.run(run_online(chosen))
