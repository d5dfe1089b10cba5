#!/usr/bin/env bash
# Installs one of shardmesh's services on this machine, or brings it up to date. Every step is printed before it is
# done; a second run changes nothing. It starts nothing: a service has to know its mesh first; the last lines say how.
set -euo pipefail

usage() {
    cat << 'TEXT'
usage: deploy/install.sh node|coordinator [--prefix DIRECTORY]

  node          this device computes: the service shardnode
  coordinator   this device keeps the mesh: the service coordinator
  --prefix      where shardmesh lies, with its .venv (make setup); /opt/shardmesh if not said

Run it as root. It makes the service's user, the directory of the service's state, /etc/shardmesh with a sample of the
configuration (one that is there is kept), and the service itself, which it neither starts nor restarts.
TEXT
}

fail() {
    echo "install.sh: $1" >&2
    exit "${2:-1}"
}

# Print a command, then run it.
run() {
    echo "  $*"
    "$@"
}

# Refuse a path that the units' ProtectHome and PrivateTmp keep from the services, wherever links lead to.
must_be_seen() {
    local path
    for path in "$1" "$(readlink -m "$1")"; do
        case $path/ in
            /home/* | /root/* | /run/user/* | /tmp/* | /var/tmp/*) fail "the services cannot see $path; $2" 2 ;;
        esac
    done
}

deploy=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
role=""
prefix=/opt/shardmesh
while [ $# -gt 0 ]; do
    case $1 in
        -h | --help) usage; exit 0 ;;
        node | coordinator) [ -z "$role" ] || fail "one of node and coordinator at a time" 2; role=$1; shift ;;
        --prefix) [ $# -ge 2 ] || fail "--prefix needs a directory" 2; prefix=${2%/}; shift 2 ;;
        *) fail "what is '$1'? see: deploy/install.sh --help" 2 ;;
    esac
done
case $role in
    node) service=shardnode user=shardmesh state=/var/lib/shardmesh ;;
    coordinator) service=coordinator user=shardmesh-coordinator state=/var/lib/shardmesh-coordinator ;;
    *) usage >&2; exit 2 ;;
esac
# It goes into the unit as it stands, where a space ends a word and % begins a specifier.
[[ $prefix =~ ^/[A-Za-z0-9/._-]+$ && $prefix != */..* ]] ||
    fail "--prefix: an absolute path of letters, digits and /._- only" 2
must_be_seen "$prefix" "move shardmesh, best to /opt/shardmesh"
bin=$prefix/.venv/bin
config=/etc/shardmesh/$service.toml
unit=/etc/systemd/system/$service.service

[ "$(id -u)" = 0 ] || fail "run it as root"
command -v systemctl > /dev/null || fail "this machine has no systemd"
[ -x "$bin/$service" ] || fail "there is no $bin/$service; run make setup in $prefix first"
# A .venv is only links to the Python that it was made from.
must_be_seen "$bin/python" "make .venv from the system's Python: rm -r .venv && make setup PYTHON=/usr/bin/python3"

echo "The users that the services run as:"
run install -D -m 644 "$deploy/systemd/shardmesh.sysusers" /etc/sysusers.d/shardmesh.conf
run systemd-sysusers /etc/sysusers.d/shardmesh.conf
runuser -u $user -- "$bin/$service" --help > /dev/null ||
    fail "the user $user cannot run $bin/$service (see above); it has to be readable by everyone"

echo "Where its state lies, which nobody else may enter:"
if [ ! -e "$state" ] || [ "$(stat --format=%U "$state")" = "$user" ]; then
    run install -d -o $user -g $user -m 700 "$state"
elif systemctl --quiet is-active "$service"; then # all of it is given away at its next start, not under one that runs
    echo "  $state is $(stat --format=%U "$state")'s; systemd gives it to $user when $service is started again"
else # a disk of its own that is new, or state of when both services were one user
    run chown --recursive --no-dereference $user:$user "$state" && run chmod 700 "$state"
fi
echo "Its configuration:" && run install -d -m 755 /etc/shardmesh
if [ ! -e "$config" ]; then
    run install -m 644 "$deploy/config/$service.toml" "$config"
elif cmp -s "$deploy/config/$service.toml" "$config"; then
    echo "  $config is the sample already"
else
    echo "  $config was edited and is kept; the sample is $deploy/config/$service.toml"
fi

echo "The service:"
echo "  $deploy/systemd/$service.service -> $unit, for $prefix"
sed "s#/opt/shardmesh/#$prefix/#g" "$deploy/systemd/$service.service" | install -m 644 /dev/stdin "$unit"
run systemctl daemon-reload

as="runuser -u $user --"
echo
# The ports of the samples; /etc/shardmesh may say others.
if [ "$role" = coordinator ]; then
    echo "Where a firewall is in the way, open 29500 to nodes, 29501 to devices that join,"
    echo "and 29510 to your Prometheus, if $config has metrics-listen = \"0.0.0.0:29510\"."
else
    echo "Where a firewall is in the way, open 50051 to the coordinator,"
    echo "and 9400 to your Prometheus, if $config has metrics-listen = \"0.0.0.0:9400\"."
fi
if systemctl --quiet is-active "$service"; then
    echo "It runs. To have it run what is installed now: systemctl restart $service"
elif [ "$role" = coordinator ] && [ ! -e "$state/authority.key" ]; then
    echo "Next, make a mesh and start:"
    echo "  $as $bin/coordinator-cli mesh init --state-dir $state"
    echo "  systemctl enable --now coordinator"
elif [ "$role" = node ] && [ ! -e "$state/identity" ]; then
    echo "Next, join a mesh with the token that \`coordinator-cli mesh invite\` prints, put what it says into $config:"
    echo "  $as $bin/shardnode join TOKEN --data-dir $state"
    echo "  systemctl enable --now shardnode"
else
    echo "Next: systemctl enable --now $service"
fi
