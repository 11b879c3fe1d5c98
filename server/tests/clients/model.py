"""The reference model of the wire contract, but that it sends no integer above 2^63 - 1.

    model.py FOLDER [option of oracle.py ...]

Sequences are integers from 1 to 2^63 - 1, and clients have no others: at the highest one the server says that for the
place behind it, too (docs/protocol.md). The model in FOLDER counts on.
"""

from __future__ import annotations

import sys

HIGHEST = 2**63 - 1


def main() -> None:
    sys.path.insert(0, sys.argv.pop(1))
    import resp

    encode = resp.encode

    def bounded(value, protocol: int) -> bytes:
        if isinstance(value, int) and value > HIGHEST:
            value = HIGHEST
        return encode(value, protocol)

    resp.encode = bounded  # also for what is inside of an array or a map
    import oracle

    oracle.main()


if __name__ == "__main__":
    main()
