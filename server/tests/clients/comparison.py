"""The random commands of the reference model's folder, with one thing put right.

    comparison.py FOLDER [option of differential.py ...]

Now and then the folder's differential.py calls a command with an argument too few or too many. An
IM.JOIN or IM.LEAVE can be valid like that, but its book of members does not learn of it; later it
expects pushes to a user who has left, and neither server sends them. Here both servers are asked
who the members are before a push is expected.
"""

from __future__ import annotations

import sys


def main() -> int:
    sys.path.insert(0, sys.argv.pop(1))
    import comparing
    import differential

    pushed = comparing.Sides.pushed

    def pushed_to_members(sides, user: str, act) -> None:
        def act_on_members():
            end = act()
            members = sides.both(comparing.plain, "IM.MEMBERS", end[0]) if end else []
            return end if user.encode() in members else None

        pushed(sides, user, act_on_members)

    comparing.Sides.pushed = pushed_to_members
    return differential.main()


if __name__ == "__main__":
    sys.exit(main())
