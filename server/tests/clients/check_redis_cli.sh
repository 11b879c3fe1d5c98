#!/usr/bin/env bash
# redis-cli and redis-benchmark, as the distribution packages them, against the server.
#
#     check_redis_cli.sh HOST:PORT
#
# The expected texts are the output of redis-cli, so that a reply of the wrong type is noticed. Keys
# are fresh for each run, so that the server need not be empty. redis-benchmark's figures are printed
# as a by-product; the check is that the number of entries equals the number of its replies.
set -euo pipefail

[[ $# == 1 ]] || { echo "usage: check_redis_cli.sh HOST:PORT" >&2; exit 2; }
host=${1%:*} port=${1##*:}
stamp=cli$$-$(date +%s%N)
key=messages:$stamp
requests=20000
checks=0

cli() { redis-cli -h "$host" -p "$port" "$@"; }
fail() { echo "redis-cli: $1" >&2; exit 1; }

# expect SENTENCE WANTED WORD... : the output of redis-cli for these words; times are masked, since
# they differ.
expect() {
  local sentence=$1 wanted=$2 found
  found=$(cli "${@:3}" 2>&1 | sed -E 's/\b1[0-9]{12}\b/TIME/g') || true
  [[ $found == "$wanted" ]] || fail "$sentence: got '$found', wanted '$wanted'"
  checks=$((checks + 1))
}

# expect_within SENTENCE PART WORD... : a part of its output.
expect_within() {
  local found
  found=$(cli "${@:3}" 2>&1) || true
  [[ $found == *"$2"* ]] || fail "$1: got '${found:0:300}', wanted '$2' in it"
  checks=$((checks + 1))
}

expect "PING" PONG PING
expect "an append gets 1" 1 TL.APPEND "$key" hello
expect "RESP3 on request" 2 -3 TL.APPEND "$key" again
expect "an entry is three elements" $'1\nTIME\nhello' TL.GET "$key" 1
expect "types show without a terminal too" '1) (integer) 2
2) (integer) TIME
3) "again"' --no-raw TL.LAST "$key"
expect "nothing there is nil" "(nil)" --no-raw TL.GET "$key" 3
expect "a fan-out is numbered in key order" $'3\n1' TL.FANOUT "to all" 2 "$key" "sync:$stamp"
expect "a descending page" $'3\nTIME\nto all\n2\nTIME\nagain' TL.REVRANGE "$key" + - COUNT 2
expect_within "a RESP3 map" '1# "verdict" => "OK"' -3 --no-raw TL.READ "$key" AFTER 3
expect_within "a refusal begins with its word" NOSTORE TL.APPEND nostore:x body
expect_within "an unknown command" "ERR unknown command 'TL.NOSUCH'" TL.NOSUCH
expect_within "COMMAND DOCS, which an interactive redis-cli asks for" summary COMMAND DOCS TL.APPEND
expect_within "COMMAND INFO tells the key's position" tl.append COMMAND INFO TL.APPEND
expect_within "INFO" "redis_version:7." INFO server
expect_within "CONFIG GET" save CONFIG GET save
printf 'a\0b\r\n' | cli -x TL.APPEND "$key" > /dev/null
expect_within "a binary body from standard input" '"a\x00b\r\n"' --no-raw TL.GET "$key" 4

# --pipe writes a file of requests at once and counts the replies.
for at in $(seq 1000); do printf 'TL.APPEND %s-pipe body-%d\r\n' "$key" "$at"; done | cli --pipe > /dev/null ||
  fail "--pipe: some requests were refused or not answered"
expect "all of --pipe is there" $'1000\nTIME\nbody-1000' TL.LAST "$key-pipe"

# A subscriber runs until it is stopped: redis-cli has no limit to wait for. It is called by its own
# name, since a function in the background would run in a shell around it, and `kill` would hit the
# shell.
received=$(mktemp)
trap 'rm -f "$received"' EXIT
redis-cli -h "$host" -p "$port" SUBSCRIBE "$key-push" > "$received" &
subscriber=$!
for _ in $(seq 100); do grep -q subscribe "$received" && break; sleep 0.1; done
expect "an append with a subscriber" 1 TL.APPEND "$key-push" pushed
for _ in $(seq 100); do grep -q '^pushed$' "$received" && break; sleep 0.1; done
kill "$subscriber"
wait "$subscriber" 2> /dev/null || true
[[ $(sed -E 's/\b1[0-9]{12}$/TIME/' "$received") == "subscribe
$key-push
1
message
$key-push
1 TIME
pushed" ]] || fail "the push of an append: got '$(cat "$received")'"
checks=$((checks + 1))
echo "ok $(cli --version): $checks checks"

# benchmark TIMELINES WORD... : one run of $requests appends; pipelines are sent whole, so up to one
# more per client.
benchmark() {
  local timelines=$1 found=0 at
  redis-benchmark -h "$host" -p "$port" -q -n "$requests" "${@:2}" 2>&1 | tr '\r' '\n' | grep 'requests per second' ||
    fail "redis-benchmark ${*:2}: no result"
  for at in $timelines; do found=$((found + $(cli TL.INFO "$at" | sed -n '/^last$/{n;p}'))); done
  ((found >= requests && found < requests + 50 * 16)) ||
    fail "redis-benchmark ${*:2}: $found entries are there behind $requests requests"
}

redis-benchmark -h "$host" -p "$port" -q -n "$requests" -t ping 2>&1 | tr '\r' '\n' | grep 'requests per second' ||
  fail "redis-benchmark -t ping: no result"
benchmark "$key-plain" TL.APPEND "$key-plain" hello
benchmark "$key-wide" -c 50 -P 16 TL.APPEND "$key-wide" hello
random_keys=$(for at in 0 1 2 3; do printf '%s-r%012d ' "$key" "$at"; done)
benchmark "$random_keys" -r 4 -P 16 TL.APPEND "$key-r__rand_int__" hello
echo "ok $(redis-benchmark --version): 4 runs of $requests requests"
