"""Facts of one node: the domains it is in, and whether it takes replicas."""

from colocd.core.service import Closeness
from colocd.core.view import Node


def domain_of(node: Node, closeness: Closeness) -> str | None:
    """The node's domain; None: not known, so nothing can be promised of it."""
    match closeness:
        case Closeness.NVLINK:
            return node.nvlink_domain
        case Closeness.LEAF:
            return node.leaf
        case Closeness.BLOCK:
            return node.block
        case Closeness.ANY:
            return "the cluster"


def shut(node: Node) -> str | None:
    """Why a node takes no replica now, whoever asks; None: it does."""
    if not node.up:
        return f"is {node.state or 'not up'}"
    if node.used is None:
        return "its used GPUs could not be read"
    if node.reserved:
        return "is reserved by somebody else"
    return "has a handover under way" if node.fence is not None else None
