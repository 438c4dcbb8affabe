//! Does the workspace keep the rules that no compiler enforces? These tests read its source and start no server.


mod circles;

mod modules;
mod workspace;
