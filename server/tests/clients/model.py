"""The reference model of the wire contract, except that it sends no integer above 2^63 - 1.

    model.py FOLDER [option of oracle.py ...]

Sequences are integers from 1 to 2^63 - 1, and clients have no others: at the highest sequence the
server also returns it as the one after it (docs/protocol.md). The model in FOLDER returns one more.
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

    resp.encode = bounded  # also for the elements of an array or a map
    import oracle

    oracle.main()


if __name__ == "__main__":
    main()
