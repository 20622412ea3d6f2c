# Sourced by the commands in this folder: a copy of the checkout in a folder that goes when the command ends, and in it
# a virtual environment. Works on the files git knows or would add, so that the checkout stays as it was.
exec </dev/null

root="$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)"
work="$(mktemp -d)"
trap 'rm -rf "$work"' EXIT

mkdir "$work/checkout" "$work/tmp"
export TMPDIR="$work/tmp"
cd "$root"
if git rev-parse --is-inside-work-tree >/dev/null 2>&1; then
    git ls-files -z --cached --others --exclude-standard |
        while IFS= read -r -d '' file; do
            if [[ -e "$file" ]]; then printf '%s\0' "$file"; fi
        done |
        tar --create --null --no-recursion --files-from=- |
        tar --extract --directory "$work/checkout"
else
    tar --create --exclude=./.git --exclude=./build . | tar --extract --directory "$work/checkout"
fi
cd "$work/checkout"
export HF_PRUNABLE_SHARED="${HF_PRUNABLE_SHARED:-$root/../shared}"

"${PYTHON:-python3}" -m venv "$work/venv"
export PATH="$work/venv/bin:$PATH"
unset PYTHONPATH PYTHONHOME

run_tests() {
    OMP_NUM_THREADS=1 python -m pytest -n 2 "$@"
}
