#!/bin/sh
# Stands in for `ctr`: gives the recorded answers that lie beside the socket it is pointed at, and refuses every question
# but the three that `lazaret-image` asks, in these words. Committed, not written by the tests: a file that was just
# written cannot always be executed (ETXTBSY, when another thread forks meanwhile).
cd "${2%/*}" || exit 1
[ "$1 $2 $3 $4" = "--address $PWD/c.sock --namespace test" ] || { echo "ctr: unexpected: $*" >&2; exit 1; }
shift 4
case "$*" in
"containers info c1") exec /bin/cat container ;;
"images ls name==docker.io/example/hello:1") exec /bin/cat images ;;
"snapshots --snapshotter overlayfs info c1") exec /bin/cat snapshot ;;
esac
echo "ctr: unexpected: $*" >&2
exit 1
