begin;
-- While this waits for a lock, all others wait behind it.
set local lock_timeout = '2s';
-- A client that has given up, or a program that is paused, must not keep writers out.
set local statement_timeout = '30s';
set local idle_in_transaction_session_timeout = '10s';
lock table users in share mode;
