# Makes the root of an image with this machine's Python: python-base.sh FOLDER WHEELS ROOTFS_SH
# It stands for python:3.11, which only a registry has. The wheels are in it, so that pip needs no network.
set -e
out=$1
wheels=$2
rootfs=$3
mkdir -p "$out/usr/local/bin" "$out/usr/local/lib" "$out/wheels"
python=$(python3 -c 'import os, sys; print(os.path.realpath(sys.executable))')
lib=$(python3 -c 'import os; print(os.path.dirname(os.__file__))')
name=$(basename "$lib")
sh "$rootfs" "$out" sh rm cat id ls touch sleep env "$python" "$lib"/lib-dynload/*.so
cp "$python" "$out/usr/local/bin/$name"
strip "$out/usr/local/bin/$name" 2>/dev/null || true
ln -sf "$name" "$out/usr/local/bin/python3"
ln -sf "$name" "$out/usr/local/bin/python"
mkdir -p "$out/usr/local/lib/$name"
tar -C "$lib" --exclude=site-packages --exclude=dist-packages --exclude=test --exclude='config-*' \
    --exclude=idlelib --exclude=lib2to3 --exclude=tkinter --exclude=EXTERNALLY-MANAGED \
    --exclude=ensurepip --exclude=pydoc_data --exclude=turtledemo --exclude='*.opt-?.pyc' \
    -cf - . | tar -C "$out/usr/local/lib/$name" -xf -
mkdir -p "$out/usr/local/lib/$name/site-packages"
cp "$wheels"/* "$out/wheels/"
pip=$(ls "$lib"/ensurepip/_bundled/pip-*.whl /usr/share/python-wheels/pip-*.whl 2>/dev/null | head -n 1)
python3 -m zipfile -e "$pip" "$out/usr/local/lib/$name/site-packages"
# Otherwise its first run compiles itself into a layer.
python3 -m compileall -q "$out/usr/local/lib/$name/site-packages" || true
cat > "$out/usr/local/bin/pip" <<'P'
#!/usr/local/bin/python3
import sys
from pip._internal.cli.main import main
sys.exit(main())
P
chmod 755 "$out/usr/local/bin/pip"
# The same without an installer, as python:3.11-slim of a later stage.
slim=$out/../slim
cp -al "$out" "$slim" 2>/dev/null || cp -a "$out" "$slim"
rm -rf "$slim/wheels" "$slim/usr/local/bin/pip" "$slim/usr/local/lib/$name"/site-packages/pip*
