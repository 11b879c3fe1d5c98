"""A terminal of one user: it keeps the lines it shows, and the cursor that belongs to them, in one
file. See docs/messaging.md.
    terminal.py HOST:PORT USER FILE          each line of input, `conversation text`, is sent

Bodies are any bytes: one that is not UTF-8 is kept with surrogate escapes, and no part of a body or
an id controls the screen."""
import json, pathlib, redis, sys, threading, uuid

def shown(value):  # Escape sequences, line ends and bytes that are not UTF-8 become \x.. and the like.
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in str(value))

class Terminal:
    def __init__(self, address, user, file):
        # Retries for ever. A sync may be repeated since it has a cursor, a send since it has an ID.
        again = redis.retry.Retry(redis.backoff.ConstantBackoff(0.2), -1)
        # The timeout is above BLOCK (2 s): otherwise a quiet server would look like a dead one. See
        # docs/clients.md.
        client = redis.Redis.from_url(f"redis://{address}", protocol=3, decode_responses=True, retry=again,
            encoding_errors="surrogateescape", socket_timeout=10)
        self.call, self.user, self.file = client.execute_command, user, pathlib.Path(file)
        self.state = json.loads(self.file.read_text()) if self.file.exists() else None
    def live(self):
        if self.state is None:
            self.start_again("NEW")
        # Catching up and staying live are the same: while entries are missing, BLOCK does not wait.
        while True:
            page = self.call("IM.SYNC", self.user, self.state["cursor"], "COUNT", 10, "BLOCK", 2000)
            # TRIMMED: it was away for too long. EPOCH, FUTURE: the server has another history.
            if page["verdict"] != "OK":
                self.start_again(page["verdict"])
                continue
            for entry in page["entries"]:
                self.apply(*entry[:6])
            self.save(page["cursor"])
    # The cursor first, then the newest entries of each conversation: entries that arrive twice are
    # harmless.
    def start_again(self, why):
        print("start", why, flush=True)
        cursor, after, self.state = self.call("IM.TAIL", self.user), None, {"shown": {}, "read": {}}
        while after != "":
            listed = self.call("IM.CONVERSATIONS", self.user, "AFTER", after or "")
            for item in listed["items"]:
                self.state["read"][item["conv"]] = item["read"]
                for entry in reversed(self.call("IM.HISTORY", item["conv"], self.user, "COUNT", 50)):
                    self.apply(item["conv"], *entry[:5])
            after = listed["next"]
        self.save(cursor)
    def apply(self, conv, seq, time, sender, kind, body):
        lines, read = self.state["shown"].setdefault(conv, {}), self.state["read"]
        if kind in ("message", "join", "leave"):
            lines[str(seq)] = [sender, kind, body]
        elif kind == "edit" and str(seq) in lines:
            lines[str(seq)][2] = body
        elif kind in ("recall", "hide"):
            lines.pop(str(seq), None)
        elif kind == "read":
            read[conv] = max(seq, read.get(conv, 0))
        print(*map(shown, (conv, seq, sender, kind, body)), flush=True)
    def save(self, cursor):
        self.state["cursor"] = cursor
        new = self.file.with_suffix(".new")
        new.write_text(json.dumps(self.state))
        new.replace(self.file)
    def send(self, conv, text):  # An ID that is kept with its text until the reply survives this process too.
        try:
            self.call("IM.SEND", conv, self.user, text, "ID", uuid.uuid4().hex)
        except redis.ResponseError as refusal:
            print("refused:", shown(refusal), flush=True)

if __name__ == "__main__":
    sys.stdin.reconfigure(errors="surrogateescape")
    terminal = Terminal(*sys.argv[1:])
    sending = lambda: [terminal.send(*line.rstrip("\n").partition(" ")[::2]) for line in sys.stdin]
    threading.Thread(target=sending, daemon=True).start()
    terminal.live()
