"""A mutant's source, and which mutants are not counted: those that no test can notice, or should."""

import ast
from typing import Any

from cosmic_ray.mutating import mutate_code
from cosmic_ray.plugins import get_operator
from cosmic_ray.work_item import MutationSpec

IDENTITIES = ("_Eq_Is", "_NotEq_IsNot")  # Python keeps one object of a small number or a word: no test sees a change


class _Bare(ast.NodeTransformer):
    """Takes out of a syntax tree what no test can notice or should: annotations in functions, the texts of errors."""

    def visit_FunctionDef(self, node: ast.FunctionDef) -> ast.AST:  # noqa: N802
        node.returns = None
        for argument in ast.walk(node.args):
            if isinstance(argument, ast.arg):
                argument.annotation = None
        return self._without_annotations(node)

    def visit_Module(self, node: ast.Module) -> ast.AST:  # noqa: N802
        return self._without_annotations(node)

    def visit_Raise(self, node: ast.Raise) -> ast.AST:  # noqa: N802
        return self._without_texts(node)

    def visit_Call(self, node: ast.Call) -> ast.AST:  # noqa: N802
        return self._without_texts(node) if isinstance(node.func, ast.Name) and node.func.id == "print" else node

    def _without_annotations(self, node: Any) -> ast.AST:
        for child in ast.iter_child_nodes(node):
            if isinstance(child, ast.AnnAssign):  # those of a class are its fields
                child.annotation = ast.Constant(None)
        return self.generic_visit(node)

    def _without_texts(self, node: ast.AST) -> ast.AST:
        for child in ast.walk(node):
            if isinstance(child, ast.JoinedStr):
                child.values = []
        return node


def reason_to_leave_out(source: str, spec: MutationSpec) -> str:
    """Returns why a mutant is not counted, "" when it is."""
    if spec.operator_name.endswith(IDENTITIES):
        return "the identity of equal values"
    return compare_programs(source, mutate(source, spec))


def compare_programs(source: str, mutated: str) -> str:
    """Returns why no test can notice, or should, that one source became the other, "" when one should."""
    try:
        compile(mutated, "mutant", "exec")
    except SyntaxError:
        return "does not compile"
    if ast.dump(ast.parse(source)) == ast.dump(ast.parse(mutated)):
        return "the same program"
    bare = [ast.dump(_Bare().visit(ast.parse(text))) for text in (source, mutated)]
    return "an annotation or the text of an error" if bare[0] == bare[1] else ""


def mutate(source: str, spec: MutationSpec) -> str:
    """Returns the source with the one change."""
    operator: Any = get_operator(spec.operator_name)
    mutated = mutate_code(source, operator(**spec.operator_args), spec.occurrence)
    assert mutated is not None, (
        f"{spec.operator_name} has no occurrence {spec.occurrence}: remove outputs/.cache/mutants"
    )
    return mutated
