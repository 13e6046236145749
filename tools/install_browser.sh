#!/bin/sh
# Finds Chromium and its driver, which the tests of the pages need, or installs them by apt-get; else says what to do.
set -eu

found() {
    command -v chromedriver >/dev/null || return 1
    command -v chromium >/dev/null || command -v chromium-browser >/dev/null || command -v google-chrome >/dev/null
}

fail() {
    echo "install_browser.sh: $1" >&2
    echo "install Chromium and its driver so that \`chromium\` and \`chromedriver\` are on the PATH; on Debian:" >&2
    echo "    sudo apt-get install chromium chromium-driver" >&2
    exit 1
}

if found; then exit 0; fi
command -v apt-get >/dev/null || fail "there is no browser, and no apt-get that could install one"
if [ "$(id -u)" -eq 0 ]; then
    root=""
elif command -v sudo >/dev/null && sudo -n true 2>/dev/null; then
    root="sudo"
else
    fail "there is no browser, and only root can install one"
fi
echo "installing chromium and chromium-driver for the tests of the pages"
export DEBIAN_FRONTEND=noninteractive
$root apt-get update -qq || fail "apt-get cannot read its lists"
$root apt-get install -y -qq --no-install-recommends chromium chromium-driver || fail "apt-get cannot install them"
found || fail "they are installed, but not on the PATH"
