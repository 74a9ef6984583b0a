"""How a search worker and a user's own training container work together: files in one folder that both see.

The worker never runs the user's code and the user's code never sees the store, credentials or the API server. Both
sides of the agreement are here: the names of the files, and the shell loop that stands in front of the user's command.
"""

from typing import Final

EXCHANGE_DIR: Final = "/retune"
"""The folder, in both containers."""
EXCHANGE_VARIABLE: Final = "RETUNE_EXCHANGE"
"""Environment variable of the worker with the folder; without it no training container stands beside the worker."""

REQUEST: Final = "request"
"""Names the folder of the trial to run; taken away when it starts."""
ENVIRONMENT: Final = "environment"
"""Lines NAME=VALUE that the command finds in its environment."""
CANCEL: Final = "cancel"
"""Appears when the trial is given up."""
LOG: Final = "log"
"""What the command printed."""
EXIT: Final = "exit"
"""Appears when the command has ended, with its exit code."""
READY: Final = "ready"
"""Appears in the exchange's folder when the container stands by."""

# Needs nothing but a POSIX shell with mv, rm, sleep and cat. Where there is setsid, what the command has started ends
# with it. A trial that an earlier life of the container left behind has ended with 143.
LOOP: Final = """\
trap 'exit 0' TERM
cd "$1" || exit 1
shift
session=$(command -v setsid)
nap() { sleep 0.2 2>/dev/null || sleep 1; }
ended() { echo "$2" > "$1/.exit" && mv "$1/.exit" "$1/exit"; }
run() {
  trial=$1
  shift
  while IFS= read -r line; do export "$line"; done < "$trial/environment"
  exec $session /bin/sh -c 'echo $$ > "$0/pid"; exec "$@"' "$trial" "$@"
}
for trial in trials/*; do
  [ -d "$trial" ] && [ ! -f "$trial/exit" ] && ended "$trial" 143
done
: > ready
while :; do
  until [ -f request ]; do nap; done
  read -r trial < request
  rm -f request
  {
    (run "$trial" "$@") > "$trial/log" 2>&1 < /dev/null
    code=$?
    echo "$trial ended with exit code $code"
    cat "$trial/log"
    ended "$trial" "$code"
  } &
  until [ -f "$trial/exit" ] || [ ! -d "$trial" ]; do
    if [ -f "$trial/cancel" ] && [ -f "$trial/pid" ]; then
      read -r pid < "$trial/pid"
      kill -KILL "-$pid" 2>/dev/null || kill -KILL "$pid" 2>/dev/null
    fi
    nap
  done
done
"""


def command(exchange: str, words: tuple[str, ...]) -> list[str]:
    """Return what the container runs: the loop, in front of the user's command."""
    return ["/bin/sh", "-c", LOOP, "sh", exchange, *words]
