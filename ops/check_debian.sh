#!/bin/sh
# Installs the package on this machine, uses it, removes it, and checks that data and settings stay
# as long as they should. For a machine that may be changed: it needs root.
#
#     ops/check_debian.sh strandline_….deb
set -eu
package=$1
data=/var/lib/strandline/data

fail() {
    echo "check_debian.sh: $*" >&2
    exit 1
}

# Waits until a command succeeds.
wait_for() {
    what=$1
    shift
    tries=0
    until "$@" > /dev/null 2>&1; do
        tries=$((tries + 1))
        [ "$tries" -lt 300 ] || fail "waited in vain for $what"
        sleep 0.1
    done
}

has_backup() {
    ls /var/lib/strandline/backups | grep -v partial
}

# Whether systemd runs here; without it the server is started by hand, as the unit does it.
has_systemd() {
    [ -d /run/systemd/system ]
}

start() {
    if has_systemd; then
        systemctl start strandline
    else
        # Not runuser, which takes the signal of the stop for itself.
        setpriv --reuid=strandline --regid=strandline --init-groups \
            /usr/bin/strandline serve --config /etc/strandline/strandline.toml &
        server=$!
    fi
    wait_for "an answer of the server" /usr/bin/strandline health
}

stop() {
    if has_systemd; then
        systemctl stop strandline
    else
        kill -TERM "$server"
        wait "$server" || fail "the server ended with an error"
    fi
}

[ ! -e /var/lib/strandline ] || fail "/var/lib/strandline is there already: use a fresh machine"
dpkg -i "$package"
[ "$(stat -c %s /usr/bin/strandline)" -le 10485760 ] || fail "the program has more than 10 MiB"
if command -v systemd-analyze > /dev/null; then
    systemd-analyze verify strandline.service || fail "systemd finds fault with the unit"
fi
getent passwd strandline > /dev/null || fail "there is no user strandline"
[ "$(stat -c %U:%a /var/lib/strandline)" = strandline:700 ] || fail "others may read the data"
[ "$(stat -c %U:%a /etc/strandline/strandline.toml)" = strandline:640 ] || fail "others may read the settings"
start
wait_for "the first backup" has_backup
stop
[ "$(stat -c %U "$data")" = strandline ] || fail "the data belongs to another user"
runuser -u strandline -- /usr/bin/strandline verify "$data" || fail "the data is damaged"
runuser -u strandline -- /usr/bin/strandline verify "/var/lib/strandline/backups/$(has_backup)" ||
    fail "the backup is damaged"

echo "# mine" >> /etc/strandline/strandline.toml
dpkg -i "$package"
grep -q "# mine" /etc/strandline/strandline.toml || fail "an upgrade changed the settings"

has_systemd && stop
dpkg -r strandline
[ ! -e /usr/bin/strandline ] || fail "the program is left"
[ -e /etc/strandline/strandline.toml ] || fail "the removal took the settings"
[ -e "$data" ] || fail "the removal took the data"
dpkg -P strandline
[ ! -e /etc/strandline/strandline.toml ] || fail "the purge left the settings"
[ -e "$data" ] || fail "the purge took the data"
getent passwd strandline > /dev/null || fail "the data has no user any more"

dpkg -i "$package"
start
stop
runuser -u strandline -- /usr/bin/strandline verify "$data" || fail "the data is damaged"
dpkg -P strandline
rm -r /var/lib/strandline
deluser --system --quiet strandline
echo "ok the package installs, upgrades, and goes; data and user stay"
