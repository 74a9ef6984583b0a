"""How a Job and a container of the owner's own work together: by files in a folder that both see.

The Job never runs the owner's code, and the owner's code never sees the store, credentials or the API server. Here are
the names of the files and the shell loop that runs in the container and starts the owner's command for each trial: a
training, or a measurement.
"""

from typing import Final

EXCHANGE_DIR: Final = "/retune"
"""Path of the folder that a search worker and a training container share, in both containers."""
EXCHANGE_VARIABLE: Final = "RETUNE_EXCHANGE"
"""Environment variable of the worker that names the folder. Not set where no training container runs beside it."""
METRIC_DIR: Final = "/retune-metric"
"""Path of the folder that a Job and a container that measures share, in both containers."""
METRIC_VARIABLE: Final = "RETUNE_METRIC_EXCHANGE"
"""Environment variable of the Job that names that folder. Not set where no such container runs beside it."""

REQUEST: Final = "request"
"""File that names the folder of the trial to run; removed when the trial starts."""
ENVIRONMENT: Final = "environment"
"""File of a trial with lines NAME=VALUE, which the command gets as environment variables."""
CANCEL: Final = "cancel"
"""File that the worker puts into the folder of a trial that it gives up."""
LOG: Final = "log"
"""File of a trial with what the command printed."""
EXIT: Final = "exit"
"""File of a trial that appears when the command has ended, with its exit code."""
READY: Final = "ready"
"""File that appears in the shared folder when the container is ready for trials."""

# Needs a POSIX shell with mv, rm, sleep and cat. Where there is setsid, processes that the command has started end with
# it. A trial that was running when the container was restarted ends with exit code 143.
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


def command(exchange: str, own_command: tuple[str, ...]) -> list[str]:
    """Return the command of the container: the loop, which starts the owner's command for each trial.

    Args:
        exchange: Path of the shared folder in the container.
        own_command: Words of the owner's command.
    """
    return ["/bin/sh", "-c", LOOP, "sh", exchange, *own_command]
