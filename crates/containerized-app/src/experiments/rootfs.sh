# Copies programs of this machine with the libraries that they need: rootfs.sh FOLDER PROGRAM...
set -e

# Not `command -v`: it finds what the shell has built in.
find_file() {
    case $1 in
        /*) readlink -f "$1" ;;
        *)
            old=$IFS
            IFS=:
            for folder in $PATH; do
                if [ -x "$folder/$1" ]; then
                    readlink -f "$folder/$1"
                    break
                fi
            done
            IFS=$old
            ;;
    esac
}

out=$1
shift
mkdir -p "$out/bin" "$out/usr/bin" "$out/tmp" "$out/etc" "$out/root" "$out/dev" "$out/proc"
chmod 1777 "$out/tmp"
for name in "$@"; do
    case $name in
        *.so*) files="$files $name" ;;
        *)
            path=$(find_file "$name")
            if [ -z "$path" ]; then continue; fi
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
