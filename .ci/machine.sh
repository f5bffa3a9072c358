# Finds the programs that the checks need, and installs those that are missing.
#
# Machines differ: Debian's npm cannot be installed beside another Node.js, and
# not everybody is root. So each program is looked for by its command, and only
# a missing one is asked for, by itself. Functions return 77 where they cannot
# install anything, after one line that says what to install.

BROWSERS="chromium chromium-browser google-chrome google-chrome-stable"
LEFT_OUT=77

first_of() { # first_of COMMAND...: prints the first command that starts
  local command
  for command; do
    "$command" --version </dev/null >/dev/null 2>&1 || continue
    command -v "$command"
    return 0
  done
  return 1
}

as_root() {
  if [ "$(id -u)" = 0 ]; then "$@"; else sudo -n "$@"; fi
}

can_install() {
  command -v apt-get >/dev/null && as_root true 2>/dev/null
}

install_package() {
  as_root apt-get update || true # the lists that are here may do
  as_root env DEBIAN_FRONTEND=noninteractive \
    apt-get install -y --no-install-recommends "$1" && return
  echo "apt-get could not install $1"
  return 1
}

say_what_to_install() {
  echo "install $* (Debian, Ubuntu: apt-get install $*)"
  return $LEFT_OUT
}

# need "PACKAGE COMMAND..."...: one of the commands of each, else its package
need() {
  local words missing=()
  for words; do
    # shellcheck disable=SC2086
    first_of ${words#* } || missing+=("${words%% *}")
  done
  if [ ${#missing[@]} -gt 0 ] && ! can_install; then
    say_what_to_install "${missing[@]}"
    return
  fi
  for words; do # looked for again: Node.js may have brought npm
    # shellcheck disable=SC2086
    first_of ${words#* } && continue
    install_package "${words%% *}" || return
    # shellcheck disable=SC2086
    first_of ${words#* } && continue
    echo "apt-get installed ${words%% *}, but there is no ${words#* }"
    return 1
  done
}

compiles() {
  gcc -x c -c -o /dev/null - <<<"#include <stdio.h>"
}

need_compiler() { # a program in C runs exported models
  need "gcc gcc" || return
  compiles && return
  if can_install; then
    install_package libc6-dev && compiles
  else
    say_what_to_install libc6-dev
  fi
}

need_browser() { # runs the page of examples/browser
  need "chromium $BROWSERS" "nodejs node" "npm npm"
}

need_environment() { # .venv with pip, whatever was there
  local python=${PYTHON:-python3} version
  .venv/bin/python -m pip --version 2>/dev/null && return
  if ! version=$("$python" -c \
    'import sys; print("%d.%d" % sys.version_info[:2])'); then
    echo "install Python 3.11 or later, or set PYTHON to its command"
    return 1
  fi
  if [ "$(printf '3.11\n%s\n' "$version" | sort -V | head -n 1)" != 3.11 ]; then
    echo "$python is $version: set PYTHON to a Python 3.11 or later"
    return 1
  fi
  "$python" -m venv .venv && return
  # Debian ships Python without what venv needs.
  if can_install; then
    install_package "python$version-venv" && "$python" -m venv .venv
  else
    say_what_to_install "python$version-venv"
  fi
}
