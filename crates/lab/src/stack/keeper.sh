# Keeps one private server: starts it, and stops it when nobody has used it for a while.
#
#   sh -c "$(cat keeper.sh)" keeper IDLE STOP AFTER server arguments…
#
# in the server's home. Whoever uses the server holds the FIFO `users` open for writing. The kernel
# closes it when a user ends, also by SIGKILL, so nobody guesses at pids. Standard input is a locked
# file: it stays locked exactly as long as the keeper or its server lives.
set -u
idle=$1 stop=$2 after=$3
shift 3
trap '' HUP INT
exec 3<&0 </dev/null
rm -f users closed in-use was-used
mkfifo -m 600 users || exit

# The mark `in-use` is there from the first user's coming to the last one's end, and then `was-used`.
listen() {
    while :; do
        exec 4<users || exit
        : >in-use
        while read -r word <&4; do
            [ "$word" = down ] && kill -TERM $$
        done
        mv in-use was-used
        exec 4<&-
    done
}

# Tells the keeper when the last user has been gone for `idle` seconds. The first has a minute to come.
watch() {
    quiet=-60
    while :; do
        sleep 1
        if [ -e in-use ]; then
            quiet=0
        elif [ -e was-used ]; then
            # Also if somebody came and went between two looks.
            rm -f was-used
            quiet=0
        elif [ "$quiet" -lt "$idle" ]; then
            quiet=$((quiet + 1))
        else
            # From here on nobody can come in. Whoever just did will have made the mark by then.
            mv users closed
            sleep 1
            [ -e in-use ] || break
            mv closed users
        fi
    done
    kill -TERM $$
}

# Tells the server to stop, each second: one that is just starting may not have heard it. At last, kills it.
insist() {
    for _ in 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17 18 19 20; do
        eval "$stop"
        sleep 1
    done
    kill -KILL "$server" $(cat rabbitmq.pid)
}

told=
trap 'told=1' TERM
"$@" <&3 3<&- &
server=$!
echo "$server" >pid
listen 3<&- &
listener=$!
watch 3<&- &
watcher=$!

wait "$server"          # until the server ends, or TERM comes
kill "$listener" "$watcher" 2>/dev/null
# Only if it lives. A signal that comes to a subshell as it begins can be lost, and this one would then keep a home
# locked for 20 seconds whose server has long been killed.
if kill -0 "$server" 2>/dev/null; then
    insist 3<&- 2>/dev/null &
    insister=$!
    wait "$server"
    kill "$insister" 2>/dev/null
fi
eval "$after" >/dev/null 2>&1
rm -f users closed in-use was-used pid
