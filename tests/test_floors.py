"""The rules of the house that a machine can hold."""

import ast
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parent.parent / "blog"

# Each module imports only from floors beneath its own, and never its siblings.
FLOORS = {
    "blog.main": 6,
    "blog.app": 5,
    "blog.asyncapi": 4.5,
    "blog.routers": 4,
    "blog.idempotency": 3.5,
    "blog.conversation": 3.5,
    "blog.dependencies": 3,
    "blog.preconditions": 2.9,
    "blog.site.kept": 3,
    "blog.site.rendering": 3,
    "blog.site.reading": 3.4,
    "blog.site.visitor": 3.5,
    "blog.site.desk": 4.5,
    "blog.site.readers": 2.5,
    "blog.site": 4,
    "blog.grants": 2.75,
    "blog.registration": 2.9,
    "blog.attempts": 2.5,
    "blog.links": 2.5,
    "blog.live": 2.5,
    "blog.__main__": 3,
    "blog.repository": 2,
    "blog.schemas": 1,
    "blog.security": 1,
    "blog.database": 1,
    "blog.middleware": 1,
    "blog.server": 1,
    "blog.mail": 1,
    "blog.markdown": 1,
    "blog.turns": 0.5,
    "blog.search": 1,
    "blog.media": 1,
    "blog.diff": 1,
    "blog.models": 0,
    "blog.errors": 0,
    "blog.logs": 0,
    "blog.metrics": 0,
    "blog.settings": 0,
}
# What the modules of a floor share lives half a floor down.
SHARED = ("blog.schemas.types", "blog.schemas.problem", "blog.repository", "blog.security.access")
WEB_FROM = 2.9
WEB_BELOW = ("blog.middleware",)


def name_of(path: Path) -> str:
    parts = path.relative_to(PACKAGE.parent).with_suffix("").parts
    return ".".join(part for part in parts if part != "__init__")


MODULES = {name_of(path): ast.parse(path.read_text()) for path in sorted(PACKAGE.rglob("*.py"))}


def floor_of(module: str) -> float:
    floor = next(floor for name, floor in FLOORS.items() if module == name or module.startswith(f"{name}."))
    return floor - 0.5 if module in SHARED else floor


def imports_of(tree: ast.Module) -> set[str]:
    found = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, "imports are absolute"
            assert node.module is not None
            # `from blog.routers import user` imports the module blog.routers.user
            found |= {f"{node.module}.{alias.name}" for alias in node.names}
    return found


def own_modules(tree: ast.Module) -> set[str]:
    found = set()
    for name in imports_of(tree):
        if name.startswith("blog"):
            found.add(name if name in MODULES else name.rpartition(".")[0])
    return found


@pytest.mark.parametrize("module", [module for module in MODULES if module != "blog"])
def test_imports_go_down(module: str) -> None:
    for imported in own_modules(MODULES[module]):
        assert floor_of(imported) < floor_of(module), f"{module} imports {imported}"


@pytest.mark.parametrize("module", [module for module in MODULES if module != "blog"])
def test_the_web_is_known_upstairs_only(module: str) -> None:
    if floor_of(module) < WEB_FROM and module not in WEB_BELOW:
        assert not [name for name in imports_of(MODULES[module]) if name.split(".")[0] in ("fastapi", "starlette")]


@pytest.mark.parametrize(
    ("library", "only"),
    [
        ("passlib", "blog.security.passwords"),
        ("jose", "blog.security.tokens"),
        ("cryptography", "blog.security.seals"),
        ("PIL", "blog.media"),
        ("markdown_it", "blog.markdown"),
        ("rapidfuzz", "blog.diff"),
    ],
)
def test_one_importer(library: str, only: str) -> None:
    importers = [
        module for module, tree in MODULES.items() if any(name.split(".")[0] == library for name in imports_of(tree))
    ]
    assert importers == [only]


def calls_of(tree: ast.Module, *methods: str) -> list[str]:
    return [
        node.func.attr
        for node in ast.walk(tree)
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr in methods
    ]


def test_only_the_edge_commits() -> None:
    """A request's session and a command's; and what stands if the request is refused, or is done behind its answer."""
    found = {module: calls_of(tree, "begin", "commit", "rollback", "begin_nested") for module, tree in MODULES.items()}
    assert {module: calls for module, calls in found.items() if calls} == {
        "blog.attempts": ["begin"] * 3,
        "blog.conversation": ["begin"],
        "blog.dependencies": ["begin"] * 3,
        "blog.grants": ["begin"] * 3,
        "blog.links": ["begin"],
        "blog.live": ["begin"] * 2,
        "blog.site.readers": ["begin"],
        "blog.__main__": ["begin"] * 2,
    }


def test_a_route_has_no_depends() -> None:
    for module, tree in MODULES.items():
        if module.startswith("blog.routers."):
            assert not [name for name in imports_of(tree) if name == "fastapi.Depends"]


def test_sql_lives_in_the_repository() -> None:
    """And what each engine's full text search is asked, in the module that knows how they differ."""
    builders = {"sqlalchemy.select", "sqlalchemy.insert", "sqlalchemy.update", "sqlalchemy.delete", "sqlmodel.select"}
    for module, tree in MODULES.items():
        if not module.startswith("blog.repository") and module != "blog.search":
            assert not imports_of(tree) & builders, module


def test_every_public_thing_says_what_it_is() -> None:
    for module, tree in MODULES.items():
        assert ast.get_docstring(tree), module
