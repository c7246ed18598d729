#!/bin/sh
# Builds the chart page into the Python package. Where that is not possible it says in one line what is missing; with
# PAGE_OPTIONAL set it then ends well, as the service works without its page. An error in the page's own code is an error.
cd "$(dirname "$0")" || exit 1
left_out() {
    echo "the chart page is not built: $1" >&2
    [ -n "$PAGE_OPTIONAL" ]
    exit
}

command -v node >/dev/null && command -v npm >/dev/null || left_out "install Node.js 18.13 or newer and npm, then \`make page\`"
node -e 'const [a, b] = process.versions.node.split(".").map(Number); process.exit(a > 18 || (a === 18 && b >= 13) ? 0 : 1)' ||
    left_out "Node.js $(node --version) is too old; install 18.13 or newer, then \`make page\`"
if [ ! node_modules/.package-lock.json -nt package-lock.json ]; then
    npm ci --no-audit --no-fund --loglevel=silent >&2 || left_out "\`npm ci\` in frontend/ failed"
fi
npm run --silent build
