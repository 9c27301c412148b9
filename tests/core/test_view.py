from coloc_topology.shape import quads
from colocd.core.view import View, decode_view, encode_view


def test_view_document_is_stable() -> None:
    view = View(at=1.0, shapes={"quads": quads()})
    assert encode_view(decode_view(encode_view(view))) == encode_view(view)
