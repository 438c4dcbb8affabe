//! Does the workspace keep the rules that no compiler enforces? These tests read its source and start no server.

mod modules;
mod workspace;
mod circles;
mod layers;
mod budget;
mod sabotages;
mod cases;
mod chapters;
mod whiteboards;
mod interviews;
mod readme;
mod compose;
