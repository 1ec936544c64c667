"""What both ends of the wire must agree on beyond the messages: tensors, digests, derived maps.

Pure functions on numpy arrays; no I/O. Client and server both import it, so that neither can
drift from the other.
"""

from expertplane.wire.digest import digest_phy2log
from expertplane.wire.maps import derive_log2phy, derive_logcnt
from expertplane.wire.tensors import TensorError, decode_tensor, encode_tensor


__all__ = [
    "TensorError",
    "decode_tensor",
    "derive_log2phy",
    "derive_logcnt",
    "digest_phy2log",
    "encode_tensor",
]
