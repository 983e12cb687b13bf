# old-qemu.sh FOLDER EPOCH: Debian 12's qemu-user with its libraries and its loader, all of
# them as old as EPOCH (seconds since 1970).
#
# FOLDER/programs has the emulators, FOLDER/lib what they load, and FOLDER/bin a script for
# each that starts it with that loader and nothing of this system's.
set -eu
mkdir -p "$1/bin" "$1/programs" "$1/lib" /old/partial
for list in /etc/apt/sources.list /etc/apt/sources.list.d/*; do
    if [ -f "$list" ]; then
        sed -i 's/trixie/bookworm/g' "$list"
    fi
done
apt-get update -q
# With no package taken for installed, its dependencies come whole.
apt-get -q -o Dir::State::status=/dev/null -o Dir::Cache::archives=/old/ install -y \
    --download-only --no-install-recommends qemu-user
cd /old
for package in *.deb; do
    dpkg-deb -x "$package" tree
    dpkg-deb --show "$package" >> "$1/packages"
done
cp tree/usr/bin/qemu-* "$1/programs/"
loader=$(find tree/lib* tree/usr/lib* -name 'ld-linux-*.so.*' | head -n 1)
cp -L "$loader" "$1/lib/loader"
library_path=$(find "$PWD/tree" -type d -path '*/lib/*-linux-gnu' | tr '\n' ':')
"$1/lib/loader" --library-path "$library_path" --list "$1/programs/qemu-aarch64" \
    | sed -n 's|.* => \(/old/[^ ]*\) .*|\1|p' | xargs -I '{}' cp -L '{}' "$1/lib/"
for program in "$1"/programs/*; do
    script="$1/bin/$(basename "$program")"
    printf '#!/bin/sh\nexec %s/lib/loader --library-path %s/lib %s "$@"\n' "$1" "$1" "$program" > "$script"
    chmod 755 "$script"
done
"$1/bin/qemu-aarch64" --version
find "$1" -exec touch -h -d "@$2" {} +
