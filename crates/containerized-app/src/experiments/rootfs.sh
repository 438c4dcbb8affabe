# Copies programs of this machine with the libraries that they need: rootfs.sh FOLDER PROGRAM...
set -e
out=$1
shift
mkdir -p "$out/bin" "$out/usr/bin" "$out/tmp" "$out/etc" "$out/root" "$out/dev" "$out/proc"
chmod 1777 "$out/tmp"
for name in "$@"; do
    case $name in
        *.so*) files="$files $name" ;;
        *)
            path=$(command -v "$name") || continue
            path=$(readlink -f "$path")
            case $name in
                /*) ;;
                *) cp "$path" "$out/bin/$(basename "$name")" ;;
            esac
            files="$files $path"
            ;;
    esac
done
for file in $files; do ldd "$file" 2>/dev/null || true; done | grep -o '/[^ ]*' | sort -u |
    while read -r library; do
        mkdir -p "$out$(dirname "$library")"
        cp -L "$library" "$out$library"
    done
printf 'root:x:0:0::/root:/bin/sh\n' > "$out/etc/passwd"
