# Runs steps, two at a time where they are started so, and reports them in order.
#
#   step NAME COMMAND...    runs a step alone
#   start NAME COMMAND...   starts a step as soon as fewer than two run
#   finish                  waits for all that were started
#
# The output of a step goes to $logs/NAME.log. A step that returns 77 was left
# out: its last line says what is missing. On a machine for continuous
# integration (CI is set) nothing may be missing, so that counts as a failure.

AT_ONCE=2
SHOWN="coverage" # steps whose whole log is shown
queue=() # started and not yet reported
times=()
failed=()
left_out=()

last_line() { # of a log, without what TensorFlow's runtime says at its end
  grep -Ev "^[IWE][0-9]{4} |^WARNING" "$1" | tail -n 1 | cut -c 1-100
}

start() {
  local name=$1
  shift
  while [ "$(jobs -rp | grep -c .)" -ge "$AT_ONCE" ]; do
    wait -n || true
    report
  done
  rm -f "$logs/$name.status"
  queue+=("$name")
  set -m # a group of processes for each step, so that all of it can be ended
  run_in_log "$name" "$@" &
  set +m
}

run_in_log() {
  local name=$1 begin=$SECONDS code=0
  shift
  set +e
  ("$@") </dev/null >"$logs/$name.log" 2>&1
  code=$?
  echo "$code $((SECONDS - begin))" >"$logs/$name.new"
  mv "$logs/$name.new" "$logs/$name.status"
}

report() { # the steps that are over, up to the first that still runs
  while [ ${#queue[@]} -gt 0 ] && [ -f "$logs/${queue[0]}.status" ]; do
    report_one "${queue[0]}" $(<"$logs/${queue[0]}.status")
    queue=("${queue[@]:1}")
  done
}

report_one() { # report_one NAME CODE SECONDS
  local log=$logs/$1.log
  times+=("$1 $3,")
  case $2 in
    0)
      echo "ok       $1 ($3 s): $(last_line "$log")"
      case " $SHOWN " in *" $1 "*) sed "s/^/         /" "$log" ;; esac
      ;;
    77)
      left_out+=("$1")
      echo "left out $1: $(last_line "$log")"
      ;;
    *)
      failed+=("$1")
      echo "FAILED   $1 ($3 s), see $log:"
      tail -n 60 "$log"
      ;;
  esac
}

finish() {
  wait
  report
  local name
  for name in "${queue[@]}"; do # ended from outside, for want of memory say
    report_one "$name" killed "?"
  done
  queue=()
}

step() {
  finish
  start "$@"
  finish
}

needed() { # needed NAME COMMAND...: nothing else can run without this step
  step "$@"
  if [ ${#failed[@]} -gt 0 ] || [ ${#left_out[@]} -gt 0 ]; then
    echo "Nothing else can run without the step $1."
    exit 1
  fi
}

summary() { # and the exit status
  echo "Seconds: ${times[*]} in all $SECONDS."
  if [ ${#left_out[@]} -gt 0 ]; then echo "Left out: ${left_out[*]}"; fi
  if [ ${#failed[@]} -gt 0 ]; then
    echo "FAILED: ${failed[*]}"
    exit 1
  fi
  if [ -n "${CI:-}" ] && [ ${#left_out[@]} -gt 0 ]; then
    echo "CI is set: nothing may be left out."
    exit 1
  fi
  echo "All checks that ran passed in $SECONDS s."
}

end_steps() { # whatever still runs, when the script is interrupted
  local group
  for group in $(jobs -rp); do kill -- "-$group" 2>/dev/null || true; done
  wait
}
trap end_steps EXIT
trap 'exit 130' INT
trap 'exit 143' TERM
