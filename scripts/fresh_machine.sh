#!/usr/bin/env bash
# `make run` and `make test` on a machine that has nothing: a Debian bookworm root made for the purpose, a user
# without privileges, no compiler and no Node; then again with both. Needs root, mmdebstrap and the network.
# usage: scripts/fresh_machine.sh [FOLDER]      the root is made below FOLDER (default: a temporary one, removed after)
set -euo pipefail
cd "$(dirname "$0")/.."

work=${1:-$(mktemp -d)}
[ $# -gt 0 ] || trap 'rm -rf --one-file-system "$work"' EXIT
root=$work/root
mirror=$(apt-get indextargets --format '$(REPO_URI)' 'Identifier: Packages' 'Codename: bookworm' | sort -u | head -1)

if [ ! -d "$root/usr" ]; then
  echo "== making a bare bookworm"
  mmdebstrap --quiet --variant=apt --include=ca-certificates,git,make,python3,python3-venv bookworm "$root" "$mirror"
  echo 'dev:x:1000:1000::/home/dev:/bin/bash' >> "$root/etc/passwd"
  echo 'dev:x:1000:' >> "$root/etc/group"
fi
# The machine's own authorities and name servers, so that the root reaches what this machine reaches.
for file in /etc/ssl/certs/ca-certificates.crt /etc/resolv.conf /etc/hosts; do cp -L "$file" "$root$file"; done
rm -rf "$root/home/dev"
mkdir -p "$root/home/dev/tapewick"
git archive HEAD | tar -x -C "$root/home/dev/tapewick"
chown -R 1000:1000 "$root/home/dev"

# inside USER COMMAND: run in the root with its own mounts and a clean environment
inside() {
  unshare --mount bash -c '
    mount -t proc proc "$1/proc" && mount --rbind /dev "$1/dev"
    exec /usr/sbin/chroot --userspec="$2" "$1" /usr/bin/env -i HOME=/home/dev LANG=C.UTF-8 \
      PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin bash -c "cd /home/dev/tapewick && $3"
  ' inside "$root" "$1" "$2"
}

# shows ENGINE: make run prints one address and names the engine
shows() {
  local said
  said=$(inside 1000:1000 "timeout --signal=INT 60 make run ARGS='--port 0 --no-open'" || true)
  echo "$said"
  [ "$(grep -c 'http://127\.0\.0\.1:' <<< "$said")" = 1 ] && grep -q "$1 engine" <<< "$said"
}

echo "== no compiler, no Node: make run, make test"
inside 1000:1000 "make setup"
shows reference
inside 1000:1000 "make test"

echo "== with compiler and Node: make run, make test"
inside 0:0 "apt-get update -q && apt-get install -q -y --no-install-recommends g++ nodejs python3-dev"
inside 1000:1000 "make setup"
shows native
inside 1000:1000 "make test"
echo "== both ended well"
