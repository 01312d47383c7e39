# A todo application on SQLAlchemy with bemi-sqlalchemy: `migrate`, which installs its triggers, or `write`.
import os
import sys

from alembic.migration import MigrationContext
from alembic.operations import Operations
from bemi import Bemi
from sqlalchemy import BigInteger, Boolean, Text, create_engine, text
from sqlalchemy.orm import DeclarativeBase, Session, mapped_column

engine = create_engine(os.environ["DATABASE_URL"].replace("postgres://", f"postgresql+{os.environ['DRIVER']}://"))


class Base(DeclarativeBase):
    pass


class Todo(Base):
    __tablename__ = "todos"
    id = mapped_column(BigInteger, primary_key=True)
    task = mapped_column(Text)
    is_completed = mapped_column(Boolean, default=False)


def migrate():
    with engine.begin() as connection, Operations.context(MigrationContext.configure(connection)):
        Bemi.migration_upgrade()


def write():
    with Session(engine) as session:
        Bemi.set_context({"user_id": 1, "email": "zoë@example.com", "path": "/a b"})
        session.add(Todo(task="Sleep"))
        session.commit()
        Bemi.set_context({"user_id": 2})
        session.add_all([Todo(task='say "hi", \\ twice'), Todo(task="line\nbreak")])
        session.commit()
        Bemi.set_context({"user_id": 3})
        session.query(Todo).filter(Todo.task == "Sleep").update({"is_completed": True})
        session.commit()
        Bemi.set_context({"user_id": 4})
        session.execute(text("DELETE FROM todos WHERE task = :task"), {"task": 'say "hi", \\ twice'})
        session.commit()
        Bemi.set_context(None)
        session.add(Todo(task="nobody"))
        session.commit()


{"migrate": migrate, "write": write}[sys.argv[1]]()
