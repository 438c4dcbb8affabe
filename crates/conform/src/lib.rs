//! Does a program do what an answer's table of calls says, whoever wrote it, in whichever language?
//!
//! This is the kit; each answer's cases are in its own `src/cases/`. In reading order: a [`case`] is one line of a
//! table, a [`target`] is the program that is tried, [`http`] holds what every answer promises, [`run`] tries a suite
//! and counts, [`program`] kills and starts the reader's program, [`killing`] does so under load, and [`words`] is the
//! command line.

pub mod case;
pub mod target;
pub mod http;
pub mod run;
pub mod program;
pub mod killing;
pub mod words;
